"""The handle of one admitted call."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from agent_rate_limiter.calls import context
from agent_rate_limiter.engine.port import Hold
from agent_rate_limiter.errors import ReservationError
from agent_rate_limiter.limits import Target
from agent_rate_limiter.providers.model import Failure, FailureKind, Quota
from agent_rate_limiter.usage import Estimate, Usage

if TYPE_CHECKING:
    from typing_extensions import Self

    from agent_rate_limiter.calls.life import Calls
    from agent_rate_limiter.calls.route import Route

_log = logging.getLogger("agent_rate_limiter")


class Reservation:
    """An admitted call: what it may use is taken from every limit on its path until it is settled.

    Settle it once with what really happened, or cancel it if it was never sent. As a context manager
    (`with` or `async with`) it does so by itself: the estimate is charged when the block ends without a
    settlement, and an exception is looked at first. A reservation that is dropped is charged its estimate.

    Attributes:
        target: where the call goes; send it to `model`.
        estimate: what was reserved.
        waited: seconds that the call queued.
        usage: what it was settled with; None before.
        cost: dollars it was settled with; None before.
    """

    __slots__ = ("_calls", "_claimed", "_done", "_hold", "_route", "cost", "estimate", "target", "usage", "waited")

    def __init__(self, calls: Calls, route: Route, hold: Hold, estimate: Estimate, waited: float = 0.0) -> None:
        self._calls = calls
        self._route = route
        self._hold = hold
        self._claimed = self._done = False
        self.target: Target = route.target
        self.estimate = estimate
        self.waited = waited
        self.usage: Usage | None = None
        self.cost: float | None = None

    @property
    def id(self) -> int:
        """Its number, unique in this limiter."""
        return self._hold.id

    @property
    def model(self) -> str:
        """The model to send the call to."""
        return self.target.model

    @property
    def provider(self) -> str:
        """The provider to send the call to."""
        return self.target.provider

    @property
    def labels(self) -> Mapping[str, str]:
        """Who makes the call: the labels of its scope."""
        return self._route.labels

    def held_by(self, calls: Calls) -> Hold | None:
        """Return what it has taken, if it was taken through these calls; for the machinery."""
        return self._hold if self._calls is calls else None

    @property
    def claimed(self) -> bool:
        """Whether a layer inside has taken it over, and will end it."""
        return self._claimed

    @property
    def open(self) -> bool:
        """Whether the call has not ended yet, whoever will end it."""
        return self._hold.open

    @property
    def done(self) -> bool:
        """Whether it is settled or cancelled, or a layer inside will see to that."""
        return self._done

    def settle(self, response: object = None) -> None:
        """End the call with what it used; what was reserved too much comes back, more is owed.

        Args:
            response: an SDK's response, its dict, or a `Usage`. None, or a response that states no usage,
                charges the estimate; one that says that it was refused (a 429, a 529, …) ends the call as `fail`.

        Raises:
            ReservationError: it has ended already.
        """
        if self._done:
            if self._claimed:  # a layer inside has settled the same call
                return
            raise ReservationError(self._ended("settle"))
        usage = response if isinstance(response, Usage) else None
        if usage is None:
            if response is not None and (usage := self.read(response)) is None and (failure := self.refusal(response)):
                self.fail(failure)
                return
            usage = usage or self._unstated(response)
        self._done = True
        self.usage = usage
        self.cost = self._calls.settle(self._route, self._hold, self.estimate, usage)

    def _lose(self, failure: Failure | None) -> None:
        """End the call with the estimate: it may have been sent, and answered."""
        if self._done:
            raise ReservationError(self._ended("fail"))
        self._done = True
        self.usage = self._guess()
        if failure is not None:
            self._calls.failed_at(self.target, failure)
        self.cost = self._calls.settle(self._route, self._hold, self.estimate, self.usage, lost=True)

    def cancel(self) -> None:
        """End the call as never sent: everything it reserved comes back.

        Raises:
            ReservationError: it has ended already.
        """
        if self._done:
            if self._claimed:
                return
            raise ReservationError(self._ended("cancel"))
        self._done = True
        self.cost = 0.0
        self._calls.cancel(self._route, self._hold)

    def abandon(self, usage: Usage | None = None) -> None:
        """End the call from a finalizer: takes no lock, and charges what is known, or the estimate."""
        if not self._done:
            self._done = True
            self.usage = self._guess() if usage is None else usage
            self._calls.abandon(self._route, self._hold, self.estimate, self.usage)

    def count(self, attempt: int) -> None:
        """Note which attempt of its logical call this is; for the ledger."""
        self._hold.attempt = attempt

    def claim(self) -> Reservation | None:
        """Take over the call for an inner layer that makes it; None when it has ended, or was taken over before.

        Returns the handle to end the call with, which a layer further inside can claim in turn. This one sees how
        the call ends, and has no say in it.
        """
        if self._done:
            return None
        self._done = self._claimed = True
        return _Claimed(self)

    def offered(self) -> AbstractContextManager[None]:
        """Let inner layers find the reservation during the block, and claim it instead of making their own.

        For adapters: unlike `with reservation:`, leaving the block does not end the call. A generator enters it
        anew around each `next`, for while it is suspended, what its consumer calls is another call.
        """
        return context.Holding(self)

    def offer(self) -> None:
        """Let inner layers find it until it has ended; for adapters whose hooks only see a call begin and end."""
        context.offer_reservation(self)

    def withdraw(self) -> None:
        """Take back `offer()`, in this context: from now on, calls that are made here are others."""
        context.drop_reservation(self)

    def fail(self, error: BaseException | Failure) -> None:
        """End the call after an error: as never sent, as refused by the provider, or else with the estimate.

        What the provider refused closes the target for everybody as long as it says.

        Raises:
            ReservationError: it has ended already.
        """
        if self._done and self._claimed:
            return
        failure = error if isinstance(error, Failure) else self._calls.read_failure(error, self.target)
        if failure is None or (failure.sent and failure.kind is FailureKind.TRANSIENT and failure.status is None):
            self._lose(failure)
            return
        if self._done:
            raise ReservationError(self._ended("fail"))
        self._done = True
        self.usage = Usage(self.estimate.requests) if failure.sent else None
        self.cost = self._calls.refuse(self._route, self._hold, self.estimate, failure)

    def observe(self, quotas: Iterable[Quota]) -> None:
        """Correct the limits by what a response's headers say is left; before or after the call is settled."""
        self._calls.observe(self._route, self._hold, quotas)

    def read(self, response: object) -> Usage | None:
        """Find the usage in an SDK's response or its dict; None when it states none."""
        return self._calls.read_usage(response)

    def refusal(self, response: object) -> Failure | None:
        """Find what a response that nobody raised as an error says went wrong; None when nothing did.

        Known are the responses of HTTP libraries, by their status, and a provider's error as parsed JSON.
        """
        return self._calls.read_refusal(response, self.target)

    def _unstated(self, response: object) -> Usage:
        if response is not None:
            _log.warning(
                "%s: no usage found in the %s given; the estimate is charged. Pass a Usage(...) to settle().",
                self.target,
                type(response).__name__,
            )
        return self._guess()

    def _guess(self) -> Usage:
        estimate = self.estimate
        tokens = self._route.expects(estimate)[:2]
        return Usage(estimate.requests, *tokens, cost=estimate.cost, exact=False)

    def _ended(self, attempt: str) -> str:
        how = "cancelled" if self.usage is None else f"settled with {self.usage.total_tokens} tokens"
        return f"Cannot {attempt} reservation {self.id} for {self.target}: it was {how} before. End each once."

    def __enter__(self) -> Self:
        """Let inner layers find it."""
        context.hold_reservation(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, if the block has not."""
        context.drop_reservation(self)
        if self._done or self._claimed:
            return
        if error is None:
            self.settle()
        else:
            self.fail(error)

    async def __aenter__(self) -> Self:
        """Let inner layers find it."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, if the block has not."""
        self.__exit__(kind, error, trace)

    def __del__(self) -> None:
        """Dropped without an end: it may have been sent, so its estimate stays charged and its slot comes back."""
        if not self._done:
            self.abandon()

    def __repr__(self) -> str:
        """State the target and how it stands."""
        if not self._done:
            state = "open"
        elif self._claimed and self.usage is None and self.cost is None:
            state = "claimed"
        elif self.usage is None:
            state = "cancelled"
        elif self.cost is None:
            state = "abandoned"
        else:
            state = f"settled: {self.usage.input_tokens}+{self.usage.output_tokens} tokens, ${self.cost:.6f}"
        return f"<Reservation {self.id} {self.target} {state}>"

    def __bool__(self) -> Literal[True]:
        """Admitted, so truthy: the other outcome of `try_acquire` is a falsy Decision."""
        return True

    def __reduce__(self) -> Any:
        """Refuse: a reservation belongs to the limiter that made it."""
        message = "A Reservation cannot be pickled or copied: settle it in the process that made it."
        raise ReservationError(message)


class _Claimed(Reservation):
    """The handle of a layer inside, which has taken the call over: the outer one sees how it ends."""

    __slots__ = ("_outer",)

    def __init__(self, outer: Reservation) -> None:
        calls, route, hold = outer._calls, outer._route, outer._hold  # noqa: SLF001 - its own kind
        super().__init__(calls, route, hold, outer.estimate, outer.waited)
        self._outer = outer

    def settle(self, response: object = None) -> None:
        super().settle(response)
        self._show()

    def cancel(self) -> None:
        super().cancel()
        self._show()

    def abandon(self, usage: Usage | None = None) -> None:
        super().abandon(usage)
        self._show()

    def fail(self, error: BaseException | Failure) -> None:
        super().fail(error)
        self._show()

    def _show(self) -> None:
        handle: Reservation = self
        while isinstance(handle, _Claimed):
            handle = handle._outer  # noqa: SLF001 - its own kind
            handle.usage, handle.cost = self.usage, self.cost


class Tracked(Reservation):
    """A call that is made whatever the limits say; it steps back for a layer inside that makes it under its limits."""

    __slots__ = ()

    def claim(self) -> None:
        """Let the layer inside, which found this, make a reservation of its own: it counts the call."""
        if not self._done:
            self.cancel()
