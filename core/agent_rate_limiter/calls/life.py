"""How calls begin: they are admitted, or wait. Shared by every limiter; sync and async differ in a word."""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import cast

from agent_rate_limiter.admission import Bucket, Refusal
from agent_rate_limiter.calls import context
from agent_rate_limiter.calls.attempts import Attempts
from agent_rate_limiter.calls.endings import Endings
from agent_rate_limiter.calls.reservation import Reservation, Tracked
from agent_rate_limiter.calls.route import Route
from agent_rate_limiter.calls.sizing import Fixed, RouteSizing
from agent_rate_limiter.calls.standing import NEW, Standing
from agent_rate_limiter.checks import check_estimate, check_priority, check_timeout
from agent_rate_limiter.decision import Decision
from agent_rate_limiter.engine.drivers import wait_in_loop, wait_in_thread
from agent_rate_limiter.engine.port import Hold
from agent_rate_limiter.engine.queue import ADMITTED, Waiter
from agent_rate_limiter.engine.waiting_room import hopeless
from agent_rate_limiter.errors import LimiterClosed, LimitExceeded, ReservationError
from agent_rate_limiter.events import Admitted, Queued, Refused
from agent_rate_limiter.limits import Priority, Resource, Target
from agent_rate_limiter.reports.holders import Holder, holders_of, in_flight
from agent_rate_limiter.reports.verdict import decision_of, error_of
from agent_rate_limiter.strategies import GATE
from agent_rate_limiter.usage import Estimate

_log = logging.getLogger("agent_rate_limiter")


class Calls(Endings):
    """Takes calls through the engine, from their beginning to their end.

    Args: as Endings.
    """

    # -- before --------------------------------------------------------------------------------------------

    def try_acquire(
        self, target: Target, estimate: Estimate, priority: int | None, standing: Standing = NEW
    ) -> Reservation | Decision:
        """Admit now or say why not."""
        route, hold, priority = self._prepare(target, estimate, priority)
        refusal = self.engine.reserve(hold, priority)
        if refusal is None:
            return self._admitted(Reservation(self, route, hold, estimate))
        now = self.engine.clock.now()
        if not standing.quiet:
            self._alerts.refused(route.watched, refusal, now)
        decision = decision_of(target, refusal, now)
        if self.events.listening and not standing.quiet:
            self.events.emit(Refused(now / 1000, str(target), route.labels, decision=decision))
        return decision

    def acquire(
        self,
        target: Target,
        estimate: Estimate,
        priority: int | None,
        timeout: float | None,
        standing: Standing = NEW,
    ) -> Reservation:
        """Admit now or after a wait that blocks the thread."""
        found = self._ask(target, estimate, priority, timeout, standing)
        return found if isinstance(found, Reservation) else self._conclude(wait_in_thread(self.engine, found))

    async def acquire_async(
        self,
        target: Target,
        estimate: Estimate,
        priority: int | None,
        timeout: float | None,
        standing: Standing = NEW,
    ) -> Reservation:
        """Admit now or after a wait that lets the event loop run. As `acquire`."""
        found = self._ask(target, estimate, priority, timeout, standing)
        return found if isinstance(found, Reservation) else self._conclude(await wait_in_loop(self.engine, found))

    def _ask(
        self, target: Target, estimate: Estimate, priority: int | None, timeout: float | None, standing: Standing
    ) -> Reservation | Waiter:
        """Admit now, or say who has to wait."""
        patience = None if timeout is None else check_timeout(timeout)
        route, hold, priority = self._prepare(target, estimate, priority)
        refusal = self.engine.reserve(hold, priority)
        if refusal is None:
            call = Reservation(self, route, hold, estimate)
            return self._admitted(call) if self.events.listening else call
        waiter = self._waiter(route, hold, estimate, priority, patience, standing)
        if self.events.listening and not standing.quiet and not hopeless(waiter, refusal, waiter.since):
            self._queued(route, refusal)
        return waiter

    def refused_everywhere(self, targets: Iterable[Target], estimate: Estimate) -> None:
        """A call was refused for good wherever it could go: tell those who watch a budget that is used up."""
        for target in targets:
            route, hold, _ = self._prepare(target, estimate, None)
            if route.watched and (refusal := self.engine.read(partial(self.engine.verdict, hold))) is not None:
                self._alerts.refused(route.watched, refusal, self.engine.clock.now())

    def _admitted(self, call: Reservation) -> Reservation:
        if self.events.listening:
            self.events.emit(Admitted(self.seconds(), str(call.target), call.labels, waited=call.waited))
        return call

    def _queued(self, route: Route, refusal: Refusal) -> None:
        now = self.engine.clock.now()
        decision = decision_of(route.target, refusal, now)
        self.events.emit(Queued(now / 1000, str(route.target), route.labels, decision=decision))

    def seconds(self) -> float:
        """The time, in epoch seconds."""
        return self.engine.clock.now() / 1000

    def attempts(
        self,
        target: Target,
        estimate: Estimate,
        priority: int | None,
        timeout: float | None,
        *,
        fallbacks: Sequence[Target] = (),
        serves: Callable[[Target], bool] | None = None,
    ) -> Attempts:
        """Begin one logical call; where else it may go is given, or configured and served by the caller."""
        if timeout is not None:
            check_timeout(timeout)
        degrade = False
        if serves is not None:
            configured, cheaper, _ = self.chooser.elsewhere(target)
            fallbacks = [*fallbacks, *filter(serves, configured)]
            degrade = cheaper is not None and serves(cheaper)
        return Attempts(self, target, estimate, priority, timeout, fallbacks=fallbacks, degrade=degrade)

    def track(self, target: Target, estimate: Estimate) -> Reservation:
        """Follow a call that is made anyway: it takes nothing until it is settled, and so is never refused."""
        route, hold, _ = self._prepare(target, estimate, None)
        hold.amounts = hold.nothing
        self.engine.reserve(hold, 0)
        return Tracked(self, route, hold, estimate)

    def pause(self, seconds: float) -> None:
        """Wait as long, blocking the thread: in the engine's queue, so that virtual time knows."""
        self._slept(wait_in_thread(self.engine.pauses, self._sleeper(seconds)))

    async def pause_async(self, seconds: float) -> None:
        """Wait as long, letting the event loop run."""
        self._slept(await wait_in_loop(self.engine.pauses, self._sleeper(seconds)))

    def _slept(self, sleeper: Waiter) -> None:
        if sleeper.outcome is not ADMITTED:
            raise LimiterClosed(str(sleeper.outcome))
        self.engine.pauses.settle(sleeper.hold, (0,))

    def _sleeper(self, seconds: float) -> Waiter:
        now = self.engine.pauses.clock.now()
        bucket = Bucket("backoff", GATE, "", now)
        bucket.state = bucket.state._replace(closed_until=now + round(seconds * 1000))
        hold = Hold((bucket,), (1,))
        sizing = Fixed(hold.path)
        return Waiter(hold, priority=0, flow="", weight=1, since=now, deadline=None, sizing=sizing, moved=True)

    def may_retry(self, now: int) -> bool:
        """Whether the retry budget allows one more."""
        return self.retry.budget.allows(now, self.engine.admitted)

    def claim(self, target: Target) -> Reservation | None:
        """Take over the reservation that an outer layer holds for this very call, if there is one."""
        for reservation in reversed(context.current_reservations()):
            if reservation.target == target and reservation.held_by(self) is not None:
                claimed = reservation.claim()
                if claimed is not None:
                    return claimed
        return None

    # -- how -----------------------------------------------------------------------------------------------

    def route(self, target: Target, scope: context.CallScope | None = None) -> Route:
        """Return the limits that a call to the target from this scope is under."""
        if scope is None:
            scope = context.current_scope()
        route = self._router.find(target, scope)
        if route is None:
            self._router.check_price(target)
            self._recall(target)
            route = self.engine.read(lambda now: self._router.compile(target, scope, now))
        return route

    def _recall(self, target: Target) -> None:
        """Have what was learned of a target at hand."""
        self.learned.load(target)

    def forget_scope(self, name: str) -> None:
        """A scope with limits of its own is over."""
        self.engine.read(lambda _: self._router.forget_scope(name))

    def _prepare(self, target: Target, estimate: Estimate, priority: int | None) -> tuple[Route, Hold, int]:
        if estimate.__class__ is not Estimate:
            check_estimate(estimate)  # type: ignore[unreachable]  # whatever the annotation promises
        scope = context.current_scope()
        route = self._routes.get((target, scope.key)) or self.route(target, scope)
        if priority is None:
            priority = _NORMAL if scope.priority is None else scope.priority
        elif priority.__class__ is not int or priority < 0:
            priority = check_priority(priority)
        return route, Hold(route.path, route.reserved(estimate), route.flow), priority

    def _waiter(  # noqa: PLR0917 - what a call is made of
        self, route: Route, hold: Hold, estimate: Estimate, priority: int, patience: int | None, standing: Standing
    ) -> Waiter:
        if around := context.current_reservations():
            self._look_around(route, hold, around)
        sizing = RouteSizing(route, estimate, quiet=standing.quiet)
        if not self.engine.passing:  # else it is as prepared: a gate that others may close is asked
            hold.amounts = sizing.amounts()
        since = self.engine.clock.now()
        deadline = None if patience is None else since + patience
        given, expected, _ = route.expects(estimate)
        weight = given + expected or estimate.requests
        return Waiter(
            hold,
            priority=priority,
            flow=route.flow,
            weight=weight,
            since=since,
            deadline=deadline,
            sizing=sizing,
            moved=standing.again,
            stays=standing.stays,
            place=standing.place,
        )

    def _conclude(self, waiter: Waiter) -> Reservation:
        """Return the reservation of one who has waited, or raise why there is none."""
        asked, outcome = cast("RouteSizing", waiter.sizing), waiter.outcome
        if outcome is ADMITTED:
            waited = max(0, waiter.hold.taken_at - waiter.since) / 1000
            call = Reservation(self, asked.route, waiter.hold, asked.estimate, waited=waited)
            return self._admitted(call) if self.events.listening else call
        if not isinstance(outcome, Refusal):
            raise self._undecided(str(outcome))
        raise self._refused(asked.route, outcome, quiet=asked.quiet)

    def _refused(self, route: Route, refusal: Refusal, *, quiet: bool) -> LimitExceeded:
        now = self.engine.clock.now()
        if quiet:
            return error_of(route.target, refusal, now)
        self._alerts.refused(route.watched, refusal, now)
        error = error_of(route.target, refusal, now, self._holders(refusal.bucket))
        if self.events.listening:
            self.events.emit(Refused(now / 1000, str(route.target), route.labels, decision=error.decision))
        return error

    def _undecided(self, why: str) -> Exception:
        """What a call ends with that was neither admitted nor refused."""
        return LimiterClosed(why)

    def _holders(self, bucket: Bucket) -> tuple[Holder, ...]:
        """Who holds a limit now, in flight."""
        engine = self.engine
        return engine.read(lambda _: holders_of(in_flight(bucket, engine.newest_first())))

    def _look_around(self, route: Route, hold: Hold, around: Iterable[Reservation]) -> None:
        """Let the calls that this one is made from not stand in its way.

        Those at the same target give their places in its gate back: they wait for this one, and are not on their way.
        A task that was started in another call's block may wait for its slot: that call can end without it. If it
        does not, as it awaits the task, the slot comes back with its lease.

        Raises:
            ReservationError: it would wait for a slot whose every holder is the caller itself: for ever.
        """
        holds = {reservation.held_by(self) for reservation in around}
        outer = [hold for hold in holds if hold is not None and hold.open]
        for bucket, amount in zip(hold.path, hold.amounts, strict=False) if outer else ():
            if bucket.limit.resource is Resource.CONCURRENCY and amount:
                around_us = [other for other in outer if bucket in other.path]
                if _slots(bucket, around_us) < bucket.strategy.capacity:
                    continue
                if _slots(bucket, filter(context.entered_here, around_us)) < bucket.strategy.capacity:
                    _tell_of_a_task(str(route.target), bucket.limit.name)
                    continue
                message = (
                    f"A call to {route.target} would wait for ever: '{bucket.limit.name}' is held by the call "
                    "that it is made from. Settle the outer call first, or raise the concurrency."
                )
                raise ReservationError(message)
        standing = [other for other in outer if other.path[0] is route.gate and other.amounts[0]]
        if standing:
            self._learn(route, partial(leave_gate, standing))


def _slots(bucket: Bucket, holds: Iterable[Hold]) -> int:
    return sum(hold.amounts[hold.path.index(bucket)] for hold in holds)


@lru_cache(maxsize=256)
def _tell_of_a_task(target: str, limit: str) -> None:
    """Once for each limit: it may be as it should, or else the reason why a program stands still."""
    _log.warning(
        "A call to %s, made by a task that was started within another call, waits for '%s', which that call holds. "
        "Should it await the task, neither goes on: settle it first, or raise the concurrency.",
        target,
        limit,
    )


def leave_gate(holds: Iterable[Hold], now: int) -> None:
    """Give back the places in a gate, the first limit of their path, of calls that go on. Under the engine's lock."""
    for hold in holds:
        gate, taken = hold.path[0], hold.amounts[0]
        gate.state = gate.strategy.settle(gate.state, taken, 0, hold.taken_at, now)
        hold.amounts = (0, *hold.amounts[1:])


_NORMAL = int(Priority.NORMAL)
