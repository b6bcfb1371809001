"""How long a limit lasts at the recent pace."""

from __future__ import annotations

from typing import Any

import pytest

from agent_rate_limiter import (
    Budget,
    Estimate,
    Limit,
    LimitStatus,
    MultiProviderLimiter,
    Price,
    RateLimiter,
    Resource,
    Usage,
)
from agent_rate_limiter.testing import ManualClock

HOUR = 3_600
DAY = 24 * HOUR


class Spender:
    """A limiter of one limit, a call at a time."""

    def __init__(self, limit: Limit, clock: ManualClock) -> None:
        self.clock = clock
        self.limiter = RateLimiter(limit, clock=clock, price=Price(1.0, 1.0))
        self.limiter.explain()  # a limit is there once it is used

    def status(self) -> LimitStatus:
        (status,) = self.limiter.snapshot().limits
        return status

    def spend(self, amount: float, seconds: float, times: int = 1) -> float | None:
        """Spend as much at the end of each so many seconds, and look each time."""
        for _ in range(times):
            self.clock.advance(seconds)
            usage = Usage(cost=amount) if self.limiter.limits[0].resource is Resource.COST else Usage(1, int(amount))
            self.limiter.acquire(requests=0, input_tokens=usage.input_tokens).settle(usage)
            self.status()
        return self.status().exhausted_in


def budget(per: Any = "day", **options: Any) -> Limit:
    return Budget(100, per, **options).as_limit()


@pytest.mark.parametrize(
    ("limit", "each", "gone_in"),
    [
        (budget(), 10.0, 5 * HOUR),  # 50 of 100 are left, 10 go in an hour
        (budget(), 2.0, None),  # lasts the day
        (budget("month"), 2.0, 45 * HOUR),
        (budget("total"), 10.0, 5 * HOUR),
        (budget(rolling=True), 10.0, 5 * HOUR),
        (Limit(Resource.TOKENS, 1_000, "day", strategy="fixed_window"), 100, 5 * HOUR),
        (Limit(Resource.TOKENS, 2_400, "day"), 400, 5 * (2_400 / 300 - 5) / 5 * HOUR),  # 100 an hour flow in again
        (Limit(Resource.TOKENS, 2_400, "day"), 90, None),
    ],
    ids=str,
)
def test_at_a_steady_pace(limit: Limit, each: float, gone_in: float | None, manual_clock: ManualClock) -> None:
    spender = Spender(limit, manual_clock)
    assert spender.status().exhausted_in is None
    found = spender.spend(each, HOUR, times=5)
    assert found == (None if gone_in is None else pytest.approx(gone_in, rel=0.12)), limit


def test_the_first_look_at_a_day_knows_the_days_pace(manual_clock: ManualClock) -> None:
    spender = Spender(budget(), manual_clock)
    assert spender.spend(20.0, 4 * HOUR) == pytest.approx(16 * HOUR)
    assert "gone in 16 h" in str(spender.status())


def test_it_follows_a_change_of_pace(manual_clock: ManualClock) -> None:
    spender = Spender(budget(), manual_clock)
    slow = spender.spend(1.0, HOUR, times=4)
    fast = spender.spend(5.0, 600, times=6)
    assert slow is None
    assert fast == pytest.approx((100 - 34) / 5 * 600, rel=0.8)
    manual_clock.advance(6 * HOUR)
    assert spender.status().exhausted_in is None  # nobody spends any more


def test_a_new_day_begins_with_nothing_used(manual_clock: ManualClock) -> None:
    spender = Spender(budget(), manual_clock)
    spender.spend(10.0, HOUR, times=9)
    manual_clock.advance(DAY - 9 * HOUR + 1)
    assert spender.status().exhausted_in is None or spender.status().available == 100
    assert spender.spend(10.0, HOUR) == pytest.approx(9 * HOUR, rel=0.05)


def test_what_is_used_up_is_gone_now(manual_clock: ManualClock) -> None:
    spender = Spender(budget("total"), manual_clock)
    assert spender.spend(100.0, 60) == 0
    assert "gone" not in str(spender.status())


def test_what_calls_in_flight_hold_is_not_spent(manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter(clock=manual_clock, budget_limit=100, on_unknown_price="zero")
    manual_clock.advance(HOUR)
    held = limiter.acquire("p:m", Estimate(cost=90.0))
    (status,) = limiter.snapshot().limits
    assert (status.exhausted_in, status.available) == (None, 10)
    held.settle(Usage(cost=4.0))
    assert limiter.snapshot().limits[0].exhausted_in is None  # 4 an hour last the day


def test_the_pace_is_that_of_time_not_of_the_looks(manual_clock: ManualClock) -> None:
    rare, often = Spender(budget(), manual_clock), Spender(budget(), ManualClock())
    rare.spend(10.0, HOUR, times=5)
    for _ in range(5 * 60):
        often.spend(10.0 / 60, 60)
        for _ in range(3):
            often.status()
    assert rare.status().exhausted_in == pytest.approx(5 * HOUR)
    assert often.status().exhausted_in == pytest.approx(5 * HOUR, rel=0.01)
