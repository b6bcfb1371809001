"""Processes that are not heard of any more: when others get what they held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agent_rate_limiter import RateLimiter
from agent_rate_limiter.testing import ManualClock, run_virtual


@pytest.mark.parametrize(("lease", "heard_of"), [(2, 2), (9, 9), (60, 10)])
def test_who_waits_has_the_slot_of_a_dead_process_within_a_second_of_its_lease(
    stores: Callable[[], Any], manual_clock: ManualClock, lease: float, heard_of: float
) -> None:
    store = stores()
    dead, other = (
        RateLimiter(concurrency=1, store=each, clock=manual_clock, lease=lease) for each in (store, stores())
    )
    held = dead.acquire()
    store.lost = True

    async def main() -> float:
        async with other.reserve() as call:
            return call.waited

    waited = run_virtual(main(), manual_clock)
    assert heard_of < waited <= heard_of + 1
    assert held is not None


@pytest.mark.parametrize(("lease", "heard_of"), [(2, 2), (60, 10)])
def test_a_process_that_lives_says_so_each_third_of_its_lease(
    stores: Callable[[], Any], manual_clock: ManualClock, lease: float, heard_of: float
) -> None:
    store = stores()
    one = RateLimiter("3 requests/day", concurrency=1, store=store, clock=manual_clock, lease=lease)
    held = one.acquire()
    engine: Any = one._calls.engine
    start, before = manual_clock.now(), store.runs
    engine.chores()
    assert store.runs == before, "it has just been heard of"
    manual_clock.advance(heard_of / 3 - 0.002)
    engine.chores()
    assert store.runs == before
    manual_clock.advance(0.002)
    engine.chores()
    assert store.runs == before + 1
    assert manual_clock.now() - start == pytest.approx(heard_of * 1000 / 3, abs=1)
    held.settle()
