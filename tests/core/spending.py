"""A limiter of a dollar per thousand tokens, and how to spend on it."""

from __future__ import annotations

from typing import Any

from agent_rate_limiter import (
    Estimate,
    MultiProviderLimiter,
    Provider,
    Reservation,
    Usage,
)
from agent_rate_limiter.testing import ManualClock

DAY = 86_400
PERIODS = "second, minute, hour, day, week, month"


def make_limiter(clock: ManualClock, **options: Any) -> MultiProviderLimiter:
    """A dollar per thousand tokens, and no other limit that binds."""
    return MultiProviderLimiter([Provider("p", {"m": {"rpm": 10**6, "cost_per_1k": 1.0}})], clock=clock, **options)


def spend(limiter: MultiProviderLimiter, dollars: float, **labels: Any) -> None:
    with limiter.scope(**labels):
        limiter.acquire("p:m", Estimate(requests=0)).settle(Usage(cost=dollars))


def hold(limiter: MultiProviderLimiter, dollars: float) -> Reservation:
    return limiter.acquire("p:m", Estimate(cost=dollars))


def left(limiter: MultiProviderLimiter) -> dict[str, float]:
    """What each budget has left, by scope."""
    return {status.scope: status.available for status in limiter.snapshot().limits if status.resource == "cost"}
