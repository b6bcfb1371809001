"""What providers answer becomes what the limiter knows: quotas correct the limits, refusals close the gate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import eq, lt
from typing import TYPE_CHECKING

from agent_rate_limiter.events import Events, LimitLearned, Paused
from agent_rate_limiter.learning.health import cooldown_ms
from agent_rate_limiter.limits import PERIOD_SECONDS, Limit, Resource
from agent_rate_limiter.providers.model import Failure, FailureKind, Quota
from agent_rate_limiter.strategies import gate, strategy_for
from agent_rate_limiter.strategies.calendar import window

if TYPE_CHECKING:
    from agent_rate_limiter.admission import Bucket
    from agent_rate_limiter.calls.route import Route
    from agent_rate_limiter.calls.routing import Router
    from agent_rate_limiter.engine.engine import Engine
    from agent_rate_limiter.engine.port import Hold

_LEARNABLE = frozenset({Resource.REQUESTS, Resource.INPUT_TOKENS, Resource.OUTPUT_TOKENS, Resource.TOKENS})
_FIRST_COOLDOWN, _LAST_COOLDOWN = 2_000, 60_000
"""Milliseconds that a gate stays closed when nobody told how long; doubled with each closing in a row."""
_AGAIN = 250
"""Milliseconds that a second refusal in a row waits at least, however soon it may be tried again; doubled, too."""
_ON_THE_WAY = 250
"""Milliseconds by which calls may overtake each other on their way to a provider: cold connections take that long."""
_TOO_FAST = "slow_down"
"""An overload that its callers have caused (OpenAI's 503 "Slow Down"): as a refusal, it is no matter of chance."""
_MOST = 10**9
"""The highest rate that is searched for."""
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
        if hold.taken_at >= bucket.state.closed_at:  # one sent before the last closing tells nothing new
            bucket.state = gate.succeeded(bucket.state, known=route.rated)
        adaptive = self._router.adaptive.get(route.target)
        if adaptive is None:
            self._pace.accepted(route.target, hold)
        else:
            self._search_upwards(route, adaptive, hold, now)

    def refused(self, route: Route, hold: Hold, failure: Failure, now: int) -> None:
        """A provider refused a call, which is not settled yet: close the gate as long as it says, for everybody."""
        state: gate.State = route.gate.state
        told = failure.retry_after is not None
        late = hold.taken_at < state.closed_at  # sent before the last closing: of the same wave, it tells less
        if failure.kind is FailureKind.PARKED:
            self._close(route, hold, _parked_ms(route.target.provider, failure, now), now)
        elif (failure.kind is FailureKind.WAIT or failure.code == _TOO_FAST) and (told or not late):
            self._slow_down(route, hold, failure, now)
        elif failure.kind is FailureKind.OVERLOADED and (told or not late):
            strikes = state.strikes + 1
            if told or strikes >= gate.TRIP_AFTER:
                self._close(route, hold, _told_ms(failure, state) if told else cooldown_ms(strikes), now)
            else:
                route.gate.state = gate.struck(state)
        closed_until = route.gate.state.closed_until
        if self._events.listening and closed_until > max(now, state.closed_until):
            seconds, kind = closed_until / 1000, failure.kind.value
            self._events.later(Paused(now / 1000, str(route.target), route.labels, until=seconds, kind=kind))

    @staticmethod
    def _close(route: Route, hold: Hold, wait: int, now: int) -> None:
        state: gate.State = route.gate.state
        late = hold.taken_at < state.closed_at
        route.gate.state = gate.prolonged(state, now + wait) if late else gate.closed(state, now + wait, now)

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
        newer, bucket.merged_at = hold.taken_at > bucket.merged_at, hold.taken_at
        excess = bucket.strategy.available(bucket.state, now) - (quota.remaining + quota.granularity - 1)
        if excess < 0:  # what is in flight may or may not be counted in what is stated: only the rest is certain
            loosened = newer and bucket.learned and not bucket.refused_at
            excess = min(0, excess + quota.granularity - 1 + self._uncounted(bucket, hold)) if loosened else 0
        if excess:
            bucket.state = bucket.strategy.settle(bucket.state, 0, excess, now, now)

    def _uncounted(self, bucket: Bucket, hold: Hold) -> int:
        """Units of calls in flight that the provider perhaps had not counted when it answered this one."""
        units = 0
        for other in self._engine.newest_first():
            if other.taken_at < hold.taken_at - _ON_THE_WAY:
                break
            for place, amount in zip(other.path, other.amounts, strict=False):
                if place is bucket and other is not hold:
                    units += amount
        return units

    # -- refusals ------------------------------------------------------------------------------------------

    def _slow_down(self, route: Route, hold: Hold, failure: Failure, now: int) -> None:
        told = _told_ms(failure, route.gate.state)
        binding = _binding(route.path, failure)
        searched = binding is None or self._searched(route, binding, hold, now)
        if binding is None:
            self._search_downwards(route, hold, now)
        elif not searched:
            _empty(binding, hold, failure.requested, told, now)
        elif hold.taken_at > binding.merged_at:  # else sent before the rate was changed
            binding.merged_at = now
            _follow(binding, max(1, int(binding.limit.amount) * 4 // 5), now, guessed=True)
            _empty(binding, hold, failure.requested, told, now)
        if searched or failure.requested is None or not _taken(hold, binding):
            self._close(route, hold, told, now)  # else it is exact: smaller calls need not wait as long
        elif hold.taken_at >= route.gate.state.closed_at:  # else of a wave that is known, here or to another process
            route.gate.state = gate.struck(route.gate.state, now)

    def _searched(self, route: Route, binding: Bucket, hold: Hold, now: int) -> bool:
        """Whether a limit's rate is searched for: a learned one, or a configured one that was refused again and again.

        The first refusal of a configured limit only aligns it; headers, where there are any, tell its rate.
        """
        if binding is self._router.adaptive.get(route.target):
            return True
        again = 0 < binding.refused_at < hold.taken_at and now - binding.refused_at < _pause_ms(binding.limit)
        if binding.learned or binding.merged_at or not again or not _may_be_guessed(binding.limit):
            return False
        self._router.search(route.target, binding)
        return True

    def _search_downwards(self, route: Route, hold: Hold, now: int) -> None:
        """No header tells a rate: take what went through since the last refusal."""
        rate = self._pace.refused(route.target, hold, now)
        if rate is not None:
            limit = Limit(Resource.REQUESTS, max(1, rate), "minute", burst=1)
            limit = replace(limit, name=f"{limit.name} (adaptive)")
            self._router.learn(route.target, limit, now, adaptive=True).merged_at = now
            self._learned(route, limit, now)

    def _search_upwards(self, route: Route, adaptive: Bucket, hold: Hold, now: int) -> None:
        """Try more while it binds: by quarters until the first refusal, then by a twentieth, after a pause."""
        found = adaptive.refused_at > 0
        tried, refused = now - adaptive.merged_at, now - route.gate.state.closed_at
        pause = _pause_ms(adaptive.limit)
        if tried < pause // 5 * 2 or (found and refused < pause):
            return
        if adaptive.strategy.available(adaptive.state, now) < max(1, _taken(hold, adaptive)):
            _follow(adaptive, min(_MOST, int(adaptive.limit.amount * (1.05 if found else 1.25)) + 1), now, guessed=True)
            adaptive.merged_at = now
            if adaptive.limit is adaptive.configured and not adaptive.learned:
                adaptive.merged_at = adaptive.refused_at = 0
                del self._router.adaptive[route.target]


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


def _matching(path: Sequence[Bucket], quota: Quota, *, finer: bool = False) -> Bucket | None:
    """Find the limit that a quota is about: by its period if that is told, else the shortest of the resource.

    Args:
        path: the limits.
        quota: what is told.
        finer: one of a shorter period instead.
    """
    same = [b for b in path if b.limit.resource is quota.resource and not b.scope and b.limit.period_ms]
    if quota.period is not None:
        seconds = PERIOD_SECONDS[quota.period] if isinstance(quota.period, str) else quota.period
        fits = lt if finer else eq
        same = [bucket for bucket in same if fits(bucket.limit.period_ms or 0, round(seconds * 1000))]
    return min(same, key=lambda bucket: bucket.limit.period_ms or 0, default=None)


def _period_of(quota: Quota) -> float | str:
    """The period as told, or as `reset = (limit - remaining) / limit * period` gives it (OpenAI, Groq)."""
    if quota.period is not None:
        return quota.period
    if quota.reset_after and quota.limit and quota.remaining is not None and 0 <= quota.remaining < quota.limit:
        seconds = quota.reset_after * quota.limit / (quota.limit - quota.remaining)
        return min(PERIOD_SECONDS, key=lambda word: abs(PERIOD_SECONDS[word] - seconds))
    return "minute"


def _may_be_guessed(limit: Limit) -> bool:
    """Whether a guess at its rate refuses no call for good: each fits, or what fits at once is no part of the guess."""
    return limit.resource is Resource.REQUESTS or limit.strategy == "token_bucket"


def _follow(bucket: Bucket, amount: int, now: int, *, guessed: bool = False) -> None:
    """Obey the amount that the provider enforces: lowered ones at once, and back up to what was configured."""
    limit = bucket.limit
    configured = amount if bucket.learned else int(bucket.configured.amount)
    amount = min(amount, configured)
    if amount == int(limit.amount):
        return
    burst = None if limit.burst is None else min(limit.burst, amount)
    if guessed and limit.resource is not Resource.REQUESTS:  # a guess must not make a call too large
        burst = bucket.configured.burst or bucket.configured.amount
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


def _empty(bucket: Bucket, hold: Hold, requested: int | None, told: int, now: int) -> None:
    """A refusal names a limit: then it has only what will, with the refill until then, make room for the call.

    The call itself is not settled yet: what it took of tokens comes back.
    """
    if hold.taken_at > bucket.refused_at:  # else of the same wave
        bucket.refused_at = now
    taken = _taken(hold, bucket)
    refill = told * bucket.limit.units // (bucket.limit.period_ms or 1)
    left = min(requested or taken or 1, bucket.strategy.capacity) - refill
    returned = 0 if bucket.limit.resource is Resource.REQUESTS else taken
    excess = bucket.strategy.available(bucket.state, now) + returned - left
    if excess > 0:
        bucket.state = bucket.strategy.settle(bucket.state, 0, excess, now, now)


def _binding(path: Sequence[Bucket], failure: Failure) -> Bucket | None:
    """Find the limit that refused: as named, else requests, else tokens; a refusal means that no burst is left.

    Who was told "6,000 a minute" may have configured 100 a second, for the minute's burst is not to be had: it is that.
    """
    named = failure.resource
    first = (named,) if named is not None and named in _LEARNABLE else ()
    for resource in (*first, Resource.REQUESTS, Resource.TOKENS, Resource.INPUT_TOKENS, Resource.OUTPUT_TOKENS):
        quota = Quota(resource, failure.period if resource is failure.resource else None)
        bucket = _matching(path, quota) or _matching(path, quota, finer=True)
        if bucket is not None:
            return bucket
    return None


def _taken(hold: Hold, bucket: Bucket | None) -> int:
    return max((n for b, n in zip(hold.path, hold.amounts, strict=False) if b is bucket), default=0)


def _told_ms(failure: Failure, state: gate.State) -> int:
    """How long to wait: as told, but longer each time that a call is refused all the same."""
    first = _FIRST_COOLDOWN if failure.retry_after is None else _AGAIN // 2 if state.strikes else 0
    return max(1, round((failure.retry_after or 0) * 1000), min(_LAST_COOLDOWN, first << min(state.strikes, 10)))


def _parked_ms(provider: str, failure: Failure, now: int) -> int:
    if provider in _PACIFIC and failure.period == "day":  # its retryDelay may be seconds, for a day's quota
        return window(now, "day", "America/Los_Angeles")[1] - now
    if failure.retry_after is not None:
        return max(1, round(failure.retry_after * 1000))
    return window(now, failure.period or "day")[1] - now


def _pause_ms(limit: Limit) -> int:
    """How long a rate is kept before more is tried: twenty calls' time, ten seconds at least."""
    return max(10_000, 20 * (limit.period_ms or 0) // max(1, int(limit.amount)))
