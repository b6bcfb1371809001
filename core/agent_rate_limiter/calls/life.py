"""The life of a call: reserve, wait, settle. Shared by every limiter; sync and async differ in two lines."""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from agent_rate_limiter.admission import Bucket, Refusal
from agent_rate_limiter.calls import context
from agent_rate_limiter.calls.attempts import Attempts
from agent_rate_limiter.calls.choice import Chooser
from agent_rate_limiter.calls.reservation import Reservation, Tracked
from agent_rate_limiter.calls.routing import Declared, Route, Router
from agent_rate_limiter.calls.sizing import Fixed, RouteSizing
from agent_rate_limiter.calls.standing import NEW, Standing
from agent_rate_limiter.checks import check_estimate, check_priority, check_timeout
from agent_rate_limiter.costs.accounts import ESTIMATED, FAILED, OK, REFUSED
from agent_rate_limiter.decision import Decision
from agent_rate_limiter.engine.drivers import wait_in_loop, wait_in_thread
from agent_rate_limiter.engine.engine import Engine
from agent_rate_limiter.engine.port import Hold
from agent_rate_limiter.engine.queue import ADMITTED, Waiter
from agent_rate_limiter.engine.waiting_room import hopeless
from agent_rate_limiter.errors import LimiterClosed, ReservationError
from agent_rate_limiter.events import Admitted, Events, Queued, Refused, Settled
from agent_rate_limiter.learning.feedback import Feedback
from agent_rate_limiter.learning.health import SICK
from agent_rate_limiter.learning.sizes import Learned
from agent_rate_limiter.limits import NANO_PER_DOLLAR, Priority, Resource, Target
from agent_rate_limiter.providers.model import Failure, FailureKind, Quota
from agent_rate_limiter.reports.holders import Holder, holders_of, in_flight
from agent_rate_limiter.reports.verdict import decision_of, error_of
from agent_rate_limiter.retry import RetryStrategy
from agent_rate_limiter.strategies import GATE
from agent_rate_limiter.strategies.gate import FREE, OPEN
from agent_rate_limiter.usage import Estimate, Usage

if TYPE_CHECKING:
    from agent_rate_limiter.alerts import Alerts
    from agent_rate_limiter.cost_tracker import CostTracker
    from agent_rate_limiter.costs.quotes import Quotes


class Calls:
    """Takes calls through the engine.

    Args:
        engine: queues and reservations.
        declared: what is known of a target.
        costs: the books.
        retry: what is tried again.
        alerts: who is told of limits that run low.
        quotes: who knows prices.
        events: who is told of everything.
        chooser: puts the targets that can serve a call in order.
    """

    def __init__(  # noqa: PLR0917 - the parts of a limiter
        self,
        engine: Engine,
        declared: Callable[[Target], Declared],
        costs: CostTracker,
        retry: RetryStrategy,
        alerts: Alerts,
        quotes: Quotes,
        events: Events,
        chooser: Chooser,
    ) -> None:
        self.engine = engine
        self.retry = retry
        self.events = events
        self.chooser = chooser
        self._sick, self._timed = chooser.health.sick_ones, chooser.times_calls  # looked at on every call's way
        self._alerts = alerts
        self.learned = Learned(engine.recall, engine.store.remember)
        self._router = Router(
            declared, engine.store.bucket, costs, alerts, quotes, self.learned, passing=engine.passing
        )
        self._routes = self._router.routes  # read without a lock, and without a call, on the way of every call
        self._feedback = Feedback(engine, self._router, events)

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
        patience = None if timeout is None else check_timeout(timeout)
        route, hold, priority = self._prepare(target, estimate, priority)
        refusal = self.engine.reserve(hold, priority)
        if refusal is None:
            call = Reservation(self, route, hold, estimate)
            return self._admitted(call) if self.events.listening else call
        waiter = self._waiter(route, hold, estimate, priority, patience, standing)
        if self.events.listening and not standing.quiet and not hopeless(waiter, refusal, waiter.since):
            self._queued(route, refusal)
        return self._conclude(route, estimate, wait_in_thread(self.engine, waiter), quiet=standing.quiet)

    async def acquire_async(
        self,
        target: Target,
        estimate: Estimate,
        priority: int | None,
        timeout: float | None,
        standing: Standing = NEW,
    ) -> Reservation:
        """Admit now or after a wait that lets the event loop run. As `acquire`."""
        patience = None if timeout is None else check_timeout(timeout)
        route, hold, priority = self._prepare(target, estimate, priority)
        refusal = self.engine.reserve(hold, priority)
        if refusal is None:
            call = Reservation(self, route, hold, estimate)
            return self._admitted(call) if self.events.listening else call
        waiter = self._waiter(route, hold, estimate, priority, patience, standing)
        if self.events.listening and not standing.quiet and not hopeless(waiter, refusal, waiter.since):
            self._queued(route, refusal)
        return self._conclude(route, estimate, await wait_in_loop(self.engine, waiter), quiet=standing.quiet)

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

    # -- after ---------------------------------------------------------------------------------------------

    def settle(self, route: Route, hold: Hold, estimate: Estimate, usage: Usage, *, lost: bool = False) -> float:
        """Charge what was used; return its dollars. A call that is `lost` has not gone through, as far as we know."""
        account, at = route.account, hold.taken_at
        nano = account.cost(usage, at)
        used = route.used(estimate, usage, nano)
        now = self.engine.settle(hold, used if usage.exact else charged(hold, used, usage))
        gate = route.gate.state
        if route.searching or (gate is not FREE and (gate[1] < OPEN or gate[5])):  # window, strikes
            self._went_through(route, hold)
        if route.watched:
            self._watch(route, hold)
        caller = route.caller
        caller.skip -= 1
        if caller.skip < 0 and usage.exact:
            self.learned.learn(caller, estimate, usage, now)
        if (self._sick or self._timed) and not lost:
            self.chooser.answered(route.target, at, now)
        if self.events.listening:
            self._settled(route, hold, usage, nano, now)
        return account.book(usage, nano, at, now - at, OK if usage.exact else ESTIMATED, hold.attempt, estimate)

    def _went_through(self, route: Route, hold: Hold) -> None:
        self._tell(route, lambda now: self._feedback.succeeded(route, hold, now))

    def _watch(self, route: Route, hold: Hold) -> None:
        for watch in route.watched:
            if watch.level(watch.bucket.state) >= watch.due or hold.taken_at >= watch.look_at:
                self._alerts.look(watch, self.engine.clock.now())

    def _settled(self, route: Route, hold: Hold, usage: Usage, nano: int, now: int) -> None:
        seconds, cost = (now - hold.taken_at) / 1000, nano / NANO_PER_DOLLAR
        event = Settled(now / 1000, str(route.target), route.labels, usage=usage, cost=cost, seconds=seconds)
        self.events.emit(event)

    def refuse(self, route: Route, hold: Hold, estimate: Estimate, failure: Failure) -> float:
        """The provider refused the call, or was never reached: charge that, and let everybody know."""
        self.failed_at(route.target, failure)
        sent = Usage(requests=estimate.requests if failure.sent else 0)
        self._learn(route, lambda now: self._feedback.refused(route, hold, failure, now))  # before its place is taken
        used = route.used(Estimate(requests=0), sent, 0) if failure.sent else hold.nothing
        at, now = hold.taken_at, self.engine.settle(hold, used)
        self._spread()
        if self.events.listening:
            self._settled(route, hold, sent, 0, now)
        outcome = FAILED if failure.kind in _FAILED else REFUSED
        return route.account.book(sent, 0, at, now - at, outcome, hold.attempt, estimate)

    def observe(self, route: Route, hold: Hold, quotas: Iterable[Quota]) -> None:
        """A response's headers say what is left."""
        self._tell(route, lambda now: self._feedback.observe(route, hold, quotas, now))

    def _tell(self, route: Route, learn: Callable[[int], None]) -> None:
        self._learn(route, learn)
        self._spread()

    def _learn(self, route: Route, learn: Callable[[int], None]) -> None:  # noqa: ARG002 - what it may change
        self.engine.read(learn)

    def _spread(self) -> None:
        """Limits have changed: tell whoever listens or waits."""
        if self.events.listening:
            self.events.flush()
        if self.engine.waiting:
            self.engine.advance(everybody=True)

    def failed_at(self, target: Target, failure: Failure) -> None:
        """Remember that a target failed by itself, for calls that can go elsewhere."""
        if failure.kind in SICK:
            self.chooser.health.failed(target, self.engine.clock.now())

    def cancel(self, route: Route, hold: Hold) -> None:
        """Give everything back."""
        now = self.engine.settle(hold, hold.nothing)
        if self.events.listening:
            self._settled(route, hold, Usage(requests=0), 0, now)

    def abandon(self, route: Route, hold: Hold, estimate: Estimate, usage: Usage) -> None:
        """Charge a call that nobody will settle any more, as soon as may be. Safe in a finalizer."""
        account = route.account
        nano = account.known_cost(usage)  # if a limit on cost is on the path, its price is known
        hold.final = charged(hold, route.used(estimate, usage, nano), usage)
        account.book_later(usage, nano if account.priced else None, hold.taken_at, hold.attempt, estimate)
        self.engine.abandon(hold)

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
            check_estimate(estimate)
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
        sizing = RouteSizing(route, estimate, nested=self._check_reentrancy(route, hold))
        if not self.engine.passing or sizing.nested:  # else it is as prepared: a gate that others may close is asked
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

    def _conclude(self, route: Route, estimate: Estimate, waiter: Waiter, *, quiet: bool) -> Reservation:
        if waiter.outcome is ADMITTED:
            waited = max(0, waiter.hold.taken_at - waiter.since) / 1000
            call = Reservation(self, route, waiter.hold, estimate, waited=waited)
            return self._admitted(call) if self.events.listening else call
        if isinstance(waiter.outcome, Refusal):
            now = self.engine.clock.now()
            if not quiet:
                self._alerts.refused(route.watched, waiter.outcome, now)
            error = error_of(route.target, waiter.outcome, now, () if quiet else self._holders(waiter.outcome.bucket))
            if self.events.listening and not quiet:
                self.events.emit(Refused(now / 1000, str(route.target), route.labels, decision=error.decision))
            raise error
        raise self._undecided(str(waiter.outcome))

    def _undecided(self, why: str) -> Exception:
        """What a call ends with that was neither admitted nor refused."""
        return LimiterClosed(why)

    def _holders(self, bucket: Bucket) -> tuple[Holder, ...]:
        """Who holds a limit now, in flight."""
        engine = self.engine
        return engine.read(lambda _: holders_of(in_flight(bucket, engine.newest_first())))

    def _check_reentrancy(self, route: Route, hold: Hold) -> bool:
        """Refuse to wait for a slot whose every holder is the caller itself: it would wait for ever.

        A task that was started in another call's block may wait: that call can end without it. If it does not, as
        it awaits the task, the slot comes back with its lease.

        Returns True for a call made from within another to the same target.
        """
        around = context.current_reservations()
        if not around:  # the usual case
            return False
        holds = {reservation.held_by(self) for reservation in around}
        outer = [hold for hold in holds if hold is not None and hold.open]
        for bucket, amount in zip(hold.path, hold.amounts, strict=False) if outer else ():
            if bucket.limit.resource is Resource.CONCURRENCY and amount:
                ours = [other for other in outer if bucket in other.path and context.entered_here(other)]
                if sum(other.amounts[other.path.index(bucket)] for other in ours) >= bucket.strategy.capacity:
                    message = (
                        f"A call to {route.target} would wait for ever: '{bucket.limit.name}' is held by the call "
                        "that it is made from. Settle the outer call first, or raise the concurrency."
                    )
                    raise ReservationError(message)
        return any(route.gate in other.path for other in outer)

    @staticmethod
    def read_usage(response: object) -> Usage | None:
        """Find the usage in whatever an SDK returned."""
        from agent_rate_limiter.providers import read_usage

        return read_usage(response)

    def read_failure(self, error: BaseException, target: Target) -> Failure | None:
        """Find out what an error says of the provider; None when it is not the provider's.

        The user's own classification (`RetryStrategy(classify=…)`) goes first.
        """
        from agent_rate_limiter.providers import read_failure

        failure = read_failure(error, None, self.engine.clock.now() / 1000, likely=self._router.kind(target))
        judge = self.retry.classify if isinstance(error, Exception) else None  # a cancelled task is cancelled
        kind = None if judge is None else judge(error)
        if kind is None:
            return failure
        return Failure(kind, message=str(error)) if failure is None else replace(failure, kind=kind)

    def read_refusal(self, result: object, target: Target) -> Failure | None:
        """Find out whether a result is an error that nobody raised: a response with an error's status."""
        from agent_rate_limiter.providers import read_refusal

        return read_refusal(result, self.engine.clock.now() / 1000, likely=self._router.kind(target))


def charged(hold: Hold, used: Sequence[int], usage: Usage) -> Sequence[int]:
    """What is charged for a usage: a guess never refunds."""
    return used if usage.exact else [max(taken, amount) for taken, amount in zip(hold.amounts, used, strict=False)]


_FAILED = {FailureKind.TRANSIENT, FailureKind.FATAL}
_NORMAL = int(Priority.NORMAL)
