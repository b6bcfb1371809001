"""Alerts of limits, beside those of budgets; and who tells where processes share a store."""

from __future__ import annotations

import pytest

from agent_rate_limiter import (
    Alert,
    Limit,
    MultiProviderLimiter,
    Provider,
    RateLimiter,
    Resource,
    Usage,
)
from agent_rate_limiter.stores.memory import MemoryStore
from agent_rate_limiter.testing import ManualClock
from tests.core.telling import DAY, HOUR, Told

# ---------------------------------------------------------------- every limit


def test_limits_are_quiet_unless_asked(manual_clock: ManualClock) -> None:
    told: list[Alert] = []
    limiter = RateLimiter(rpm=10, clock=manual_clock, on_alert=told.append)
    for _ in range(10):
        limiter.acquire().settle(Usage())
    assert limiter.alerts.flush()
    assert told == []


@pytest.mark.parametrize(
    ("limit", "sentence"),
    [
        (Limit(Resource.REQUESTS, 10, "minute"), "10 requests/minute: 8 of 10 requests are used, past 80%."),
        (
            Limit(Resource.REQUESTS, 10, "day", strategy="sliding_window"),
            "10 requests/day: 8 of 10 requests are used, past 80%.",
        ),
        (
            Limit(Resource.TOKENS, 100, "day", strategy="fixed_window"),
            "100 tokens/day: 80 of 100 tokens are used, past 80%.",
        ),
        (Limit(Resource.COST, 1, "minute", strategy="token_bucket"), "$1.00/minute: $0.80 of $1.00 is used, past 80%."),
    ],
)
def test_every_limit_can_tell(limit: Limit, sentence: str, manual_clock: ManualClock) -> None:
    told: list[Alert] = []
    limiter = RateLimiter(limit, clock=manual_clock, on_alert=told.append, alert_threshold=0.8)
    for _ in range(9):
        limiter.acquire(input_tokens=10).settle(Usage(input_tokens=10, cost=0.1))
    assert limiter.alerts.flush()
    assert [str(alert) for alert in told] == [f"default:default: {sentence}"]


def test_calls_at_once_can_tell(manual_clock: ManualClock) -> None:
    told: list[Alert] = []
    limiter = RateLimiter("4 concurrent", clock=manual_clock, on_alert=told.append, alert_threshold=0.75)
    calls = [limiter.acquire() for _ in range(4)]
    for call in reversed(calls[2:]):
        call.settle(Usage())
    manual_clock.advance(20)
    limiter.acquire().settle(Usage())
    assert limiter.alerts.flush()
    assert [alert.kind for alert in told] == ["exhausted", "recovered"]
    told.clear()
    manual_clock.advance(2 * HOUR)
    again = [limiter.acquire() for _ in range(3)]  # the others' leases have run out
    again[0].settle(Usage())
    assert limiter.alerts.flush()
    assert [str(alert) for alert in told] == ["default:default: 4 at once: 3 of 4 slots are used, past 75%."]


def test_a_busy_minute_limit_tells_once_an_hour(manual_clock: ManualClock) -> None:
    told: list[Alert] = []
    limiter = RateLimiter(rpm=10, clock=manual_clock, on_alert=told.append, alert_threshold=0.8)
    for _ in range(120):
        for _ in range(9):
            limiter.acquire().settle(Usage())
        manual_clock.advance(60)
    assert limiter.alerts.flush()
    assert len(told) == 2


def test_limits_of_a_provider_and_their_own_thresholds(manual_clock: ManualClock) -> None:
    told: list[Alert] = []
    limits = [
        Limit(Resource.REQUESTS, 10, "day", thresholds=(0.5,)),
        {"resource": "tokens", "amount": 100, "per": "day", "thresholds": 0.2},
    ]
    provider = Provider("p", {"m": {"rpm": 4, "limits": limits}})
    limiter = MultiProviderLimiter([provider], clock=manual_clock, on_alert=told.append, limit_alert_threshold=0.75)
    for _ in range(5):
        limiter.acquire("p:m", input_tokens=6).settle(Usage(input_tokens=6))
        manual_clock.advance(5)
    assert limiter.alerts.flush()
    assert [(alert.name, alert.threshold) for alert in told] == [
        ("4 requests/minute", 0.75),
        ("100 tokens/day", 0.2),
        ("4 requests/minute", 1.0),
        ("10 requests/day", 0.5),
    ]


def test_a_learned_limit_can_tell(manual_clock: ManualClock) -> None:
    from agent_rate_limiter.providers.model import Quota

    told: list[Alert] = []
    limiter = MultiProviderLimiter(clock=manual_clock, on_alert=told.append, limit_alert_threshold=0.5)
    call = limiter.acquire("p:m", input_tokens=10)
    call.observe([Quota(Resource.TOKENS, "minute", limit=1_000, remaining=990, reset_after=60)])
    call.settle(Usage(input_tokens=10))
    limiter.acquire("p:m", input_tokens=700).settle(Usage(input_tokens=700))
    assert limiter.alerts.flush()
    assert [(alert.resource, alert.threshold) for alert in told] == [("tokens", 0.5)]


# ---------------------------------------------------------------- once, everywhere


def test_processes_that_share_a_store_tell_once(manual_clock: ManualClock) -> None:
    store = MemoryStore()  # stands for a shared one: two limiters, as two processes have them
    first, second = (Told(manual_clock, budget_limit=1, store=store) for _ in range(2))
    assert first.kinds(0.85) == ["threshold"]
    assert second.kinds(0.01) == []
    assert second.kinds(0.2) == ["exhausted"]
    assert first.kinds(0.01) == []
    manual_clock.advance(DAY)
    assert sorted(second.kinds(0.9) + first.kinds(0.01)) == ["recovered", "threshold"]


def test_a_store_that_cannot_say_rather_tells_twice(manual_clock: ManualClock) -> None:
    class Lost(MemoryStore):
        def first(self, key: str, until: int, now: int) -> bool:
            raise OSError(key, until, now)

    told = Told(manual_clock, budget_limit=1, store=Lost())
    assert told.kinds(0.85) == ["threshold"]
