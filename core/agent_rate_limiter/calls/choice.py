"""Which of several targets a call goes to: the order of preference, and how long it waits for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.learning.health import Health
from agent_rate_limiter.limits import PERIOD_SECONDS, Resource, Target
from agent_rate_limiter.provider import DEGRADE_AT
from agent_rate_limiter.strategies import FixedWindow

if TYPE_CHECKING:
    from agent_rate_limiter.admission import Bucket
    from agent_rate_limiter.calls.life import Calls
    from agent_rate_limiter.usage import Estimate

POLICIES = ("in_order", "cheapest", "fastest", "least_loaded")
FALLBACK_AFTER = 1.0
"""Seconds that a call without a timeout waits for a target that it prefers, before it looks at the next."""
_LONG_MS = PERIOD_SECONDS["day"] * 1000
_MEMORY = 0.2
"""The weight of the newest call in the average of what a target takes to answer."""


class Elsewhere(NamedTuple):
    """Where one target's calls may go instead.

    Args:
        fallbacks: in order.
        degrade_to: the cheaper target that takes over when a budget or a long quota runs low.
        degrade_at: the share of it, 0 to 1, at which it does.
    """

    fallbacks: tuple[Target, ...] = ()
    degrade_to: Target | None = None
    degrade_at: float = DEGRADE_AT


NOWHERE = Elsewhere()


class Chooser:
    """Puts the targets that can serve a call in order.

    Args:
        elsewhere: where a target's calls may go instead.
        policy: "in_order" takes the first that can serve the call, "cheapest" the one with the lowest expected
            cost, "fastest" the one that answered fastest of late, "least_loaded" the one whose fullest limit is
            the least full; where these are equal, the order written.
        fallback_after: seconds that a call without a timeout waits for a target that it prefers.
    """

    def __init__(
        self,
        elsewhere: Callable[[Target], Elsewhere],
        policy: str = "in_order",
        fallback_after: float = FALLBACK_AFTER,
    ) -> None:
        if policy not in POLICIES:
            raise ConfigError(f"policy is {policy!r}: it is one of {', '.join(POLICIES)}.")
        self.elsewhere = elsewhere
        self.fallback_after = fallback_after
        self.health = Health()
        self._rank = _RANKS.get(policy)
        self._seconds: dict[Target, float] | None = {} if policy == "fastest" else None

    def order(self, calls: Calls, targets: Iterable[Target], estimate: Estimate) -> list[Target]:
        """Return targets by preference."""
        rank = self._rank
        if rank is None:
            return list(targets)
        return sorted(targets, key=lambda target: rank(self, calls, target, estimate))

    def degraded(self, calls: Calls, target: Target) -> tuple[Target, Bucket] | None:
        """Return the cheaper target that stands in for this one now, and the limit that runs low; None: not yet."""
        _, cheaper, share = self.elsewhere(target)
        if cheaper is None:
            return None
        path = calls.route(target).path
        low = calls.engine.read(lambda now: next((bucket for bucket in path if _runs_low(bucket, share, now)), None))
        return None if low is None else (cheaper, low)

    @property
    def times_calls(self) -> bool:
        """Whether it wants to know how long calls take."""
        return self._seconds is not None

    def answered(self, target: Target, admitted_at: int, now: int) -> None:
        """Note that a call went through, and how long it took."""
        self.health.succeeded(target, admitted_at)
        seconds = (now - admitted_at) / 1000
        if self._seconds is not None:
            known = self._seconds.get(target, seconds)
            self._seconds[target] = known + _MEMORY * (seconds - known)

    def seconds(self, target: Target) -> float:
        """How long a target's calls took of late; 0 for one that nobody has tried, which so goes first."""
        return (self._seconds or {}).get(target, 0.0)


def _runs_low(bucket: Bucket, share: float, now: int) -> bool:
    limit = bucket.limit
    if limit.resource is not Resource.COST and (limit.period_ms or 0) < _LONG_MS:
        return False  # a minute's limit is waited for
    capacity, strategy = bucket.strategy.capacity, bucket.strategy
    spent = strategy.spent(bucket.state, now) if isinstance(strategy, FixedWindow) else None
    used = capacity - strategy.available(bucket.state, now) if spent is None else spent
    return used >= share * capacity


def _price(_: Chooser, calls: Calls, target: Target, estimate: Estimate) -> float:
    return calls.route(target).expected_cost(estimate)


def _load(_: Chooser, calls: Calls, target: Target, __: Estimate) -> float:
    path = calls.route(target).path[1:]  # the gate has no share
    return calls.engine.read(lambda now: max((_full(bucket, now) for bucket in path), default=0.0))


def _full(bucket: Bucket, now: int) -> float:
    waiting = 0 if bucket.queue is None else bucket.queue.waiting
    return waiting + 1 - bucket.strategy.available(bucket.state, now) / bucket.strategy.capacity


_RANKS: dict[str, Callable[[Chooser, Calls, Target, Estimate], float]] = {
    "cheapest": _price,
    "fastest": lambda chooser, _, target, __: chooser.seconds(target),
    "least_loaded": _load,
}
