"""The books: what was sent, to whom, by whom, and what it cost."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_rate_limiter import (
    ConfigError,
    CostReport,
    CostTracker,
    Estimate,
    MultiProviderLimiter,
    Provider,
    Target,
    Usage,
)
from agent_rate_limiter.testing import ManualClock

A, B = Target("p", "a"), Target("q", "b")
HOUR = 3_600_000
START = 1_767_225_600_000  # 2026-01-01 00:00:00 UTC


@pytest.fixture
def books() -> CostTracker:
    tracker = CostTracker()
    for target, labels, cents, hour in (
        (A, {"agent": "x"}, 1, 0),
        (A, {"agent": "y"}, 2, 1),
        (B, {"agent": "x", "run": "7"}, 4, 2),
        (A, {"agent": "x"}, 8, 2),
        (B, {}, 16, 3),
    ):
        usage = Usage(input_tokens=10, output_tokens=5, cached_input_tokens=3)
        assert tracker.account(target, labels).book(usage, cents * 10**7, START + hour * HOUR) == cents / 100
    return tracker


def cents(report: CostReport) -> dict[tuple[object, ...], int]:
    return {tuple(row[label] for label in report.by): round(float(str(row["cost"])) * 100) for row in report}


# ---------------------------------------------------------------- groups


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ((), {(): 31}),
        (("provider",), {("q",): 20, ("p",): 11}),
        (("provider", "model"), {("q", "b"): 20, ("p", "a"): 11}),
        (("agent",), {("",): 16, ("x",): 13, ("y",): 2}),
        (["model", "agent"], {("b", ""): 16, ("a", "x"): 9, ("b", "x"): 4, ("a", "y"): 2}),
        (("run", "unknown"), {("", ""): 27, ("7", ""): 4}),
    ],
)
def test_groups_the_dearest_first(
    books: CostTracker, by: tuple[str, ...], expected: dict[tuple[str, ...], int]
) -> None:
    report = books.report(by)
    assert report.by == tuple(by)
    assert cents(report) == expected
    assert list(cents(report)) == list(expected)


def test_a_row_says_it_all(books: CostTracker) -> None:
    assert books.report(by=("agent",)).to_dicts()[1] == {
        "agent": "x",
        "requests": 3,
        "input_tokens": 30,
        "output_tokens": 15,
        "cached_input_tokens": 9,
        "cost": 0.13,
    }


def test_rows_are_copies(books: CostTracker) -> None:
    report = books.report()
    report.to_dicts()[0]["cost"] = 0
    assert report.to_dicts()[0]["cost"] == 0.2
    assert [row["provider"] for row in report] == ["q", "p"]
    assert len(report) == 2


def test_equal_costs_are_in_the_order_of_their_labels() -> None:
    tracker = CostTracker()
    for agent in "cab":
        tracker.account(A, {"agent": agent}).book(Usage(), 0, START)
    assert [row["agent"] for row in tracker.report(("agent",))] == ["a", "b", "c"]


def test_no_calls_no_rows() -> None:
    assert CostTracker().report().to_dicts() == []
    assert (
        str(CostTracker().report(("agent",)))
        == "agent  requests  input_tokens  output_tokens  cached_input_tokens  cost\nNo calls."
    )
    assert CostTracker().total == 0


# ---------------------------------------------------------------- time


def at(hour: float) -> datetime:
    return datetime.fromtimestamp(START / 1000, timezone.utc) + timedelta(hours=hour)


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, None, 31),
        (at(1), None, 30),
        (at(1.9), None, 30),  # the hour that it lies in is included
        (None, at(1), 1),  # the hour that begins then is not
        (None, at(1.1), 3),
        (at(2), at(2), None),
        (at(2), at(3), 12),
        (at(9), None, None),
    ],
)
@pytest.mark.parametrize("kind", ["datetime", "epoch seconds", "another zone"])
def test_a_span_of_time(
    books: CostTracker, since: datetime | None, until: datetime | None, expected: int | None, kind: str
) -> None:
    def moment(value: datetime | None) -> float | datetime | None:
        if value is None or kind == "datetime":
            return value
        return value.timestamp() if kind == "epoch seconds" else value.astimezone(timezone(timedelta(hours=-7)))

    assert cents(books.report((), since=moment(since), until=moment(until))).get(()) == expected


def test_a_call_counts_when_it_was_admitted(manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter(clock=manual_clock)
    call = limiter.acquire("p:a")
    manual_clock.advance(3_600)
    call.settle(Usage(cost=0.05))
    assert cents(limiter.costs.report((), until=at(1))) == {(): 5}
    assert limiter.costs.report((), since=at(1)).to_dicts() == []


# ---------------------------------------------------------------- what is refused


def test_by_is_no_plain_text(books: CostTracker) -> None:
    with pytest.raises(ConfigError) as refused:
        books.report(by="agent")
    assert str(refused.value) == "by is 'agent': give a sequence of labels, for example ('agent',)."


@pytest.mark.parametrize("by", [5, None, [5], ("agent", None)])
def test_by_is_a_sequence_of_labels(books: CostTracker, by: Any) -> None:
    with pytest.raises(ConfigError, match=r"^by is .*: give a sequence of labels"):
        books.report(by=by)


@pytest.mark.parametrize("moment", ["2026-01-01", "5", float("nan"), float("inf"), [], True])
@pytest.mark.parametrize("end", ["since", "until"])
def test_a_moment_is_a_datetime_or_seconds(books: CostTracker, end: str, moment: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{end} is .*: give epoch seconds or a datetime"):
        books.report(**{end: moment})


@pytest.mark.parametrize("label", ["cost", "requests"])
def test_a_label_that_is_a_column_too_is_not_lost(label: str) -> None:
    """Either it is refused, or both are there to be told apart."""
    tracker = CostTracker()
    tracker.account(A, {label: "mine"}).book(Usage(), 0, START)
    try:
        rows = tracker.report((label,)).to_dicts()
    except ConfigError:
        return
    assert "mine" in rows[0].values()


# ---------------------------------------------------------------- text


def test_a_report_is_a_table(books: CostTracker) -> None:
    assert str(books.report(("provider", "agent"))) == (
        "provider  agent  requests  input_tokens  output_tokens  cached_input_tokens     cost\n"
        "q                       1            10              5                    3  $0.1600\n"
        "p         x             2            20             10                    6  $0.0900\n"
        "q         x             1            10              5                    3  $0.0400\n"
        "p         y             1            10              5                    3  $0.0200"
    )


def test_large_numbers_are_grouped() -> None:
    tracker = CostTracker()
    tracker.account(A, {}).book(Usage(1, 1_234_567), 1_234_500_000_000, START)
    assert "1,234,567" in str(tracker.report())
    assert "$1,234.5000" in str(tracker.report())
    assert repr(tracker) == "<CostTracker $1234.500000>"


# ---------------------------------------------------------------- through a limiter


def test_costs_come_from_prices_or_from_the_provider(manual_clock: ManualClock) -> None:
    prices = {"input_per_1m": 10, "output_per_1m": 30, "cached_input_per_1m": 1}
    limiter = MultiProviderLimiter(
        [Provider("p", {"a": {"rpm": 100, **prices}, "b": {"rpm": 100}})], clock=manual_clock
    )
    limiter.acquire("p:a").settle(Usage(input_tokens=1_000, output_tokens=100, cached_input_tokens=400))
    limiter.acquire("p:a").settle(Usage(input_tokens=1_000, cost=0.5))
    limiter.acquire("p:b").settle(Usage(input_tokens=1_000))
    limiter.acquire("p:b").settle(Usage(cost=0.25))
    limiter.acquire("p:a").cancel()
    assert [(row["model"], row["requests"], row["cost"]) for row in limiter.costs.report()] == [
        ("a", 2, 0.5094),
        ("b", 2, 0.25),
    ]
    assert limiter.snapshot().spend == limiter.costs.total == pytest.approx(0.7594)


def test_requests_count_what_was_sent(manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter([Provider("p", {"a": {"rpm": 100}})], clock=manual_clock)
    limiter.acquire("p:a", Estimate(requests=3)).settle()
    limiter.acquire("p:a", Estimate(requests=3)).settle(Usage(requests=2))
    limiter.acquire("p:a").fail(ConnectionRefusedError())
    limiter.acquire("p:a").fail(TimeoutError())
    assert limiter.costs.report(()).to_dicts()[0]["requests"] == 6


def test_threads_lose_nothing(manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter([Provider("p", {"a": {"rpm": 10**6}})], clock=manual_clock)

    def work(agent: str) -> None:
        with limiter.scope(agent=agent):
            for _ in range(500):
                limiter.acquire("p:a").settle(Usage(input_tokens=1, cost=0.001))

    threads = [threading.Thread(target=work, args=(str(number % 2),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [list(row.values()) for row in limiter.costs.report(("agent",))] == [
        ["0", 1_000, 1_000, 0, 0, 1.0],
        ["1", 1_000, 1_000, 0, 0, 1.0],
    ]


CALLS = st.lists(st.tuples(st.sampled_from([A, B]), st.sampled_from("xyz"), st.integers(0, 10**12), st.integers(0, 99)))


@given(CALLS, st.sets(st.sampled_from(["provider", "model", "agent", "run"])))
def test_no_grouping_loses_a_cent(calls: list[tuple[Target, str, int, int]], by: set[str]) -> None:
    tracker = CostTracker()
    for target, agent, nano, hour in calls:
        tracker.account(target, {"agent": agent}).book(Usage(input_tokens=nano), nano, START + hour * HOUR)
    rows = tracker.report(tuple(by)).to_dicts()
    assert sum(int(str(row["requests"])) for row in rows) == len(calls)
    assert sum(int(str(row["input_tokens"])) for row in rows) == sum(nano for _, _, nano, _ in calls)
    assert tracker.total == sum(nano for _, _, nano, _ in calls) / 10**9
