"""The life of a call whose limits are shared with other processes: the store is asked, never this process alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from agent_rate_limiter.admission import Bucket, Refusal
from agent_rate_limiter.calls.life import Calls
from agent_rate_limiter.calls.reservation import Reservation, Tracked
from agent_rate_limiter.calls.route import Route
from agent_rate_limiter.calls.standing import NEW, Standing
from agent_rate_limiter.checks import check_timeout
from agent_rate_limiter.decision import Decision
from agent_rate_limiter.engine.drivers import work_in_background
from agent_rate_limiter.engine.engine import CLOSED
from agent_rate_limiter.engine.port import Hold, Rule
from agent_rate_limiter.engine.queue import Waiter
from agent_rate_limiter.engine.shared import SharedEngine
from agent_rate_limiter.errors import LimiterClosed, LimitExceeded, StoreUnavailable
from agent_rate_limiter.events import Queued, StoreFound, StoreLost
from agent_rate_limiter.limits import Target
from agent_rate_limiter.reports.verdict import decision_of
from agent_rate_limiter.usage import Estimate


class SharedCalls(Calls):
    """Takes calls through an engine whose store other processes draw on, too."""

    engine: SharedEngine

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        engine = self.engine
        engine.teach = self._teach
        engine.is_adaptive = lambda bucket: bucket in self._router.adaptive.values()
        engine.outside = self.events.flush
        engine.loss.told = self._told

    def try_acquire(
        self, target: Target, estimate: Estimate, priority: int | None, standing: Standing = NEW
    ) -> Reservation | Decision:
        """Ask the store, and say what it answers. Blocks for one round trip."""
        try:
            return self.acquire(target, estimate, priority, 0, standing)
        except LimitExceeded as refused:
            return refused.decision

    async def acquire_async(
        self,
        target: Target,
        estimate: Estimate,
        priority: int | None,
        timeout: float | None,
        standing: Standing = NEW,
    ) -> Reservation:
        """As Calls; what is known of a target that is new here is recalled first, off the event loop."""
        if target not in self.learned.loaded and self.engine.loss.since is None:
            await work_in_background(self.engine, partial(self.learned.load, target))
        return await super().acquire_async(target, estimate, priority, timeout, standing)

    def track(self, target: Target, estimate: Estimate) -> Reservation:
        """Follow a call that is made anyway: the store hears of it when it is settled."""
        route, hold, _ = self._prepare(target, estimate, None)
        hold.amounts = hold.nothing
        self.engine.track(hold)
        return Tracked(self, route, hold, estimate)

    def _ask(
        self, target: Target, estimate: Estimate, priority: int | None, timeout: float | None, standing: Standing
    ) -> Reservation | Waiter:
        """Everybody waits for the store's answer at least, who is not admitted at once."""
        patience = None if timeout is None else check_timeout(timeout)
        if target not in self.learned.loaded:  # the store was lost when the route was compiled
            self._recall(target)
        route, hold, priority = self._prepare(target, estimate, priority)
        if self._at_once(hold, priority):
            call = Reservation(self, route, hold, estimate)
            return self._admitted(call) if self.events.listening else call
        waiter = self._waiter(route, hold, estimate, priority, patience, standing)
        if self.events.listening and not standing.quiet:
            self.engine.hear_of(waiter, lambda refusal, now: self._has_to_wait(route, refusal, now))
        return waiter

    def _at_once(self, hold: Hold, priority: int) -> bool:  # noqa: ARG002 - for those who have a short cut
        """Admit a call without asking around, where there is a way."""
        return False

    def _recall(self, target: Target) -> None:
        """In an event loop, others do it: whoever cannot await it, begins without."""
        if target not in self.learned.loaded and self.engine.loss.since is None:
            load = partial(self.learned.load, target)
            load() if self.engine.may_block() else self.engine.background(load)

    def _has_to_wait(self, route: Route, refusal: Refusal, now: int) -> None:
        decision = decision_of(route.target, refusal, now)
        self.events.later(Queued(now / 1000, str(route.target), route.labels, decision=decision))

    def _watch(self, route: Route, hold: Hold) -> None:
        self.engine.look(route.path, partial(super()._watch, route, hold))

    def _learn(self, route: Route, learn: Callable[[int], None]) -> None:
        self.engine.change(route, learn)

    def _spread(self) -> None:
        """The engine does, once the store has answered."""

    def _teach(self, key: str, rule: Rule, now: int) -> Bucket | None:
        """Another process has learned a limit of a target."""
        target = Target.parse(rule.target)
        bucket = self._router.learn(target, rule.limit, now, adaptive=rule.adaptive)
        return bucket if bucket.key == key else None

    def _told(self, sentence: str, seconds: float | None) -> None:
        if self.events.listening:
            at = self.seconds()
            lost = StoreLost(at, policy=self.engine.loss.policy, reason=sentence)
            self.events.later(lost if seconds is None else StoreFound(at, seconds=seconds))

    def _undecided(self, why: str) -> Exception:
        return LimiterClosed(why) if why == CLOSED else StoreUnavailable(why)
