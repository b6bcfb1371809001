"""A local allowance: calls are served from slices of shared limits, and what is not used of them comes back."""

from __future__ import annotations

from typing import Any, cast

import pytest

from agent_rate_limiter import ConfigError, Limit, Price, ReservationError, Usage
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.core.shared.slicing import DAY, LEASE, Stores, calls, left, limiter, lying


def test_calls_are_served_without_asking_the_store(stores: Stores, manual_clock: ManualClock) -> None:
    store = stores()
    one = limiter(store, manual_clock)
    most = 0
    for _ in range(200):
        calls(one, 1, 500, used=500)
        manual_clock.advance(0.01)
        most = max(most, len(one._calls.engine._slices))
    assert store.runs <= 30
    assert most == 2, "the next one is there before one is used up"
    manual_clock.advance(3)
    runs = store.runs
    manual_clock.advance(600)
    assert store.runs <= runs + 1, "who does nothing asks nothing"
    assert left(one) == 600_000


def test_without_it_every_call_asks(file: Stores, manual_clock: ManualClock) -> None:
    store = file()
    calls(limiter(store, manual_clock, lease=None), 100, used=500)
    assert store.runs >= 100


def test_async_calls_and_those_that_never_wait_are_served_alike(file: Stores, manual_clock: ManualClock) -> None:
    store = file()
    one = limiter(store, manual_clock)
    calls(one, 10, 500, used=500)

    async def main() -> None:
        for _ in range(20):
            async with one.reserve(input_tokens=500, timeout=1) as call:
                call.settle(Usage(1, 500))

    run_virtual(main(), manual_clock)
    for _ in range(20):
        one.try_acquire(input_tokens=500).settle(Usage(1, 500))
    assert store.runs <= 15
    with pytest.raises(ConfigError, match="timeout is -1"):
        one.acquire(input_tokens=500, timeout=-1)
    with pytest.raises(ConfigError, match="timeout is 'soon'"):
        run_virtual(one.acquire_async(input_tokens=500, timeout=cast("Any", "soon")), manual_clock)


def test_a_path_without_a_pace_takes_no_slices(file: Stores, manual_clock: ManualClock) -> None:
    one = limiter(file(), manual_clock)
    for _ in range(5):
        calls(one, 1, 500, used=500)
        assert lying(one) == 0
        manual_clock.advance(2)
    assert not one._calls.engine._lanes, "it is forgotten"


def test_what_is_not_used_comes_back_after_a_second(stores: Stores, manual_clock: ManualClock) -> None:
    one, other = limiter(stores(), manual_clock), limiter(stores(), manual_clock)
    calls(one, 3, 500, used=500)
    assert 0 < lying(one) <= LEASE
    assert left(other) == 600_000 - 1_500 - (lying(one) - 500), "the third was served"
    manual_clock.advance(1)
    assert lying(one) == 0
    assert left(other) == 600_000


def test_refunds_make_room_and_debts_are_drawn(file: Stores, manual_clock: ManualClock) -> None:
    store = file()
    one = limiter(store, manual_clock, DAY, lease=8_000)
    calls(one, 2, 1_000, used=1_000)
    (piece,) = one._calls.engine._slices
    assert piece.calls == 4
    runs = store.runs
    for _ in range(10):
        calls(one, 1, 1_000, used=0)
    calls(one, 1, 1_000, used=3_500)
    assert store.runs - runs <= 2, "the next slice was asked for, and no more"
    calls(one, 1, 400, used=900)
    assert piece.live is False, "it owes more than it has"
    manual_clock.advance(2)
    assert left(one) == 2_000_000 - 2_000 - 3_500 - 900


def test_calls_that_outlive_their_slice_are_settled_each_second(stores: Stores, manual_clock: ManualClock) -> None:
    store = stores()
    one = limiter(store, manual_clock, DAY, Limit(Resource.COST, 100.0, "day"), price=Price(1, 0))
    held = calls(one, 12, 1_000)
    manual_clock.advance(30)
    assert left(one) == 2_000_000 - 12_000
    assert left(one, "cost") == pytest.approx(100 - 0.012)
    runs = store.runs
    for call in held[:6]:
        call.settle(Usage(1, 200))
    held[6].cancel()
    manual_clock.advance(1)
    assert store.runs - runs <= 4
    assert left(one) == 2_000_000 - 6 * 200 - 5_000
    for call in held[7:]:
        call.settle(Usage(1, 1_500))
    manual_clock.advance(1)
    assert left(one) == 2_000_000 - 6 * 200 - 5 * 1_500
    assert left(one, "cost") == pytest.approx(100 - (6 * 200 + 5 * 1_500) / 1e6)
    assert one.snapshot().in_flight == 0
    assert not one._calls.engine._kept


def test_what_long_calls_give_back_does_not_lie_until_it_is_more_than_the_allowance(
    file: Stores, manual_clock: ManualClock
) -> None:
    one, other = limiter(file(), manual_clock, DAY, lease=8_000), limiter(file(), manual_clock, DAY)
    held = calls(one, 20, 1_000)
    manual_clock.advance(2)
    served = [call for call in held if call.id in one._calls.engine._served]
    assert len(served) > 9
    for call in served[:8]:
        call.settle(Usage(1, 0))
    before = left(other)
    served[8].settle(Usage(1, 0))
    assert left(other) - before == 9_000


def test_no_more_than_the_allowance_lies_unused(file: Stores, manual_clock: ManualClock) -> None:
    one, other = (
        limiter(file(), manual_clock, DAY, "50000 requests/day", lease=8_000),
        limiter(file(), manual_clock, DAY),
    )
    for _ in range(60):
        calls(one, 1, 1_000, used=0)
        assert left(other) >= 2_000_000 - 8_000 - 1_000, "its slices, and a call that was just settled"


def test_a_big_call_among_small_ones_asks_for_itself(file: Stores, manual_clock: ManualClock) -> None:
    one = limiter(file(), manual_clock)
    calls(one, 4, 500, used=500)
    (piece,) = one._calls.engine._slices
    calls(one, 1, 100_000, used=100_000)
    assert piece.live
    calls(one, 1, 500, used=500)
    manual_clock.advance(2)
    assert left(one) == pytest.approx(600_000 - 102_500 + 20_000, abs=500)


def test_lost_calls_are_charged_and_may_come_back(file: Stores, manual_clock: ManualClock) -> None:
    one = limiter(file(), manual_clock, DAY)
    held = calls(one, 6, 1_000)
    del held[5]  # dropped: charged as it was estimated
    manual_clock.advance(700)  # their lease is over
    assert left(one) == 2_000_000 - 6_000
    held[4].settle(Usage(1, 400))
    assert left(one) == 2_000_000 - 6_000 + 600
    with pytest.raises(ReservationError):
        held[4].settle()
