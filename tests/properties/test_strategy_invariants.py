"""What must hold for any sequence of calls."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent_rate_limiter.admission import Bucket, refusal, take_all
from agent_rate_limiter.engine.port import Hold
from agent_rate_limiter.limits import Limit, Resource
from agent_rate_limiter.strategies import Concurrency, FixedWindow, SlidingWindow, Strategy, TokenBucket
from agent_rate_limiter.strategies.calendar import window

START = 1_767_225_600_123
steps = st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 30)), max_size=60)  # (ms later, units)
amounts = st.integers(1, 100)
periods = st.integers(1, 20_000)


def _admitted(strategy: Strategy, plan: list[tuple[int, int]]) -> list[tuple[int, int]]:
    state, now, taken = strategy.initial(START), START, []
    for later, units in plan:
        now += later
        after = strategy.take(state, units, now)
        if after is not None:
            state = after
            taken.append((now, units))
    return taken


def _most_in_any_window(taken: list[tuple[int, int]], length: int) -> int:
    """The most that was admitted in [t, t + length), over all t."""
    return max((sum(units for at, units in taken if start <= at < start + length) for start, _ in taken), default=0)


@given(amounts, periods, st.integers(1, 50), steps, st.integers(1, 30_000))
def test_a_bucket_never_admits_more_than_burst_plus_refill(
    amount: int, period: int, burst: int, plan: list[tuple[int, int]], length: int
) -> None:
    taken = _admitted(TokenBucket(amount, period, burst), plan)
    # A window of `length` ms spans at most length - 1 whole milliseconds of refill between its first and last take.
    assert _most_in_any_window(taken, length) * period <= burst * period + amount * (length - 1)


@given(amounts, periods, steps)
def test_a_sliding_window_never_admits_more_than_its_amount(
    amount: int, period: int, plan: list[tuple[int, int]]
) -> None:
    assert _most_in_any_window(_admitted(SlidingWindow(amount, period), plan), period) <= amount


@given(amounts, st.integers(1, 20).map(lambda seconds: seconds * 1000), steps)
def test_a_fixed_window_never_admits_more_than_its_amount(
    amount: int, period: int, plan: list[tuple[int, int]]
) -> None:
    windows: dict[int, int] = {}
    for at, units in _admitted(FixedWindow(amount, period / 1000), plan):
        windows[at // period] = windows.get(at // period, 0) + units
    assert all(units <= amount for units in windows.values())


any_strategy = st.one_of(
    st.builds(TokenBucket, amounts, periods, st.integers(1, 50)),
    st.builds(SlidingWindow, amounts, periods, refunds=st.booleans()),
    st.builds(FixedWindow, amounts, periods.map(lambda ms: ms / 1000)),
    st.builds(FixedWindow, amounts, st.sampled_from(["minute", "day", "month", None])),
    st.builds(Concurrency, amounts),
)


def _reach(strategy: Strategy, plan: list[tuple[int, int]]) -> tuple[Any, int]:
    state, now = strategy.initial(START), START
    for later, units in plan:
        now += later
        state = strategy.take(state, units, now) or state
    return state, now


@given(any_strategy, steps, st.integers(1, 60))
def test_the_wait_is_exact(strategy: Strategy, plan: list[tuple[int, int]], units: int) -> None:
    state, now = _reach(strategy, plan)
    wait = strategy.wait(state, units, now)
    if units > strategy.capacity:
        assert strategy.take(state, units, now) is None
    elif wait is None:
        assert strategy.take(state, units, now + 10**9) is None
    else:
        assert strategy.take(state, units, now + wait) is not None
        assert not wait or strategy.take(state, units, now + wait - 1) is None


@given(any_strategy, steps, st.integers(1, 60))
def test_a_refusal_and_a_question_change_nothing(strategy: Strategy, plan: list[tuple[int, int]], units: int) -> None:
    state, now = _reach(strategy, plan)
    before = repr(state)
    strategy.take(state, units, now)
    strategy.wait(state, units, now)
    strategy.available(state, now)
    strategy.may_free(state, units, now)
    strategy.idle_in(state, now)
    assert repr(state) == before


@given(any_strategy, steps, st.integers(1, 60), st.integers(0, 60))
def test_reserve_then_settle_equals_a_direct_charge(
    strategy: Strategy, plan: list[tuple[int, int]], estimate: int, used: int
) -> None:
    state, now = _reach(strategy, plan)
    reserved = strategy.take(state, estimate, now)
    if reserved is None:
        return
    settled = strategy.settle(reserved, estimate, used, now, now)
    directly = strategy.settle(state, 0, 0 if isinstance(strategy, Concurrency) else used, now, now)
    assert strategy.available(settled, now) == strategy.available(directly, now)
    later = now + 1_234
    assert strategy.available(settled, later) == strategy.available(directly, later)


@given(any_strategy, steps, st.integers(1, 60), st.integers(0, 30_000))
def test_cancel_restores(strategy: Strategy, plan: list[tuple[int, int]], units: int, later: int) -> None:
    state, now = _reach(strategy, plan)
    reserved = strategy.take(state, units, now)
    if reserved is None:
        return
    cancelled = strategy.settle(reserved, units, 0, now, now + later)
    assert strategy.available(cancelled, now + later) == strategy.available(state, now + later)


@given(
    st.lists(st.tuples(amounts, periods), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3_000), st.lists(st.integers(0, 40), min_size=4, max_size=4)), max_size=40),
)
def test_admission_is_all_or_nothing_and_names_the_limit_that_frees_last(
    rules: list[tuple[int, int]], calls: list[tuple[int, list[int]]]
) -> None:
    path = tuple(
        Bucket(str(place), Limit(Resource.TOKENS, amount, period / 1000), "", START)
        for place, (amount, period) in enumerate(rules)
    )
    now = START
    for later, wanted in calls:
        now += later
        units = wanted[: len(path)]
        before = [bucket.state for bucket in path]
        refused = refusal(path, units, now)
        assert [bucket.state for bucket in path] == before
        assert take_all(Hold(path, units), now) == refused
        if refused is not None:
            assert [bucket.state for bucket in path] == before
            waits = [b.strategy.wait(b.state, n, now) or 0 for b, n in zip(path, units, strict=True) if n]
            if refused.never:
                assert refused.requested > refused.bucket.strategy.capacity
            else:
                assert refused.wait == max(waits)
                assert refusal(path, units, now + max(waits)) is None
        else:
            taken = [b.strategy.take(s, n, now) if n else s for b, s, n in zip(path, before, units, strict=True)]
            assert [bucket.state for bucket in path] == taken


ZONES = sorted(name for name in available_timezones() if name != "localtime" and not name.startswith("right/"))
moments = st.integers(0, 4_102_444_800_000)  # 1970 to 2099, in epoch milliseconds


@settings(max_examples=400)
@given(moments, st.sampled_from(["day", "week", "month"]), st.sampled_from(ZONES))
@example(417_992_400_000, "day", "Europe/Minsk")  # 1983-04-01 began at 01:00
def test_calendar_windows_follow_each_other_without_gap_or_overlap(now: int, per: str, zone: str) -> None:
    start, end = window(now, per, zone)
    assert start <= now < end
    assert window(start, per, zone) == window(end - 1, per, zone) == (start, end)
    assert window(start - 1, per, zone)[1] == start
    following = window(end, per, zone)
    assert following[0] == end
    hours = (end - start) / 3_600_000
    shortest, longest = {"day": (20, 28), "week": (140, 172), "month": (27 * 24, 32 * 24)}[per]
    assert shortest <= hours <= longest, (start, end)
    opened = datetime.fromtimestamp(start / 1000, ZoneInfo(zone))
    before = datetime.fromtimestamp((start - 1) / 1000, ZoneInfo(zone))  # by the clock that never jumps
    assert before.date() < opened.date()  # the first moment of a date, even where it is not midnight
    assert per != "week" or opened.weekday() <= 1  # Monday; Tuesday where the calendar skipped a Monday
    assert per != "month" or opened.day <= 2


@pytest.mark.parametrize(
    ("zone", "at", "hours"),
    [
        ("America/New_York", "2026-03-08T12:00", 23),
        ("America/New_York", "2026-11-01T12:00", 25),
        ("Australia/Lord_Howe", "2026-04-05T12:00", 24.5),  # half an hour
        ("Africa/Cairo", "2026-04-24T12:00", 23),  # begins at 01:00: there is no midnight
        ("America/Havana", "2026-11-01T12:00", 25),  # midnight comes twice
        ("Asia/Kathmandu", "2026-06-01T12:00", 24),
        ("UTC", "2026-03-08T12:00", 24),
    ],
)
def test_a_day_has_the_hours_it_has(zone: str, at: str, hours: float) -> None:
    noon = round(datetime.fromisoformat(at).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)
    start, end = window(noon, "day", zone)
    assert (end - start) / 3_600_000 == hours


def test_the_second_midnight_of_a_day_does_not_begin_another() -> None:
    zone = "America/Havana"
    start, end = window(round(datetime(2026, 11, 1, 12, tzinfo=ZoneInfo(zone)).timestamp() * 1000), "day", zone)
    for hours in (0, 0.5, 1, 1.5, 2):  # 00:00, 00:30, 00:00, 00:30, 01:00
        assert window(start + round(hours * 3_600_000), "day", zone) == (start, end)
