"""How calls end: settled, refused, cancelled or dropped; what is charged then, and what is learned from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from agent_rate_limiter.calls.route import Route
from agent_rate_limiter.calls.routing import Declared, Router
from agent_rate_limiter.costs.accounts import ESTIMATED, FAILED, OK, REFUSED
from agent_rate_limiter.engine.engine import Engine
from agent_rate_limiter.engine.port import Hold
from agent_rate_limiter.events import Events, Settled
from agent_rate_limiter.learning.feedback import Feedback
from agent_rate_limiter.learning.health import SICK
from agent_rate_limiter.learning.sizes import Learned
from agent_rate_limiter.limits import NANO_PER_DOLLAR, Target
from agent_rate_limiter.providers.model import Failure, FailureKind, Quota
from agent_rate_limiter.redaction import harmless
from agent_rate_limiter.retry import RetryStrategy
from agent_rate_limiter.strategies.gate import FREE, OPEN
from agent_rate_limiter.usage import Estimate, Usage

if TYPE_CHECKING:
    from agent_rate_limiter.alerts import Alerts
    from agent_rate_limiter.calls.choice import Chooser
    from agent_rate_limiter.cost_tracker import CostTracker
    from agent_rate_limiter.costs.quotes import Quotes


class Endings:
    """Ends calls.

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
        kind = self.retry.judged(error)
        if kind is None:
            return failure
        return Failure(kind, message=harmless(str(error))) if failure is None else replace(failure, kind=kind)

    def read_refusal(self, result: object, target: Target) -> Failure | None:
        """Find out whether a result is an error that nobody raised: a response with an error's status."""
        if result is None or isinstance(result, (str, bytes, int, float, list, tuple)):
            return None
        from agent_rate_limiter.providers import read_refusal

        return read_refusal(result, self.engine.clock.now() / 1000, likely=self._router.kind(target))


def charged(hold: Hold, used: Sequence[int], usage: Usage) -> Sequence[int]:
    """What is charged for a usage: a guess never refunds."""
    return used if usage.exact else [max(taken, amount) for taken, amount in zip(hold.amounts, used, strict=False)]


_FAILED = {FailureKind.TRANSIENT, FailureKind.FATAL}
