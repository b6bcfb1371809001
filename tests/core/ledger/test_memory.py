"""The ledger in memory is bounded, and no nano-dollar of its sums is lost."""

from __future__ import annotations

import pytest

from agent_rate_limiter import CostTracker, Price, Usage
from agent_rate_limiter.ledger import memory
from agent_rate_limiter.testing import ManualClock

MILLION = Usage(input_tokens=10**6)


@pytest.fixture
def costs(manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> CostTracker:
    monkeypatch.setattr(memory, "CELLS", 100)
    monkeypatch.setattr(memory, "ROWS", 50)
    return CostTracker(prices={"p:a": Price(1, 1)}, clock=manual_clock)


def cells(costs: CostTracker) -> int:
    ledger = costs._ledger
    assert isinstance(ledger, memory.MemoryLedger)
    counted = sum(len(period) for kept in (ledger._hours, ledger._days) for period in kept.values())
    assert counted == ledger._cells
    return counted


def dollars(costs: CostTracker, *by: str, every: str | None = None) -> dict[str, float]:
    report = costs.report(by, every=every)
    return {" ".join(str(row[name]) for name in report.by): float(str(row["cost"])) for row in report}


def test_rows_are_the_last_ones(costs: CostTracker) -> None:
    for number in range(80):
        costs.record("p:a", Usage(input_tokens=number))
    assert [row["input_tokens"] for row in costs.rows()] == list(range(79, 29, -1))
    assert costs.report().to_dicts()[0]["requests"] == 80


def test_the_oldest_hours_become_days(costs: CostTracker, manual_clock: ManualClock) -> None:
    for hour in range(24 * 20):
        costs.record("p:a", MILLION, agent="xy"[hour % 2], run=hour)
        manual_clock.advance(3_600)
    assert costs.total == 480
    assert cells(costs) <= 100
    assert dollars(costs, "agent") == {"x": 240, "y": 240}  # days keep agents, and no runs
    assert dollars(costs, every="day") == {f"2026-01-{day:02}": 24.0 for day in range(1, 21)}
    assert dollars(costs, "run")["479"] == 1


def test_then_the_oldest_days_lose_their_labels(costs: CostTracker, manual_clock: ManualClock) -> None:
    for day in range(10):
        for ticket in range(30):
            costs.record("p:a", MILLION, ticket=f"{day}-{ticket}")
        manual_clock.advance(86_400)
    assert costs.total == 300
    assert cells(costs) <= 100
    assert dollars(costs, every="day") == {f"2026-01-{day:02}": 30.0 for day in range(1, 11)}
    assert dollars(costs, "ticket")["9-29"] == 1


def test_a_flood_of_labels_within_an_hour(costs: CostTracker) -> None:
    for number in range(1_000):
        costs.record("p:a", MILLION, ticket=number)
        costs.record("p:a", MILLION, agent="x")  # whose sums move, too
    assert costs.total == 2_000
    assert cells(costs) <= 100
    assert dollars(costs, "provider") == {"p": 2_000}
