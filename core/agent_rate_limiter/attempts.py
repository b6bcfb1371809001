"""One logical call, attempted until it succeeds or may not be tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_rate_limiter.limits import Target
from agent_rate_limiter.providers.model import Failure, FailureKind
from agent_rate_limiter.reservation import Reservation
from agent_rate_limiter.usage import Estimate

if TYPE_CHECKING:
    from agent_rate_limiter.calls import Calls


class Attempts:
    """Acquire, send, and after a failure ask `failed` whether to acquire again.

    ```python
    attempts = limiter.attempts(target, estimate)
    while True:
        call = attempts.acquire()               # or: await attempts.acquire_async()
        try:
            response = send()
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
    """

    __slots__ = ("_attempt", "_backoff", "_calls", "_deadline", "_estimate", "_priority", "_since", "_target")

    def __init__(
        self, calls: Calls, target: Target, estimate: Estimate, priority: int | None, timeout: float | None
    ) -> None:
        self._calls = calls
        self._target = target
        self._estimate = estimate
        self._priority = priority
        self._deadline = timeout
        self._attempt = 0
        self._backoff = 0.0
        self._since = 0

    @property
    def number(self) -> int:
        """How many attempts were begun."""
        return self._attempt

    def claim(self) -> Reservation | None:
        """Take over, as the first attempt, the reservation that an outer layer has made for this very call."""
        reservation = self._calls.claim(self._target)
        if reservation is not None:
            self._begin()
        return reservation

    def acquire(self) -> Reservation:
        """Wait, blocking the thread, until the next attempt may be sent."""
        timeout = self._begin()
        if self._backoff:
            self._calls.pause(self._backoff)
        return self._calls.acquire(self._target, self._estimate, self._priority, timeout, again=self._attempt > 1)

    async def acquire_async(self) -> Reservation:
        """Wait, letting the event loop run, until the next attempt may be sent."""
        timeout = self._begin()
        if self._backoff:
            await self._calls.pause_async(self._backoff)
        return await self._calls.acquire_async(
            self._target, self._estimate, self._priority, timeout, again=self._attempt > 1
        )

    def failed(self, call: Reservation, error: BaseException | Failure, *, resend: bool = True) -> bool:
        """End an attempt that failed. True when the call is to be tried again: acquire once more.

        Args:
            call: the attempt's reservation.
            error: what was raised, or what the response says.
            resend: False when the call cannot be sent again, as its first chunk was passed on already.
        """
        if call.done or call.claimed:  # a layer inside made the call, and retried it as often as it may
            return False
        failure = error if isinstance(error, Failure) else self._calls.read_failure(error)
        call.fail(failure or error)
        if failure is None or not resend:
            return False
        now = self._calls.engine.clock.now()
        cause = None if isinstance(error, Failure) else error
        backoff = self._calls.retry.after(failure, self._attempt, (now - self._since) / 1000, cause)
        if backoff is None:
            return False
        if failure.kind in {FailureKind.TRANSIENT, FailureKind.OVERLOADED} and not self._calls.may_retry(now):
            return False
        self._backoff = backoff
        return True

    def _begin(self) -> float | None:
        self._attempt += 1
        if self._attempt == 1:
            if self._calls.retry.max_attempts > 1 or self._deadline is not None:
                self._since = self._calls.engine.clock.now()
            return self._deadline
        if self._deadline is None:
            return None
        spent = (self._calls.engine.clock.now() - self._since) / 1000
        return max(0.0, self._deadline - spent)
