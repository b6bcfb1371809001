"""The provider-side meters, by hand: published examples, windows, and what was allowed at most."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_rate_limiter.testing.simulated.meters import (
    SECOND,
    Bucket,
    Meter,
    Ramp,
    SlidingLog,
    Slots,
    Window,
    day_of,
    every,
)

MINUTE, DAY = 60 * SECOND, 86_400 * SECOND


def at(moment: str, zone: str) -> int:
    return int(datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(zone)).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("limit", "used", "requested", "window", "seconds"),
    [
        (500_000, 442_231, 249_686, MINUTE, 23.03004),
        (500_000, 396_582, 249_686, MINUTE, 17.55216),
        (10_000, 8_554, 3_082, MINUTE, 9.816),
        (100_000, 99_996, 484, DAY, 414.72),
        (200_000, 197_494, 4_035, DAY, 660.528),
    ],
)
def test_a_bucket_gives_the_waits_that_openai_and_groq_published(
    limit: int, used: int, requested: int, window: int, seconds: float
) -> None:
    bucket = Bucket(limit, window, now=0)
    bucket.add(used, 0)
    wait = bucket.wait(requested, 0) or 0
    assert wait == round(seconds * SECOND)
    assert bucket.wait(requested, wait - SECOND) != 0
    assert bucket.wait(requested, wait) == 0


@pytest.mark.parametrize(
    ("limit", "used", "window", "seconds"), [(1_000, 2, DAY, 172.8), (8_000, 73, MINUTE, 0.5475), (500, 0, MINUTE, 0)]
)
def test_a_bucket_is_full_again_when_groqs_headers_say_so(limit: int, used: int, window: int, seconds: float) -> None:
    bucket = Bucket(limit, window, now=0)
    bucket.add(used, 0)
    reset = bucket.reset_in(0)
    assert reset == round(seconds * SECOND)
    assert bucket.used(reset) == 0


def test_a_bucket_rounds_what_is_used_up_and_never_gives_back_twice() -> None:
    bucket = Bucket(60, MINUTE, now=0)
    bucket.add(10, 0)
    assert bucket.used(SECOND // 2) == 10
    assert bucket.used(SECOND) == 9
    bucket.refund(10, 0, 5 * SECOND)
    assert bucket.used(5 * SECOND) == 0
    assert bucket.wait(61, 5 * SECOND) == SECOND
    assert bucket.used(3 * SECOND) == 0  # a clock that jumps back changes nothing


def test_a_limit_of_zero_admits_nothing_ever() -> None:
    assert Bucket(0, MINUTE, now=0).wait(1, 0) is None


def test_a_lowered_limit_keeps_what_was_used() -> None:
    bucket = Bucket(100, MINUTE, now=0)
    bucket.add(90, 0)
    bucket.resize(60, 0)
    assert bucket.limit - bucket.used(0) == -30
    assert bucket.wait(1, 0) == 31 * SECOND


def test_a_window_starts_again_at_the_minute_of_the_clock() -> None:
    window = Window(100, every(60), now=30 * SECOND)
    window.add(100, 30 * SECOND)
    assert window.wait(1, 59 * SECOND) == SECOND
    assert window.reset_in(59 * SECOND) == SECOND
    assert window.wait(100, MINUTE) == 0
    window.add(40, MINUTE)
    window.refund(100, 30 * SECOND, MINUTE)  # charged to the window before: it is gone
    assert window.used(MINUTE) == 40
    window.refund(30, MINUTE, MINUTE)
    assert window.used(MINUTE) == 10


@pytest.mark.parametrize(
    ("zone", "inside", "start", "end", "hours"),
    [
        ("America/Los_Angeles", "2026-11-23T13:00", "2026-11-23T00:00", "2026-11-24T00:00", 24),
        ("America/Los_Angeles", "2026-11-01T12:00", "2026-11-01T00:00", "2026-11-02T00:00", 25),
        ("America/Los_Angeles", "2026-03-08T12:00", "2026-03-08T00:00", "2026-03-09T00:00", 23),
        ("UTC", "2026-11-23T00:00", "2026-11-23T00:00", "2026-11-24T00:00", 24),
    ],
)
def test_a_day_goes_from_midnight_to_midnight_there(zone: str, inside: str, start: str, end: str, hours: int) -> None:
    begun, ended = day_of(zone)(at(inside, zone) + 5)
    assert (begun, ended) == (at(start, zone), at(end, zone))
    assert ended - begun == hours * 3600 * SECOND


def test_a_sliding_log_frees_what_is_a_window_old() -> None:
    log = SlidingLog(10, MINUTE, now=0)
    log.add(6, 0)
    log.add(4, 10 * SECOND)
    assert log.wait(5, 20 * SECOND) == 40 * SECOND
    assert log.wait(7, 20 * SECOND) == 50 * SECOND
    assert log.wait(11, 20 * SECOND) is None
    assert log.reset_in(20 * SECOND) == 50 * SECOND
    log.refund(6, 0, 20 * SECOND)
    assert log.used(20 * SECOND) == 4
    assert log.used(MINUTE) == 4
    assert log.used(70 * SECOND) == 0


def test_slots_come_back_and_remember_their_peak() -> None:
    slots = Slots(2, now=0)
    slots.add(1, 0)
    slots.add(1, 0)
    assert slots.wait(1, MINUTE) is None
    slots.refund(1, 0, MINUTE)
    assert slots.wait(1, MINUTE) == 0
    assert (slots.used(MINUTE), slots.peak) == (1, 2)


def test_a_ramp_grows_while_it_is_used_and_starts_anew_after_an_idle_minute() -> None:
    ramp = Ramp(100, 50, every(60), now=0)
    ramp.add(100, 0)
    assert ramp.wait(1, 15 * SECOND) == 45 * SECOND
    assert ramp.wait(150, MINUTE) == 0
    assert ramp.limit == 150
    ramp.add(1, MINUTE)
    assert ramp.wait(200, 2 * MINUTE) == 0
    assert ramp.wait(101, 4 * MINUTE) == MINUTE
    assert ramp.limit == 100
    assert ramp.allowed(0, 3 * MINUTE - 1) == 100 + 150 + 200


@pytest.mark.parametrize(
    ("meter", "end", "allowed"),
    [
        (Bucket(60, MINUTE, now=0), 0, 60),
        (Bucket(60, MINUTE, now=0), 90 * SECOND, 150),
        (Window(60, every(60), now=0), 90 * SECOND, 120),
        (Window(60, every(60), now=0), MINUTE - 1, 60),
        (SlidingLog(60, MINUTE, now=0), MINUTE, 120),
        (Slots(7, now=0), DAY, 7),
    ],
)
def test_the_most_that_was_allowed(meter: Meter, end: int, allowed: int) -> None:
    assert meter.allowed(0, end) == allowed


def test_the_most_that_a_lowered_bucket_allowed_waits_for_the_debt_to_drain() -> None:
    bucket = Bucket(120, MINUTE, now=0)
    bucket.resize(60, MINUTE)
    # 120 at once, 120 refilled in the first minute; then 60 too many are in use and drain for a minute
    assert bucket.allowed(0, MINUTE) == 240
    assert bucket.allowed(0, 2 * MINUTE) == 240
    assert bucket.allowed(0, 3 * MINUTE) == 300
    bucket.resize(90, 3 * MINUTE)
    assert bucket.allowed(0, 3 * MINUTE) == 300 + 30
    assert bucket.allowed(0, 4 * MINUTE) == 300 + 30 + 90


MAKE: dict[str, Callable[[int], Meter]] = {
    "bucket": lambda limit: Bucket(limit, MINUTE, now=0),
    "window": lambda limit: Window(limit, every(60), now=0),
    "sliding": lambda limit: SlidingLog(limit, MINUTE, now=0),
}


@given(
    kind=st.sampled_from(sorted(MAKE)),
    limit=st.integers(1, 200),
    steps=st.lists(st.tuples(st.integers(0, 90 * SECOND), st.integers(1, 200)), min_size=1, max_size=40),
    changes=st.dictionaries(st.integers(0, 39), st.integers(1, 200), max_size=3),
)
def test_no_stretch_of_time_ever_gets_more_than_was_allowed(
    kind: str, limit: int, steps: list[tuple[int, int]], changes: dict[int, int]
) -> None:
    """A greedy client, whose every admitted amount is held against every stretch of its run."""
    meter = MAKE[kind](limit)
    now, taken = 0, []
    for number, (pause, amount) in enumerate(steps):
        now += pause
        if number in changes:
            now += 1  # at one and the same instant the later limit would count alone
            meter.resize(changes[number], now)
        if meter.wait(amount, now) == 0:
            meter.add(amount, now)
            taken.append((now, amount))
    for first, (start, _) in enumerate(taken):
        for last in range(first, len(taken)):
            end = taken[last][0]
            assert sum(amount for _, amount in taken[first : last + 1]) <= meter.allowed(start, end)


@given(kind=st.sampled_from(sorted(MAKE)), amount=st.integers(1, 50), used=st.lists(st.integers(1, 50), max_size=8))
def test_a_wait_is_enough_and_not_much_too_long(kind: str, amount: int, used: list[int]) -> None:
    meter, now = MAKE[kind](50), 0
    for units in used:
        now += 3 * SECOND
        meter.add(units, now)
    wait = meter.wait(amount, now)
    assert wait is not None
    if wait > 0:
        slack = max(1, MINUTE // 50)  # a bucket rounds what is used up to the next unit
        assert kind != "bucket" or meter.wait(amount, now + max(0, wait - slack - 1)) != 0
        assert meter.wait(amount, now + wait) == 0
