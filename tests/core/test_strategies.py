"""Each strategy as a table: (when, what, outcome)."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from agent_rate_limiter.limits import Limit, Resource
from agent_rate_limiter.strategies import (
    Concurrency,
    FixedWindow,
    SlidingWindow,
    Strategy,
    TokenBucket,
    strategy_for,
)
from agent_rate_limiter.strategies.calendar import FOREVER, window

MINUTE = 60_000
START = 1_767_225_600_000  # 2026-01-01 00:00 UTC, a Thursday


@pytest.mark.parametrize(
    ("strategy", "steps"),
    [
        pytest.param(
            TokenBucket(60, MINUTE),  # one per second, 60 at once
            [(0, 60, True), (0, 1, False), (999, 1, False), (1_000, 1, True), (1_000, 1, False), (61_000, 60, True)],
            id="bucket",
        ),
        pytest.param(
            TokenBucket(60, MINUTE, burst=1),
            [(0, 1, True), (0, 1, False), (1_000, 1, True), (90_000, 1, True), (90_000, 1, False)],
            id="bucket of one",
        ),
        pytest.param(
            TokenBucket(60, MINUTE, burst=2),
            [(5_000, 1, True), (4_000, 1, True), (4_999, 1, False), (5_000, 1, True)],
            id="the clock jumps back: what is owed stays, and is paid off from there on",
        ),
        pytest.param(
            SlidingWindow(10, MINUTE),
            [(0, 6, True), (30_000, 4, True), (59_999, 1, False), (61_000, 6, True), (61_000, 1, False)],
            id="sliding",
        ),
        pytest.param(
            FixedWindow(10, "minute"),
            [(59_000, 10, True), (59_999, 1, False), (60_000, 10, True), (119_999, 1, False)],
            id="fixed: twice the amount around a boundary, as such providers allow",
        ),
        pytest.param(
            FixedWindow(5, None),
            [(0, 5, True), (10**12, 1, False)],
            id="a total never resets",
        ),
        pytest.param(Concurrency(2), [(0, 1, True), (0, 1, True), (10**12, 1, False)], id="slots do not free by time"),
    ],
)
def test_takes(strategy: Strategy, steps: list[tuple[int, int, bool]]) -> None:
    state = strategy.initial(START)
    for at, amount, fits in steps:
        after = strategy.take(state, amount, START + at)
        assert (after is not None) is fits, (at, amount)
        state = state if after is None else after


@pytest.mark.parametrize(
    ("strategy", "taken", "asked", "wait"),
    [
        (TokenBucket(60, MINUTE), 60, 1, 1_000),
        (TokenBucket(60, MINUTE), 60, 30, 30_000),
        (TokenBucket(7, MINUTE), 7, 1, 8_572),  # 60000 / 7 = 8571.43, rounded up
        (TokenBucket(500_000, MINUTE), 442_231, 249_686, 23_031),  # OpenAI's published refusal: "try again in 23.03s"
        (SlidingWindow(10, MINUTE), 10, 1, MINUTE + 1_000),  # up to 1/60 late
        (FixedWindow(10, "minute"), 10, 1, MINUTE),
        (FixedWindow(10, None), 10, 1, None),
        (Concurrency(1), 1, 1, None),
        (TokenBucket(60, MINUTE), 10, 1, 0),
    ],
)
def test_wait_is_exact(strategy: Strategy, taken: int, asked: int, wait: int | None) -> None:
    state = strategy.take(strategy.initial(START), taken, START)
    assert strategy.wait(state, asked, START) == wait
    if wait:
        assert strategy.take(state, asked, START + wait - 1) is None
        assert strategy.take(state, asked, START + wait) is not None


@pytest.mark.parametrize(
    ("strategy", "used", "available"),
    [
        (TokenBucket(100, MINUTE), 0, 100),
        (TokenBucket(100, MINUTE), 30, 70),
        (TokenBucket(100, MINUTE), 130, -30),
        (SlidingWindow(100, MINUTE), 0, 100),
        (SlidingWindow(100, MINUTE), 30, 70),
        (SlidingWindow(100, MINUTE), 130, -30),
        (FixedWindow(100, "day"), 0, 100),
        (FixedWindow(100, "day"), 30, 70),
        (FixedWindow(100, "day"), 130, -30),
        (Concurrency(100), 0, 100),
        (Concurrency(100), 50, 100),
    ],
)
def test_settle_replaces_what_was_taken(strategy: Strategy, used: int, available: int) -> None:
    state = strategy.take(strategy.initial(START), 50, START)
    assert strategy.available(state, START) == 50
    assert strategy.available(strategy.settle(state, 50, used, START, START), START) == available


def test_a_refund_does_not_fill_a_bucket_beyond_its_brim() -> None:
    bucket = TokenBucket(60, MINUTE)
    state = bucket.take(bucket.initial(START), 30, START)
    assert state is not None
    state = bucket.settle(state, 30, 0, START, START + MINUTE)
    assert bucket.available(state, START + MINUTE) == 60


def test_a_call_that_outlives_its_window_charges_only_its_excess_to_the_next() -> None:
    day = FixedWindow(100, "day")
    state = day.take(day.initial(START), 40, START)
    assert state is not None
    tomorrow = START + 86_400_000
    assert day.available(day.settle(state, 40, 10, START, tomorrow), tomorrow) == 100
    assert day.available(day.settle(state, 40, 45, START, tomorrow), tomorrow) == 95
    sliding = SlidingWindow(100, MINUTE)
    log = sliding.take(sliding.initial(START), 40, START)
    assert log is not None
    later = START + 2 * MINUTE
    assert sliding.available(sliding.settle(log, 40, 10, START, later), later) == 100
    assert sliding.available(sliding.settle(log, 40, 45, START, later), later) == 95


def test_a_sliding_refund_lands_in_the_slot_it_was_taken_in() -> None:
    sliding = SlidingWindow(100, MINUTE)
    state = sliding.take(sliding.initial(START), 40, START)
    assert state is not None
    state = sliding.take(state, 10, START + 5_000)
    assert state is not None
    state = sliding.settle(state, 40, 0, START, START + 6_000)
    assert state == (10, (((START + 5_000) // 1_000, 10),), 10)
    state = sliding.settle(state, 0, 7, START, START + 6_000)  # more use, in a slot that is empty by now
    assert state[0] == 17
    assert [units for _, units in state[1]] == [7, 10]


def test_what_may_still_come_back_is_told_apart_from_what_is_spent() -> None:
    budget = FixedWindow(100, "day")
    state = budget.take(budget.initial(START), 90, START)
    assert state is not None
    assert budget.may_free(state, 50, START)
    state = budget.settle(state, 90, 90, START, START)
    assert not budget.may_free(state, 50, START)
    assert Concurrency(1).may_free(1, 1, START)
    assert not Concurrency(1).may_free(0, 2, START)
    assert not TokenBucket(1, 1).may_free((0, 0), 1, 0)
    assert not SlidingWindow(1, 1).may_free((1, ((0, 1),), 1), 1, 0)


def test_a_rolling_budget_tells_what_is_held_from_what_is_spent() -> None:
    budget = SlidingWindow(100, MINUTE, refunds=True)
    state = budget.take(budget.initial(START), 90, START)
    assert state is not None
    assert budget.may_free(state, 100, START)
    assert not budget.may_free(state, 101, START)
    state = budget.settle(state, 90, 60, START, START)
    assert not budget.may_free(state, 50, START)
    assert budget.idle_in(state, START) == MINUTE + 1_000


@pytest.mark.parametrize(("later", "left"), [(0, 150), (3_600_000, 150), (86_400_000 - 1, 150), (86_400_000, 200)])
def test_a_day_goes_on_after_a_restart_even_with_another_amount(later: int, left: int) -> None:
    before = FixedWindow(100, "day")
    state = before.take(before.initial(START), 60, START)
    assert state is not None
    state = before.settle(state, 60, 50, START, START)
    after = FixedWindow(200, "day")
    assert after.available(state, START + later) == left
    rolling = SlidingWindow(100, 86_400_000, refunds=True)
    log = rolling.take(rolling.initial(START), 50, START)
    assert log is not None
    again = SlidingWindow(200, 86_400_000, refunds=True)
    assert again.available(log, START + later) == 150
    assert again.available(log, START + 86_400_000 + 24 * MINUTE) == 200


def test_prediction_beyond_one_window() -> None:
    assert FixedWindow(10, "minute").wait((START, START + MINUTE, 10, 0), 25, START) == 3 * MINUTE
    full = SlidingWindow(10, MINUTE).take((0, (), 0), 10, START)
    assert full is not None
    assert SlidingWindow(10, MINUTE).wait(full, 25, START) == 2 * MINUTE + MINUTE + 1_000


@pytest.mark.parametrize(
    ("strategy", "amount", "idle"),
    [
        (TokenBucket(60, MINUTE), 30, 30_000),
        (SlidingWindow(60, MINUTE), 30, None),
        (FixedWindow(60, "minute"), 30, MINUTE),
        (FixedWindow(60, None), 30, None),
        (Concurrency(5), 1, None),
    ],
)
def test_idle_in(strategy: Strategy, amount: int, idle: int | None) -> None:
    assert strategy.idle_in(strategy.initial(START), START) == 0
    state = strategy.take(strategy.initial(START), amount, START)
    assert strategy.idle_in(state, START) == idle


def _moment(text: str, zone: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


@pytest.mark.parametrize(
    ("at", "per", "zone", "start", "end"),
    [
        ("2026-01-01T10:00:30", "minute", "UTC", "2026-01-01T10:00:00", "2026-01-01T10:01:00"),
        ("2026-01-01T10:00:30", "day", "America/Los_Angeles", "2026-01-01T00:00:00", "2026-01-02T00:00:00"),
        ("2026-03-08T12:00:00", "day", "America/Los_Angeles", "2026-03-08T00:00:00", "2026-03-09T00:00:00"),  # 23 h
        ("2026-11-01T12:00:00", "day", "America/Los_Angeles", "2026-11-01T00:00:00", "2026-11-02T00:00:00"),  # 25 h
        ("2026-01-01T00:00:00", "week", "Europe/Berlin", "2025-12-29T00:00:00", "2026-01-05T00:00:00"),
        ("2026-02-28T23:59:59", "month", "UTC", "2026-02-01T00:00:00", "2026-03-01T00:00:00"),
        ("2026-12-31T23:59:59", "month", "Asia/Tokyo", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
    ],
)
def test_calendar(at: str, per: str, zone: str, start: str, end: str) -> None:
    assert window(_moment(at, zone), per, zone) == (_moment(start, zone), _moment(end, zone))


def test_windows_that_no_calendar_knows() -> None:
    assert window(START + 7, None) == (0, FOREVER)
    assert window(START + 7_000, 2.5) == (START + 5_000, START + 7_500)


@pytest.mark.parametrize(("per", "zone"), [("day", "America/Los_Angeles"), ("week", "Europe/Berlin"), ("month", "UTC")])
def test_bounds_follow_the_clock_both_ways(per: str, zone: str) -> None:
    strategy = FixedWindow(10, per, zone)
    start, end = window(START, per, zone)
    for now in (START, end - 1, end, START, start - 1, start, START + 90 * 86_400_000, START):
        here = window(now, per, zone)
        before, after = window(here[0] - 1, per, zone)[0], window(here[1], per, zone)[1]
        assert strategy.bounds(now, lasting=1) == (0, before, *here, after)


def test_daylight_saving_days_have_their_true_length() -> None:
    spring = window(_moment("2026-03-08T12:00:00", "America/Los_Angeles"), "day", "America/Los_Angeles")
    autumn = window(_moment("2026-11-01T12:00:00", "America/Los_Angeles"), "day", "America/Los_Angeles")
    assert (spring[1] - spring[0], autumn[1] - autumn[0]) == (23 * 3_600_000, 25 * 3_600_000)


@pytest.mark.parametrize(
    ("limit", "kind"),
    [
        (Limit(Resource.TOKENS, 10, "minute"), TokenBucket),
        (Limit(Resource.TOKENS, 10, "minute", strategy="sliding_window"), SlidingWindow),
        (Limit(Resource.COST, 10, "month"), FixedWindow),
        (Limit(Resource.CONCURRENCY, 10), Concurrency),
    ],
)
def test_a_limit_names_its_strategy(limit: Limit, kind: type) -> None:
    assert isinstance(strategy_for(limit), kind)
