"""The time of a store that processes share, as each of them reckons it between two answers."""

from __future__ import annotations

import pytest

from agent_rate_limiter.engine.store_clock import StoreClock
from agent_rate_limiter.testing import ManualClock


@pytest.mark.parametrize(
    ("told", "skew"),
    [(100, 0), (150, 0), (200, 0), (201, 0), (202, 52), (99, -51), (10_150, 10_000), (-9_850, -10_000)],
)
def test_a_clock_is_followed_where_it_cannot_have_been_that_meanwhile(
    manual_clock: ManualClock, told: int, skew: int
) -> None:
    start = manual_clock.now()
    clock = StoreClock(manual_clock, own=True)
    clock.heard(start + told, start + 100, start + 200)
    assert clock.now() == start + skew
    manual_clock.advance(1)
    assert clock.now() == start + skew + 1_000


def test_what_was_followed_is_corrected_not_forgotten(manual_clock: ManualClock) -> None:
    clock = StoreClock(manual_clock, own=True)
    for more in (10_000, -3_000):
        now = clock.now()
        clock.heard(now + more, now, now)
    assert clock.now() == manual_clock.now() + 7_000


def test_a_store_that_is_told_the_time_is_not_followed(manual_clock: ManualClock) -> None:
    clock = StoreClock(manual_clock, own=False)
    clock.heard(clock.now() + 10_000, clock.now(), clock.now())
    assert clock.now() == manual_clock.now()
