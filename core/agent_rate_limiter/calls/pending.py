"""`limiter.reserve(...)`: a call that is admitted when its block is entered."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from agent_rate_limiter.calls.attempts import Attempts
from agent_rate_limiter.calls.life import Calls
from agent_rate_limiter.calls.reservation import Reservation
from agent_rate_limiter.errors import ReservationError
from agent_rate_limiter.limits import Target
from agent_rate_limiter.usage import Estimate


class Pending:
    """Enter it with `with` (waits in the thread) or `async with` (waits in the event loop), once."""

    __slots__ = ("_begin", "_calls", "_entered", "_estimate", "_priority", "_reservation", "_target", "_timeout")

    def __init__(  # noqa: PLR0917 - the limiters' own
        self,
        calls: Calls,
        target: Target,
        estimate: Estimate,
        priority: int | None,
        timeout: float | None,
        begin: Callable[[], Attempts] | None = None,
    ) -> None:
        self._calls = calls
        self._target = target
        self._estimate = estimate
        self._priority = priority
        self._timeout = timeout
        self._begin = begin  # where it may go elsewhere
        self._entered = False
        self._reservation: Reservation | None = None

    def __enter__(self) -> Reservation:
        """Wait until the call is admitted."""
        self._enter()
        try:
            if self._begin is not None:
                call = self._begin().acquire()
            else:
                call = self._calls.acquire(self._target, self._estimate, self._priority, self._timeout)
        except BaseException:
            self._entered = False
            raise
        self._reservation = call
        return call.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the call, if the block has not."""
        assert self._reservation is not None  # noqa: S101 - entered before
        self._reservation.__exit__(kind, error, trace)

    async def __aenter__(self) -> Reservation:
        """Wait until the call is admitted."""
        self._enter()
        try:
            if self._begin is not None:
                call = await self._begin().acquire_async()
            else:
                call = await self._calls.acquire_async(self._target, self._estimate, self._priority, self._timeout)
        except BaseException:
            self._entered = False
            raise
        self._reservation = call
        return call.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the call, if the block has not."""
        self.__exit__(kind, error, trace)

    def _enter(self) -> None:
        """Let it be entered once; again only after a refusal."""
        if self._entered:
            message = f"This reserve() for {self._target} was entered before. Call reserve() anew for each call."
            raise ReservationError(message)
        self._entered = True

    def __repr__(self) -> str:
        """State the target."""
        return f"<reserve {self._target}: enter it with 'with' or 'async with'>"
