"""One logical call, attempted at one target or several until it succeeds or may not be tried again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent_rate_limiter.calls.candidates import Candidates, Way, Ways
from agent_rate_limiter.calls.reservation import Reservation
from agent_rate_limiter.calls.standing import AGAIN, NEW, Standing
from agent_rate_limiter.decision import Decision
from agent_rate_limiter.errors import LimitExceeded, ReservationError
from agent_rate_limiter.events import Refused, Retried
from agent_rate_limiter.limits import Target
from agent_rate_limiter.providers.model import Failure, FailureKind
from agent_rate_limiter.usage import Estimate

if TYPE_CHECKING:
    from agent_rate_limiter.calls.life import Calls

_BACKED_OFF = frozenset({FailureKind.TRANSIENT, FailureKind.OVERLOADED})


class Attempts:
    """Acquire, send, and after a failure ask `failed` whether to acquire again.

    ```python
    attempts = limiter.attempts(target, estimate)
    while True:
        call = attempts.acquire()               # or: await attempts.acquire_async()
        try:
            response = send(call.target)        # a fallback, where there are any
        except Exception as error:
            if not attempts.failed(call, error):
                raise
        else:
            call.settle(response)
            break
    ```

    Args:
        calls: takes the calls through the engine.
        target: where they go.
        estimate: what each attempt is expected to use.
        priority: lower goes first; None takes the scope's.
        timeout: seconds that the call may wait for admission, all attempts together.
        fallbacks: where it may go instead: while the target is not free in time, has failed in a way that
            others need not share, or its circuit breaker is open.
        degrade: whether the target's `degrade_to` may stand in for it.
    """

    __slots__ = (
        "_attempt",
        "_backoff",
        "_calls",
        "_candidates",
        "_deadline",
        "_estimate",
        "_priority",
        "_since",
        "_target",
        "_ways",
    )

    def __init__(
        self,
        calls: Calls,
        target: Target,
        estimate: Estimate,
        priority: int | None,
        timeout: float | None,
        *,
        fallbacks: Sequence[Target] = (),
        degrade: bool = False,
    ) -> None:
        self._calls = calls
        self._target = target
        self._estimate = estimate
        self._priority = priority
        self._deadline = timeout
        self._attempt = 0
        self._backoff = 0.0
        self._since = 0
        self._ways: Ways | None = None
        self._candidates = Candidates(calls, target, fallbacks, degrade=degrade) if fallbacks or degrade else None

    @property
    def number(self) -> int:
        """How many attempts were begun."""
        return self._attempt

    def claim(self) -> Reservation | None:
        """Take over, as the first attempt, the reservation that an outer layer has made for this very call."""
        reservation = self._calls.claim(self._target)
        if reservation is not None:
            self._begin()
            if self._candidates is not None:
                self._candidates.taken(self._target, reservation)
        return reservation

    def acquire(self) -> Reservation:
        """Wait, blocking the thread, until the next attempt may be sent.

        Raises:
            LimitExceeded: it can never be admitted, or not within the timeout.
            AllTargetsFailed: so it is, or failed, at every target.
        """
        way = self._first_way()
        while True:
            try:
                if way.backoff:
                    self._calls.pause(way.backoff)
                call = self._calls.acquire(way.target, self._estimate, self._priority, way.timeout, way.standing)
            except (LimitExceeded, ReservationError) as refusal:  # noqa: PERF203 - that is the loop
                way = self._next_way(refusal)
            else:
                return self._taken(way.target, call)

    async def acquire_async(self) -> Reservation:
        """Wait, letting the event loop run, until the next attempt may be sent. As `acquire`."""
        way = self._first_way()
        while True:
            try:
                if way.backoff:
                    await self._calls.pause_async(way.backoff)
                terms = way.target, self._estimate, self._priority, way.timeout, way.standing
                call = await self._calls.acquire_async(*terms)
            except (LimitExceeded, ReservationError) as refusal:  # noqa: PERF203 - as above
                way = self._next_way(refusal)
            else:
                return self._taken(way.target, call)

    def try_acquire(self) -> Reservation | Decision:
        """Admit the next attempt now, or say why not: never waits."""
        self._begin()
        if self._candidates is None:
            return self._calls.try_acquire(self._target, self._estimate, self._priority)
        refused: list[Decision] = []
        for target in self._candidates.order(self._estimate):
            call = self._calls.try_acquire(target, self._estimate, self._priority, Standing(quiet=True))
            if not isinstance(call, Decision):
                return self._taken(target, call)
            refused.append(call)
        self._candidates.refused()
        decision = min(refused, key=lambda decision: (decision.retry_after is None, decision.retry_after))
        if self._calls.events.listening:
            self._calls.events.emit(Refused(self._calls.seconds(), decision.target, decision=decision))
        return decision

    def _taken(self, target: Target, call: Reservation) -> Reservation:
        call.count(self._attempt)
        return call if self._candidates is None else self._candidates.taken(target, call)

    def failed(self, call: Reservation, error: BaseException | Failure, *, resend: bool = True) -> bool:
        """End an attempt that failed. True when the call is to be tried again: acquire once more.

        Args:
            call: the attempt's reservation.
            error: what was raised, or what the response says.
            resend: False when the call cannot be sent again, as its first chunk was passed on already.

        Raises:
            AllTargetsFailed: no target is left.
        """
        inside = call.done or call.claimed  # a layer inside made the call, and retried it as often as it may
        if inside and self._candidates is None:
            return False
        failure = error if isinstance(error, Failure) else self._calls.read_failure(error, call.target)
        if not inside:
            call.fail(failure or error)
        if not resend:
            return False
        cause = None if isinstance(error, Failure) else error
        backoff = None if inside or failure is None else self._retry_in(failure, call.target, cause)
        if self._candidates is not None:
            again = self._candidates.failed(call.target, failure, error, backoff)
        else:
            again = backoff is not None
            self._backoff = backoff or 0.0
        if again and failure is not None:
            self._tell(call, failure, backoff or 0.0)
        return again

    def _retry_in(self, failure: Failure, target: Target, cause: BaseException | None) -> float | None:
        """Seconds until a target may be tried again; None: no more."""
        now = self._now()
        backoff = self._calls.retry.after(failure, self._attempt, (now - self._since) / 1000, cause)
        left = self._remaining()
        if backoff is None or (left is not None and backoff > left):
            return None
        if self._candidates is not None and self._candidates.others(target):
            return backoff  # it goes there first: that is no retry
        if failure.stale or failure.kind not in _BACKED_OFF:  # a stale connection is gone now: no storm comes of it
            return backoff
        return backoff if self._calls.may_retry(now) else None

    def _begin(self) -> None:
        self._attempt += 1
        if self._attempt == 1 and (self._calls.retry.max_attempts > 1 or self._deadline is not None):
            self._since = self._now()

    def _now(self) -> int:
        """Epoch milliseconds, by this machine's clock: how far a store's differs, its first answer tells."""
        return self._calls.engine.pauses.clock.now()

    def _first_way(self) -> Way:
        self._begin()
        if self._candidates is None:
            return Way(self._target, self._remaining(), AGAIN if self._attempt > 1 else NEW, self._backoff)
        self._ways = self._candidates.ways(self._estimate, self._remaining)
        return next(self._ways)

    def _next_way(self, refusal: LimitExceeded | ReservationError) -> Way:
        if self._ways is None:
            raise refusal
        return self._ways.send(refusal)

    def _remaining(self) -> float | None:
        """Seconds that the call may still wait."""
        if self._deadline is None:
            return None
        left = self._deadline - (self._now() - self._since) / 1000
        return left if left >= 0.001 else 0.0  # noqa: PLR2004 - the engine's clock tells no less than milliseconds

    def _tell(self, call: Reservation, failure: Failure, backoff: float) -> None:
        events = self._calls.events
        if events.listening:
            what = {"attempt": self._attempt, "kind": failure.kind.value, "backoff": backoff}
            events.emit(
                Retried(self._calls.seconds(), str(call.target), call.labels, message=failure.message, **what)  # type: ignore[arg-type]
            )
