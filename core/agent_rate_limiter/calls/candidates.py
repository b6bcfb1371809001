"""The targets that can serve one call: who is tried next, and how long; who is out, and why."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from agent_rate_limiter.calls.standing import Standing
from agent_rate_limiter.engine.queue import Place
from agent_rate_limiter.errors import (
    AllTargetsFailed,
    BudgetExceeded,
    LimitExceeded,
    QueueFull,
    QuotaExhausted,
    RateLimiterError,
    RequestTooLarge,
    ReservationError,
)
from agent_rate_limiter.events import Degraded, FellBack, Queued, Refused
from agent_rate_limiter.limits import Target
from agent_rate_limiter.providers.model import Failure, FailureKind
from agent_rate_limiter.redaction import harmless

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_rate_limiter.calls.life import Calls
    from agent_rate_limiter.calls.reservation import Reservation
    from agent_rate_limiter.usage import Estimate

_LOOK_AGAIN, _LOOK_AGAIN_AT_MOST = 1.0, 16.0
"""Seconds that a call stands in line for the target that is free first, before it looks at all of them anew."""
_OWN_TROUBLE = frozenset({401, 403, 404})
"""A key that is wrong, a model that is gone: refusals that another target need not share."""
_HOPELESS = (RequestTooLarge, QueueFull, ReservationError)
_FINAL = (BudgetExceeded, QuotaExhausted)
"""Not waited for, unless calls in flight may give something back: the engine knows."""


class Way(NamedTuple):
    """One target to acquire.

    Args:
        target: where the call would go.
        timeout: seconds to wait for it; None for ever.
        standing: how it stands in line there.
        backoff: seconds to pause before.
    """

    target: Target
    timeout: float | None
    standing: Standing
    backoff: float = 0.0


Ways = Generator[Way, RateLimiterError, None]
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
        self._estimate: Estimate | None = None  # what it is expected to use, once that is known
        self._tried: set[Target] = set()
        self._places: dict[Target, Place] = {}
        self._backoffs: dict[Target, float] = {}  # of those that failed, and may be tried again
        self._causes: dict[Target, BaseException] = {}  # of those that are out
        self._why = ""  # the target of the call was refused, or failed
        self._heard = False  # that it waits

    # -- before an attempt -----------------------------------------------------------------------------------

    def ways(self, estimate: Estimate, remaining: Callable[[], float | None]) -> Ways:
        """Offer the first target that can serve the call soon; then, again and again, the one that is free first.

        Args:
            estimate: what the call is expected to use.
            remaining: seconds that it may still wait; None for ever.
        """
        interval = _LOOK_AGAIN
        while True:
            refusals: dict[Target, RateLimiterError] = {}
            for target in self.order(estimate):
                refusals[target] = yield self._way(target, 0.0, self._backoffs.pop(target, 0.0))
                patience = self._patience(target, refusals[target], remaining())
                if patience:
                    self._wait(refusals[target])
                    refusals[target] = yield self._way(target, patience)
                self._note(target, refusals[target])
            way = self._line(refusals, remaining(), interval)
            self._wait(refusals[way.target])
            refusal = yield way
            if not way.standing.stays or remaining() == 0 or isinstance(refusal, _HOPELESS):
                self.out(way.target, refusal)
            interval = min(2 * interval, _LOOK_AGAIN_AT_MOST)

    def order(self, estimate: Estimate) -> list[Target]:
        """Return those by preference that are well, then those that are not."""
        self._estimate = estimate
        chooser = self._calls.chooser
        order = chooser.order(self._calls, self._targets, estimate)
        self._degraded = None
        if self._degrade and (found := chooser.degraded(self._calls, self._target)) is not None:
            cheaper, low = found
            self._degraded = (cheaper, f"'{low.limit.name}' runs low")
            if cheaper not in self._causes:
                order = list(dict.fromkeys((cheaper, *order)))
        health, now = chooser.health, self._calls.engine.clock.now()
        if health.down(self._target, now):
            self._why = self._why or "its circuit breaker is open"
        return sorted(order, key=lambda target: (target in self._backoffs, health.down(target, now)))

    def _way(self, target: Target, timeout: float | None, backoff: float = 0.0, *, stays: bool = False) -> Way:
        self._calls.chooser.health.look(target, self._calls.engine.clock.now())
        place = self._places.setdefault(target, Place()) if timeout != 0 else None
        return Way(target, timeout, Standing(target in self._tried, True, stays, place), backoff)  # noqa: FBT003

    def _patience(self, target: Target, refusal: RateLimiterError, remaining: float | None) -> float:
        """Seconds to wait for a target before the next is looked at."""
        chooser = self._calls.chooser
        if isinstance(refusal, _HOPELESS) or chooser.health.sick(target):
            return 0.0
        free_in, soon = _free_in(refusal), chooser.fallback_after
        if remaining is None or free_in is None:  # nobody knows when a slot comes back
            patience = soon if remaining is None else min(soon, remaining)
            return patience if free_in is None or free_in <= patience else 0.0
        return remaining if free_in <= remaining else 0.0

    def _line(self, refusals: dict[Target, RateLimiterError], left: float | None, interval: float) -> Way:
        """Take out what it is in vain to wait for; return the way to the target that is free first."""
        for target, refusal in refusals.items():
            late = left is not None and (_free_in(refusal) or 0.0) > left and not isinstance(refusal, _FINAL)
            if late or isinstance(refusal, _HOPELESS):
                self.out(target, refusal)
        alive = {target: refusal for target, refusal in refusals.items() if target not in self._causes}
        waited = {target: refusal for target, refusal in alive.items() if not isinstance(refusal, _FINAL)}
        if not waited:
            return self._way(next(iter(alive)), left)
        first = min(waited, key=lambda target: _free_in(waited[target]) or 0.0)
        return self._way(first, interval if left is None else min(interval, left), stays=True)

    # -- an attempt ------------------------------------------------------------------------------------------

    def taken(self, target: Target, call: Reservation) -> Reservation:
        """Note where the call goes, and tell when it is not where it was meant to."""
        self._tried.add(target)
        events = self._calls.events
        if events.listening and target != self._target:
            at, meant, labels = self._calls.seconds(), str(self._target), call.labels
            if self._degraded is not None and target == self._degraded[0]:
                events.emit(Degraded(at, meant, labels, served_by=str(target), reason=self._degraded[1]))
            elif self._why:
                events.emit(FellBack(at, meant, labels, served_by=str(target), reason=self._why))
        return call

    def others(self, target: Target) -> bool:
        """Whether there is another target that has not failed yet."""
        return any(other != target and other not in self._backoffs for other in self._targets)

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
            AllTargetsFailed: there is nowhere left, of several.
        """
        if isinstance(error, AllTargetsFailed):  # a layer inside has tried them, too
            inside = {Target.parse(name): cause for name, cause in error.causes.items()}
        elif self._is_ours(error) or (failure is not None and not self._is_shared(failure, target)):
            inside = {target: _cause(error)}
        else:
            return False  # the user's own, or a request that is bad everywhere
        self._note(target, _cause(error))
        if backoff is not None:
            self._backoffs[target] = backoff
            return True
        self._causes.update(inside)
        self._targets = [other for other in self._targets if other not in self._causes]
        if not self._targets and len(self._causes) > 1:
            self._give_up()
        return bool(self._targets)  # where there was no other, the error is the call's own

    def _is_ours(self, error: object) -> bool:
        """Whether a limit of this very call refused it, in a layer inside."""
        return isinstance(error, LimitExceeded) and error.decision.target in {str(t) for t in self._targets}

    def _is_shared(self, failure: Failure, target: Target) -> bool:
        fatal = failure.kind is FailureKind.FATAL and failure.status not in _OWN_TROUBLE
        return fatal and target == self._target

    # -- the end ---------------------------------------------------------------------------------------------

    def out(self, target: Target, cause: BaseException) -> None:
        """Take a target out of this call.

        Raises:
            LimitExceeded: it was the last one, and the same limit refused everywhere.
            AllTargetsFailed: it was the last one.
        """
        self._note(target, cause)
        self._causes[target] = cause
        self._targets = [other for other in self._targets if other != target]
        if not self._targets:
            self._give_up()

    def refused(self) -> None:
        """Tell those who watch budgets that the call was refused, by limits, wherever it could go."""
        if self._estimate is not None:
            refused = [target for target, cause in self._causes.items() if isinstance(cause, LimitExceeded)]
            self._calls.refused_everywhere([*self._targets, *refused], self._estimate)

    def _give_up(self) -> NoReturn:
        causes = list(self._causes.values())
        first = causes[0]
        self.refused()
        events = self._calls.events
        if isinstance(first, LimitExceeded) and events.listening:
            events.emit(Refused(self._calls.seconds(), str(self._target), decision=first.decision))
        if len({_limit_of(cause) for cause in causes}) == 1:  # a budget, a guard of the scope: the same everywhere
            raise first
        raise AllTargetsFailed({str(target): cause for target, cause in self._causes.items()}) from causes[-1]

    def _wait(self, refusal: RateLimiterError) -> None:
        """Tell, once, that the call has to wait."""
        events = self._calls.events
        if events.listening and not self._heard and isinstance(refusal, LimitExceeded):
            self._heard = True
            events.emit(Queued(self._calls.seconds(), str(self._target), decision=refusal.decision))

    def _note(self, target: Target, cause: BaseException) -> None:
        if target == self._target:
            self._why = harmless(str(cause)) or type(cause).__name__


class _Refused(Exception):
    """What a provider said, where it was a response and no exception."""


def _cause(error: BaseException | Failure) -> BaseException:
    if not isinstance(error, Failure):
        return error
    status = f"HTTP {error.status}: " if error.status else ""
    return _Refused(status + (error.message or error.kind.value))


def _free_in(refusal: RateLimiterError) -> float | None:
    return refusal.retry_after if isinstance(refusal, LimitExceeded) else None


def _limit_of(cause: BaseException) -> object:
    """Which limit refused; where none did, what happened, which is like nothing else."""
    if not isinstance(cause, LimitExceeded):
        return id(cause)
    decision = cause.decision
    return (type(cause), decision.owner, decision.limit, decision.scope)
