"""What providers answer becomes what the limiter knows: quotas correct the limits, refusals close the gate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from agent_rate_limiter.choice import cooldown_ms
from agent_rate_limiter.events import Events, LimitLearned, Paused
from agent_rate_limiter.limits import PERIOD_SECONDS, Limit, Resource
from agent_rate_limiter.providers.model import Failure, FailureKind, Quota
from agent_rate_limiter.strategies import gate, strategy_for
from agent_rate_limiter.strategies.calendar import window

if TYPE_CHECKING:
    from agent_rate_limiter.admission import Bucket
    from agent_rate_limiter.engine.engine import Engine
    from agent_rate_limiter.engine.port import Hold
    from agent_rate_limiter.routing import Route, Router

_LEARNABLE = frozenset({Resource.REQUESTS, Resource.INPUT_TOKENS, Resource.OUTPUT_TOKENS, Resource.TOKENS})
_FIRST_COOLDOWN, _LAST_COOLDOWN = 2_000, 60_000
"""Milliseconds that a gate stays closed when nobody told how long; doubled with each closing in a row."""
_PACIFIC = {"gemini", "google", "vertex"}
"""Providers whose days end at midnight Pacific time (provider docs, November 2026)."""


class Feedback:
    """Learns from responses. Every method is called under the engine's lock.

    Args:
        engine: whose live calls count against what a provider says is left.
        router: whose routes learn new limits.
        events: told of pauses and of limits learned.
    """

    def __init__(self, engine: Engine, router: Router, events: Events) -> None:
        self._engine = engine
        self._events = events
        self._router = router
        self._pace = _Pace()

    def succeeded(self, route: Route, hold: Hold, now: int) -> None:
        """A call went through."""
        bucket = route.gate
        known = len(route.path) > 1
        bucket.state = gate.succeeded(bucket.state, known=known)
        adaptive = self._router.adaptive.get(route.target)
        if adaptive is None:
            self._pace.accepted(route.target, hold)
        elif now - bucket.state.closed_at > _quiet_ms(adaptive.limit) and adaptive.merged_at < now:
            self._search_upwards(adaptive, now)

    def refused(self, route: Route, hold: Hold, failure: Failure, now: int) -> None:
        """A provider refused a call: close the gate as long as it says, for everybody."""
        bucket = route.gate
        state: gate.State = bucket.state
        if hold.taken_at < state.closed_at and failure.retry_after is None:
            return  # sent before the last closing: it tells nothing new
        if failure.kind is FailureKind.PARKED:
            bucket.state = gate.closed(state, now + _parked_ms(route.target.provider, failure, now), now)
        elif failure.kind is FailureKind.WAIT:
            self._slow_down(route, hold, failure, now)
        elif failure.kind is FailureKind.OVERLOADED:
            strikes, told = state.strikes + 1, failure.retry_after is not None
            until = now + (_told_ms(failure, state) if told else cooldown_ms(strikes))
            bucket.state = gate.closed(state, until, now) if told or strikes >= gate.TRIP_AFTER else gate.struck(state)
        closed_until = bucket.state.closed_until
        if self._events.listening and closed_until > max(now, state.closed_until):
            seconds, kind = closed_until / 1000, failure.kind.value
            self._events.later(Paused(now / 1000, str(route.target), route.labels, until=seconds, kind=kind))

    def observe(self, route: Route, hold: Hold, quotas: Iterable[Quota], now: int) -> None:
        """Correct the limits by what a response's headers say is left."""
        for quota in quotas:
            if quota.resource in _LEARNABLE and not quota.pool and quota.limit != 0:
                bucket = _matching(route.path, quota)
                if bucket is not None:
                    self._correct(bucket, hold, quota, now)
                elif quota.limit is not None and quota.limit > 0:
                    self._learn(route, hold, quota, now)

    # -- quotas --------------------------------------------------------------------------------------------

    def _learn(self, route: Route, hold: Hold, quota: Quota, now: int) -> None:
        assert quota.limit is not None  # noqa: S101 - the caller has looked
        period = _period_of(quota)
        limit = Limit(quota.resource, quota.limit, period)
        limit = replace(limit, name=f"{limit.name} (learned)")
        bucket = self._router.learn(route.target, limit, now)
        self._learned(route, limit, now)
        self._correct(bucket, hold, quota, now)

    def _learned(self, route: Route, limit: Limit, now: int) -> None:
        if self._events.listening:
            self._events.later(LimitLearned(now / 1000, str(route.target), route.labels, limit=limit))

    def _correct(self, bucket: Bucket, hold: Hold, quota: Quota, now: int) -> None:
        if quota.limit is not None and quota.limit > 0:
            _follow(bucket, quota.limit, now)
        if quota.remaining is None or hold.taken_at < bucket.merged_at:
            return  # an older call's answer says less than the one already heard
        bucket.merged_at = hold.taken_at
        left = quota.remaining + quota.granularity - 1 - self._sent_since(bucket, hold)
        excess = bucket.strategy.available(bucket.state, now) - left
        if excess > 0 or (bucket.learned and not bucket.refused_at):
            bucket.state = bucket.strategy.settle(bucket.state, 0, excess, now, now)

    def _sent_since(self, bucket: Bucket, hold: Hold) -> int:
        """Units of calls in flight that the provider cannot have counted when it answered this one."""
        units = 0
        for other in self._engine.newest_first():
            if other.taken_at < hold.taken_at or other is hold:
                break
            for place, amount in zip(other.path, other.amounts, strict=False):
                if place is bucket:
                    units += amount
        return units

    # -- refusals ------------------------------------------------------------------------------------------

    def _slow_down(self, route: Route, hold: Hold, failure: Failure, now: int) -> None:
        bucket = route.gate
        state: gate.State = bucket.state
        told = _told_ms(failure, state)
        binding = _binding(route.path, failure)
        if binding is None:
            self._search_downwards(route, hold, now)
        else:
            if binding is self._router.adaptive.get(route.target) and hold.taken_at > binding.merged_at:
                binding.merged_at = now
                _follow(binding, max(1, int(binding.limit.amount) * 4 // 5), now)
            _empty(binding, failure.requested or _taken(hold, binding), told, now)
        if binding is None or failure.requested is None:  # else it is exact: smaller calls need not wait as long
            bucket.state = gate.closed(state, now + told, now)

    def _search_downwards(self, route: Route, hold: Hold, now: int) -> None:
        """No header tells a rate: take what went through since the last refusal."""
        rate = self._pace.refused(route.target, hold, now)
        if rate is not None:
            limit = Limit(Resource.REQUESTS, max(1, rate), "minute", burst=1)
            limit = replace(limit, name=f"{limit.name} (adaptive)")
            self._router.learn(route.target, limit, now, adaptive=True)
            self._learned(route, limit, now)

    def _search_upwards(self, adaptive: Bucket, now: int) -> None:
        if adaptive.strategy.available(adaptive.state, now) < 1:  # it binds: is there more?
            _follow(adaptive, int(adaptive.limit.amount * 1.05) + 1, now)
            adaptive.merged_at = now


class _Pace:
    """How many calls each target let through since it last refused one; calls sent before that do not count."""

    def __init__(self) -> None:
        self._since: dict[object, tuple[int, int]] = {}  # target → (time of the last refusal, accepted since)

    def accepted(self, target: object, hold: Hold) -> None:
        at, accepted = self._since.get(target, (0, 0))
        if hold.taken_at > at:
            self._since[target] = (at, accepted + 1)

    def refused(self, target: object, hold: Hold, now: int) -> int | None:
        """Return requests per minute since the last refusal; None for the first, which also saw a burst."""
        at, accepted = self._since.get(target, (0, 0))
        if hold.taken_at <= at:
            return None
        self._since[target] = (now, 0)
        return accepted * 60_000 // (now - at) if at and accepted else None


def _matching(path: Sequence[Bucket], quota: Quota) -> Bucket | None:
    """Find the limit that a quota is about: by its period if that is told, else the shortest of the resource."""
    same = [b for b in path if b.limit.resource is quota.resource and not b.scope and b.limit.period_ms]
    if quota.period is not None:
        seconds = PERIOD_SECONDS[quota.period] if isinstance(quota.period, str) else quota.period
        same = [bucket for bucket in same if bucket.limit.period_ms == round(seconds * 1000)]
    return min(same, key=lambda bucket: bucket.limit.period_ms or 0, default=None)


def _period_of(quota: Quota) -> float | str:
    """The period as told, or as `reset = (limit - remaining) / limit * period` gives it (OpenAI, Groq)."""
    if quota.period is not None:
        return quota.period
    if quota.reset_after and quota.limit and quota.remaining is not None and 0 <= quota.remaining < quota.limit:
        seconds = quota.reset_after * quota.limit / (quota.limit - quota.remaining)
        return min(PERIOD_SECONDS, key=lambda word: abs(PERIOD_SECONDS[word] - seconds))
    return "minute"


def _follow(bucket: Bucket, amount: int, now: int) -> None:
    """Obey the amount that the provider enforces: lowered ones at once, and back up to what was configured."""
    limit = bucket.limit
    configured = amount if bucket.learned else int(bucket.configured.amount)
    amount = min(amount, configured)
    if amount == int(limit.amount):
        return
    burst = None if limit.burst is None else min(limit.burst, amount)
    suffix = (
        limit.name[limit.name.rfind(" (") :] if bucket.learned else f" (lowered from {bucket.configured.amount:,.0f})"
    )
    changed = replace(bucket.configured, amount=amount, burst=burst, name="")
    changed = (
        bucket.configured
        if amount == configured and not bucket.learned
        else replace(changed, name=changed.name + suffix)
    )
    available = bucket.strategy.available(bucket.state, now)
    strategy = strategy_for(changed)
    bucket.obey(changed, strategy)
    bucket.state = strategy.settle(strategy.initial(now), 0, max(0, strategy.capacity - available), now, now)


def _empty(bucket: Bucket, requested: int, told: int, now: int) -> None:
    """A refusal names a limit: then it has only what will, with the refill until then, make room for the call."""
    bucket.refused_at = now
    refill = told * bucket.limit.units // (bucket.limit.period_ms or 1)
    left = min(requested, bucket.strategy.capacity) - refill
    excess = bucket.strategy.available(bucket.state, now) - left
    if excess > 0:
        bucket.state = bucket.strategy.settle(bucket.state, 0, excess, now, now)


def _binding(path: Sequence[Bucket], failure: Failure) -> Bucket | None:
    """Find the limit that refused: as named, else requests, else tokens; a refusal means that no burst is left."""
    named = failure.resource
    first = (named,) if named is not None and named in _LEARNABLE else ()
    for resource in (*first, Resource.REQUESTS, Resource.TOKENS, Resource.INPUT_TOKENS, Resource.OUTPUT_TOKENS):
        bucket = _matching(path, Quota(resource, failure.period if resource is failure.resource else None))
        if bucket is not None:
            return bucket
    return None


def _taken(hold: Hold, bucket: Bucket) -> int:
    return max((n for b, n in zip(hold.path, hold.amounts, strict=False) if b is bucket), default=0) or 1


def _told_ms(failure: Failure, state: gate.State) -> int:
    if failure.retry_after is not None:
        return max(1, round(failure.retry_after * 1000))
    return int(min(_LAST_COOLDOWN, _FIRST_COOLDOWN << min(state.strikes, 10)))


def _parked_ms(provider: str, failure: Failure, now: int) -> int:
    if provider in _PACIFIC and failure.period == "day":  # its retryDelay may be seconds, for a day's quota
        return window(now, "day", "America/Los_Angeles")[1] - now
    if failure.retry_after is not None:
        return max(1, round(failure.retry_after * 1000))
    return window(now, failure.period or "day")[1] - now


def _quiet_ms(limit: Limit) -> int:
    """How long nothing may have been refused before more is tried: twenty calls' time, ten seconds at least."""
    return max(10_000, 20 * (limit.period_ms or 0) // max(1, int(limit.amount)))
