"""Both ledgers keep the same books: rows, sums by hour and day, and not a nano-dollar lost on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent_rate_limiter import ConfigError, CostTracker, Estimate, MultiProviderLimiter, Price, Provider, Target, Usage
from agent_rate_limiter.providers import Failure, FailureKind
from agent_rate_limiter.testing import ManualClock, run_virtual

PRICES = {"p:a": Price(1, 2), "p:b": Price(10, 20, cached_input_per_1m=1)}
Make = Callable[..., CostTracker]


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, manual_clock: ManualClock, tmp_path: Path) -> Iterator[Make]:
    made: list[CostTracker] = []
    uri = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/costs.db"

    def tracker(**options: Any) -> CostTracker:
        made.append(CostTracker(uri, **{"prices": PRICES, "clock": manual_clock, **options}))
        return made[-1]

    yield tracker
    for each in made:
        each.close()


@pytest.fixture
def costs(make: Make) -> CostTracker:
    return make()


def dollars(costs: CostTracker, *by: str, **options: Any) -> dict[tuple[object, ...], float]:
    report = costs.report(by, **options)
    return {tuple(row[name] for name in report.by): float(str(row["cost"])) for row in report}


# ---------------------------------------------------------------- what is kept


def test_a_row_holds_all_that_is_known(costs: CostTracker, manual_clock: ManualClock) -> None:
    usage = Usage(
        requests=1,
        input_tokens=100,
        output_tokens=50,
        cached_input_tokens=40,
        cache_write_tokens=20,
        cache_write_1h_tokens=5,
        reasoning_tokens=30,
        input_audio_tokens=3,
        output_audio_tokens=2,
    )
    assert costs.record("p:b", usage, latency=1.5, agent="x", run=7) == 0.00164
    assert costs.rows().to_dicts() == [
        {
            "time": datetime.fromtimestamp(manual_clock.now() / 1000, timezone.utc),
            "provider": "p",
            "model": "b",
            "labels": {"agent": "x", "run": "7"},
            "requests": 1,
            "input_tokens": 100,
            "output_tokens": 50,
            "cached_input_tokens": 40,
            "cache_write_tokens": 20,
            "cache_write_1h_tokens": 5,
            "reasoning_tokens": 30,
            "input_audio_tokens": 3,
            "output_audio_tokens": 2,
            "cost": 0.00164,
            "estimate": 0.0,
            "latency": 1.5,
            "outcome": "ok",
            "attempts": 1,
            "price": "user",
        }
    ]


def test_what_a_limiter_writes(costs: CostTracker, manual_clock: ManualClock) -> None:
    provider = Provider("p", {"a": {"rpm": 99, "input_per_1m": 1, "output_per_1m": 2}})
    limiter = MultiProviderLimiter([provider], clock=manual_clock, ledger=costs)
    with limiter.scope(agent="x"):
        sizes = [Estimate(input_tokens=100, max_output_tokens=50)] * 2 + [Estimate()] * 4
        first, silent, refused, unsent, stated, never = [limiter.acquire("p:a", size) for size in sizes]
        limiter.acquire("p:a", input_tokens=1_000)  # dropped
        silent.settle()
        stated.settle(Usage(input_tokens=5, cost=0.25))
        refused.fail(Failure(FailureKind.WAIT, status=429))
        unsent.fail(Failure(FailureKind.TRANSIENT, sent=False))
        never.cancel()
        manual_clock.advance(2)
        first.settle(Usage(input_tokens=90, output_tokens=10))
    columns = ("requests", "cost", "estimate", "latency", "outcome", "price")
    assert [tuple(row[name] for name in columns) for row in reversed(costs.rows().rows)] == [
        (1, 0.001, 0.001, 0.0, "abandoned", "user"),
        (1, 0.0002, 0.0002, 0.0, "estimated", "user"),
        (1, 0.25, 0.0, 0.0, "ok", "provider"),
        (1, 0.0, 0.0, 0.0, "refused", "user"),
        (0, 0.0, 0.0, 0.0, "failed", "user"),
        (1, 0.00011, 0.0002, 2.0, "ok", "user"),
    ]
    assert limiter.costs is costs
    assert costs.total == pytest.approx(0.25131)


def test_a_retry_says_which_attempt_it_was(costs: CostTracker, manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter(clock=manual_clock, ledger=costs, on_unknown_price="zero")

    async def agent() -> None:
        attempts = limiter.attempts(Target("p", "a"), Estimate())
        assert attempts.failed(await attempts.acquire_async(), Failure(FailureKind.WAIT, retry_after=5.0, status=429))
        (await attempts.acquire_async()).settle(Usage())

    run_virtual(agent(), manual_clock)
    assert [(row["outcome"], row["attempts"]) for row in costs.rows()] == [("ok", 2), ("refused", 1)]


def test_the_last_rows_of_a_span(costs: CostTracker, manual_clock: ManualClock) -> None:
    for number in range(5):
        costs.record("p:a", Usage(input_tokens=number))
        manual_clock.advance(60)
    start = manual_clock.now() / 1000 - 300

    def tokens(**options: Any) -> list[object]:
        return [row["input_tokens"] for row in costs.rows(**options)]

    assert tokens() == [4, 3, 2, 1, 0]
    assert tokens(last=2) == [4, 3]
    assert tokens(since=start + 60) == [4, 3, 2, 1]
    assert tokens(since=start + 60, until=datetime.fromtimestamp(start + 180, timezone.utc)) == [2, 1]
    assert tokens(last=10**30) == [4, 3, 2, 1, 0]


def test_calls_of_another_time(costs: CostTracker) -> None:
    """What was logged elsewhere can be brought in."""
    day = datetime(2025, 5, 4, 12, tzinfo=timezone.utc)
    costs.record("p:a", Usage(input_tokens=10**6), at=day)
    costs.record("p:a", Usage(input_tokens=10**6), at=day.timestamp() + 86_400)
    assert dollars(costs, every="day") == {("2025-05-04",): 1.0, ("2025-05-05",): 1.0}


# ---------------------------------------------------------------- reports


@pytest.fixture
def month(costs: CostTracker, manual_clock: ManualClock) -> CostTracker:
    """A dollar an hour, for forty days from 2026-01-01 on; every other hour is agent y's."""
    for hour in range(40 * 24):
        costs.record("p:a", Usage(input_tokens=10**6), agent="xy"[hour % 2], run=hour)
        manual_clock.advance(3_600)
    return costs


def test_periods(month: CostTracker) -> None:
    assert dollars(month, every="month") == {("2026-01",): 744, ("2026-02",): 216}
    assert dollars(month, every="week") == {
        ("2025-12-29",): 96,
        **{(f"2026-01-{day:02}",): 168.0 for day in (5, 12, 19, 26)},
        ("2026-02-02",): 168,
        ("2026-02-09",): 24,
    }
    assert dollars(month, "agent", every="day")[("2026-01-31", "x")] == 12
    assert dollars(month, every="hour")[("2026-01-31 05:00",)] == 1


def test_days_of_another_zone(month: CostTracker) -> None:
    days = dollars(month, every="day", timezone="America/New_York")
    assert days[("2025-12-31",)] == 5
    assert days[("2026-01-01",)] == 24


def test_a_window(month: CostTracker) -> None:
    start = datetime(2026, 1, 10, 6, tzinfo=timezone.utc)
    assert dollars(month, since=start, until=start + timedelta(hours=5)) == {(): 5}
    assert dollars(month, since=start, until=start + timedelta(hours=5), every="day") == {("2026-01-10",): 5}
    assert dollars(month, since=start + timedelta(minutes=59), until=start + timedelta(hours=1, minutes=1)) == {(): 2}


def test_windows_that_follow_one_another_add_up(month: CostTracker) -> None:
    """No hour is in two months, and none in neither; of rows the same."""
    begins = [datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(days=days) for days in (0, 13, 31, 32, 40)]
    windows = list(pairwise(begins))
    assert [dollars(month, since=a, until=b)[()] for a, b in windows] == [13 * 24, 18 * 24, 24, 8 * 24]
    rows = [len(month.rows(10_000, since=a, until=b)) for a, b in windows]
    assert sum(rows) == len(month.rows(10_000, since=begins[0]))


def test_the_hour_that_comes_twice_is_told_apart(costs: CostTracker) -> None:
    """When summer time ends in Berlin, at 01:00 UTC on 2026-10-25."""
    for hour in range(3):
        costs.record("p:a", Usage(input_tokens=10**6), at=datetime(2026, 10, 25, hour, tzinfo=timezone.utc))
    assert dollars(costs, every="hour", timezone="Europe/Berlin") == {
        ("2026-10-25 02:00 CEST",): 1,
        ("2026-10-25 02:00 CET",): 1,
        ("2026-10-25 03:00",): 1,
    }
    assert dollars(costs, every="day", timezone="Europe/Berlin") == {("2026-10-25",): 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": "minute"}, "every is 'minute': give one of hour, day, week, month."),
        ({"every": "day", "timezone": "Mars"}, "timezone is 'Mars': give an IANA name, such as 'Europe/Berlin'."),
        ({"by": ("period",)}, "by holds 'period': give every='day' instead; name a label differently."),
    ],
)
def test_a_report_that_makes_no_sense(costs: CostTracker, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        costs.report(**options)
    assert str(caught.value) == message


# ---------------------------------------------------------------- keeping it small


def test_old_hours_become_days_and_old_rows_go(month: CostTracker, manual_clock: ManualClock) -> None:
    total, days = month.total, dollars(month, "agent", every="day")
    month.compact()  # 2026-02-10: hours are kept since 2026-01-11, rows since 2026-02-03
    assert month.total == total == 960
    assert dollars(month, "agent", every="day") == days
    assert len(month.rows(last=10_000)) == 7 * 24
    hours = dollars(month, every="hour")
    assert hours[("2026-01-10 00:00",)] == 24  # a day, at its beginning
    assert hours[("2026-01-11 00:00",)] == 1
    runs = dollars(month, "run")
    assert runs[("",)] == 240  # days do not keep them
    assert len(runs) == 1 + 720
    assert dollars(month, "agent", until=datetime(2026, 1, 5, 3, tzinfo=timezone.utc)) == {("x",): 60, ("y",): 60}
    manual_clock.advance(86_400)
    month.compact()
    month.compact()
    assert month.total == total


def test_more_of_an_old_day_comes_later(month: CostTracker) -> None:
    month.compact()
    month.record("p:a", Usage(input_tokens=10**6), at=datetime(2026, 1, 5, 3, tzinfo=timezone.utc), agent="x")
    month.compact()
    assert dollars(month, "agent", every="day")[("2026-01-05", "x")] == 13
    assert month.total == 961


def test_how_long_what_is_kept(make: Make, manual_clock: ManualClock) -> None:
    costs = make(keep_rows=0.5, keep_hours=0, passing_labels=())
    for hour in range(48):
        costs.record("p:a", Usage(input_tokens=10**6), run=hour)
        manual_clock.advance(3_600)
    costs.compact()
    assert len(costs.rows()) == 12
    assert dollars(costs, every="hour") == {("2026-01-01 00:00",): 24, ("2026-01-02 00:00",): 24}
    assert len(costs.report(("run",))) == 48


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_rows": -1}, "keep_rows is -1: give a number of days of at least 0."),
        ({"keep_hours": float("nan")}, "keep_hours is nan: give a number of days of at least 0."),
        ({"prices": {"p:a": 3}}, "prices['p:a'] is 3: give a Price(input_per_1m, output_per_1m)."),
        ({"on_unknown_price": "x"}, "on_unknown_price is 'x': give 'warn', 'block' or 'zero'."),
    ],
)
def test_options_that_make_no_sense(make: Make, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("ledger", "message"),
    [
        ("redis://user:secret@host", "ledger is 'redis://…': give 'memory://', or 'sqlite:///costs.db' for a file."),
        ("costs.db", "ledger is 'costs.db': give"),
        ("sqlite:///", "ledger is 'sqlite:///': name a file"),
        (5, "ledger is 5: give"),
    ],
)
def test_a_ledger_that_is_none(ledger: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        CostTracker(ledger)
    assert str(caught.value).startswith(message)


# ---------------------------------------------------------------- recording by hand


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"usage": {"no": "usage"}}, "No usage found in a dict: pass an SDK's response, or a Usage(...)."),
        ({"usage": None}, "No usage found in a NoneType"),
        ({"at": "now"}, "at is 'now': give epoch seconds or a datetime."),
        ({"latency": -1}, "latency is -1: give seconds as a finite number of at least 0."),
        ({"latency": "2"}, "latency is '2': give seconds"),
        ({"agent": None}, "scope label agent is None"),
        ({"target": "gpt"}, "target"),
    ],
)
def test_a_record_that_makes_no_sense(costs: CostTracker, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        costs.record(**{"target": "p:a", "usage": Usage(), **arguments})
    assert str(caught.value).startswith(message)
    assert len(costs.rows()) == 0


def test_a_response_and_how_it_was_served(costs: CostTracker) -> None:
    body = {"usage": {"prompt_tokens": 1_000, "completion_tokens": 100}}
    november = datetime(2026, 11, 20, tzinfo=timezone.utc)
    assert costs.record("openai:gpt-4o", body) == 0.0035
    assert costs.record("openai:gpt-4o", body, service_tier="batch", at=november) == 0.00175
    assert costs.record("openai:o3", body, at=november) == 0.0028
    assert costs.record("openai:o3", body, at=datetime(2025, 5, 1, tzinfo=timezone.utc)) == 0.014  # dearer then
    assert costs.record("openai:gpt-4o", Usage(cost=0.5)) == 0.5


@pytest.mark.parametrize("last", [0, -1, True, "5"])
def test_how_many_rows(costs: CostTracker, last: Any) -> None:
    with pytest.raises(ConfigError, match="give a whole number of at least 1"):
        costs.rows(last)


def test_what_has_no_price_is_marked(costs: CostTracker) -> None:
    costs.record("p:c", Usage(input_tokens=5))
    costs.record("p:c", Usage(input_tokens=5, cost=0.1))
    report = costs.report()
    assert report.unpriced == 1
    assert str(report).splitlines()[-1] == (
        "1 request has no known price and counts as $0: give a price, or see report(by=('price', 'model'))."
    )
    assert dollars(costs, "price") == {("provider",): 0.1, ("unpriced",): 0.0}
    assert costs.rows().unpriced == 1


def test_a_tracker_is_a_block(make: Make) -> None:
    with make() as costs:
        costs.record("p:a", Usage(input_tokens=10**6))
    assert costs.total == 1.0
    costs.record("p:a", Usage(input_tokens=10**6))  # and can be used again
    assert repr(costs) == "<CostTracker $2.000000>"


def test_many_targets_and_labels(costs: CostTracker) -> None:
    """More than are remembered between calls."""
    for number in range(5_000):
        costs.record("p:a", Usage(input_tokens=10**6), run=number)
    assert costs.total == 5_000
    assert len(costs.report(("run",))) == 5_000


def test_an_estimate_that_states_its_cost(costs: CostTracker, manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter(clock=manual_clock, ledger=costs, on_unknown_price="zero")
    limiter.acquire("p:a", Estimate(cost=0.75)).settle()
    assert [(row["estimate"], row["cost"], row["outcome"]) for row in costs.rows()] == [(0.75, 0.75, "estimated")]
