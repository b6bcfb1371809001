"""The targets that can serve one call: who is tried next, and how long; who is out, and why."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from agent_rate_limiter.choice import tripped
from agent_rate_limiter.errors import AllTargetsFailed, BudgetExceeded, LimitExceeded, QuotaExhausted, RequestTooLarge
from agent_rate_limiter.events import Degraded, FellBack
from agent_rate_limiter.providers.model import Failure, FailureKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_rate_limiter.calls import Calls
    from agent_rate_limiter.limits import Target
    from agent_rate_limiter.reservation import Reservation
    from agent_rate_limiter.usage import Estimate

_SICK = frozenset({FailureKind.TRANSIENT, FailureKind.OVERLOADED, FailureKind.NO_CREDIT})
_LOOK_AGAIN = 1.0
"""Seconds, at least, that a call waits for the target that is free first, before it looks at all of them anew."""


class Way(NamedTuple):
    """One target to acquire.

    Args:
        target: where the call would go.
        timeout: seconds to wait for it; None for ever.
        backoff: seconds to pause before.
        again: it has waited before, and keeps its place.
        probe: only looks whether it is free; nobody hears of it if not.
    """

    target: Target
    timeout: float | None
    backoff: float = 0.0
    again: bool = False
    probe: bool = False


Ways = Generator[Way, LimitExceeded, None]
"""Yields ways until one is taken; is sent the refusal of each that was not; raises when there are no more."""


class Candidates:
    """The targets of one logical call.

    Args:
        calls: takes the calls through the engine.
        target: where it was meant to go.
        fallbacks: where it may go instead.
        degrade: whether the target's `degrade_to` may stand in for it.
    """

    def __init__(self, calls: Calls, target: Target, fallbacks: Sequence[Target], *, degrade: bool) -> None:
        self._calls = calls
        self._target = target
        self._targets = list(dict.fromkeys((target, *fallbacks)))
        self._degrade = degrade
        self._degraded: tuple[Target, str] | None = None
        self._tries: dict[Target, int] = {}
        self._backoffs: dict[Target, float] = {}  # of those that failed, and may be tried again
        self._causes: dict[str, BaseException] = {}
        self._why = ""  # the target of the call was refused, or failed

    def ways(self, estimate: Estimate, remaining: Callable[[], float | None]) -> Ways:
        """Offer the first target that can serve the call soon; then, again and again, the one that is free first.

        Args:
            estimate: what the call is expected to use.
            remaining: seconds that it may still wait; None for ever.
        """
        stretch, clock = 1.0, self._calls.engine.clock
        stood: set[Target] = set()  # where it has stood in line: there it keeps its place
        while True:
            refusals: dict[Target, LimitExceeded] = {}
            for target in self.order(estimate):
                backoff, again = self._backoffs.pop(target, 0.0), bool(self._tries)
                refusals[target] = yield Way(target, 0.0, backoff, again=again, probe=True)
                patience = self._patience(target, refusals[target], remaining())
                if patience:
                    refusals[target] = yield Way(target, patience, again=again)
                self._note(target, refusals[target])
            target = self._soonest(refusals)
            stretch *= 2
            left = remaining()
            longest = _bounded(refusals[target], left, stretch)
            since = clock.now()
            refusal = yield Way(target, longest, again=target in stood or bool(self._tries))
            if clock.now() > since:
                stood.add(target)
            if longest == left or isinstance(refusal, _FINAL):
                self.out(target, refusal)  # not in all the time there was

    def taken(self, way: Way, call: Reservation) -> Reservation:
        """Note which way was taken, and tell when it is not the one that was meant."""
        target = way.target
        self._tries[target] = self._tries.get(target, 0) + 1
        events = self._calls.events
        if events.listening and target != self._target:
            at, meant, labels = self._calls.seconds(), str(self._target), call.labels
            if self._degraded is not None and target == self._degraded[0]:
                events.emit(Degraded(at, meant, labels, served_by=str(target), reason=self._degraded[1]))
            elif self._why:
                events.emit(FellBack(at, meant, labels, served_by=str(target), reason=self._why))
        return call

    def tries(self, target: Target) -> int:
        """How often a target was tried."""
        return self._tries.get(target, 1)

    def failed(
        self, target: Target, failure: Failure | None, error: BaseException | Failure, backoff: float | None
    ) -> bool:
        """Note that an attempt failed. True when there is anywhere to try it next.

        Args:
            target: where.
            failure: what it means; None when no provider caused it.
            error: the same, or what was raised.
            backoff: seconds until the target may be tried again; None when it may not.

        Raises:
            AllTargetsFailed: there is nowhere left.
        """
        ours = isinstance(error, (LimitExceeded, AllTargetsFailed))
        fatal = failure is None or (failure.kind is FailureKind.FATAL and target == self._target)
        if fatal and not ours:
            return False  # the user's own, or a request that is bad everywhere
        if failure is not None and failure.kind in _SICK:
            self._calls.chooser.health.failed(target, self._calls.engine.clock.now())
        cause = _Refused(error.message or error.kind.value) if isinstance(error, Failure) else error
        if backoff is None:
            self.out(target, cause)
        else:
            self._note(target, cause)
            self._backoffs[target] = backoff
        return True

    def out(self, target: Target, cause: BaseException) -> None:
        """Take a target out of this call.

        Raises:
            AllTargetsFailed: it was the last one.
        """
        self._note(target, cause)
        self._causes[str(target)] = cause
        self._targets = [other for other in self._targets if other != target]
        if not self._targets:
            self._give_up(cause)

    def _give_up(self, cause: BaseException) -> NoReturn:
        if len(self._causes) == 1 and isinstance(cause, LimitExceeded):
            raise cause
        raise AllTargetsFailed(self._causes) from cause

    def order(self, estimate: Estimate) -> list[Target]:
        """Return those by preference that are well, then those that are not."""
        chooser = self._calls.chooser
        order = chooser.order(self._calls, self._targets, estimate)
        self._degraded = None
        if self._degrade and (found := chooser.degraded(self._calls, self._target)) is not None:
            cheaper, low = found
            self._degraded = (cheaper, f"'{low.limit.name}' runs low")
            if str(cheaper) not in self._causes:
                order = list(dict.fromkeys((cheaper, *order)))
        health, now = chooser.health, self._calls.engine.clock.now()
        return sorted(order, key=lambda target: (target in self._backoffs, health.down(target, now)))

    def _patience(self, target: Target, refusal: LimitExceeded, remaining: float | None) -> float:
        """Seconds to wait for a target before the next is looked at."""
        if isinstance(refusal, RequestTooLarge) or tripped(self._calls, target):
            return 0.0
        free_in, soon = refusal.retry_after, self._calls.chooser.fallback_after
        if remaining is None or free_in is None:  # nobody knows when a slot comes back
            patience = soon if remaining is None else min(soon, remaining)
            return patience if free_in is None or free_in <= patience else 0.0
        return remaining if free_in <= remaining else 0.0

    def _soonest(self, refusals: dict[Target, LimitExceeded]) -> Target:
        """Take out what never fits; return the one that is free first."""
        for target, refusal in refusals.items():
            if isinstance(refusal, RequestTooLarge) and target in self._targets:
                self.out(target, refusal)
        waitable = [target for target in refusals if target in self._targets]
        return min(waitable, key=lambda target: _free_in(refusals[target]))

    def _note(self, target: Target, cause: BaseException) -> None:
        if target == self._target:
            self._why = str(cause)


class _Refused(Exception):
    """What a provider said, where it was a response and no exception."""


_FINAL = (RequestTooLarge, BudgetExceeded, QuotaExhausted)


def _free_in(refusal: LimitExceeded) -> tuple[bool, float]:
    known = refusal.retry_after
    return (isinstance(refusal, _FINAL), _LOOK_AGAIN if known is None else known)


def _bounded(refusal: LimitExceeded, remaining: float | None, stretch: float) -> float | None:
    """Wait a while longer than was told: if it takes longer still, another target may be free before."""
    if isinstance(refusal, _FINAL):
        return remaining
    patience = stretch * max(_LOOK_AGAIN, refusal.retry_after or 0.0)
    return patience if remaining is None else min(remaining, patience)
