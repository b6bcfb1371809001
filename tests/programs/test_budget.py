"""A thousand concurrent calls never overspend a budget, and use it up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_rate_limiter import Budget, BudgetExceeded, Estimate, Usage
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.programs.spend_budget import BUDGET, Count, in_tasks, make_limiter

PROGRAM = Path(__file__).with_name("spend_budget.py")
CALLS = 1_000


def spend(store: str, kind: str, processes: int = 1, calls: int = CALLS) -> tuple[list[dict[str, Any]], str]:
    """Run the program in so many processes at once; return what each of them counted, and what they logged."""
    command = [sys.executable, str(PROGRAM), store, kind, str(calls // processes)]
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen([*command, str(seed)], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        for seed in range(processes)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0] * processes, [error for _, error in answers]
    return [json.loads(answer) for answer, _ in answers], "".join(log for _, log in answers)


def check(counts: list[dict[str, Any]], calls: int = CALLS) -> None:
    """All together spent at most the budget and at least 95 % of it, and the books say the same."""
    spent = sum(count["spent_nano"] for count in counts)
    assert 0.95 * BUDGET * 1e9 <= spent <= BUDGET * 1e9
    assert sum(count["served"] + count["refused"] for count in counts) == calls
    assert sum(count["refused"] for count in counts) > 0
    assert round(max(count["booked"] for count in counts) * 1e9) == spent  # they share their books, too
    assert round(min(count["free"] for count in counts) * 1e9) == round(BUDGET * 1e9) - spent


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_a_thousand_calls_in_a_real_program(kind: str) -> None:
    check(spend("memory://", kind)[0])


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_a_thousand_calls_in_four_processes(kind: str, tmp_path: Path) -> None:
    counts, log = spend(f"sqlite:///{tmp_path}/limits.db", kind, processes=4)
    check(counts)
    assert sorted(line.partition(": ")[2].partition(" is used")[2] for line in log.splitlines()) == [
        ", past 80%.",  # each alert by one of the four
        ": it is exhausted.",
    ]


@pytest.mark.parametrize(
    "budget",
    [
        Budget(BUDGET),
        Budget(BUDGET, "month", timezone="Asia/Tokyo"),
        Budget(BUDGET, None),
        Budget(BUDGET, rolling=True),
    ],
    ids=lambda budget: budget.as_limit().name,
)
def test_a_thousand_tasks_in_virtual_time(budget: Budget, manual_clock: ManualClock) -> None:
    limiter = make_limiter(budgets=[budget], clock=manual_clock)
    count = Count()
    run_virtual(in_tasks(limiter, count, CALLS, 7), manual_clock)
    (status,) = [limit for limit in limiter.snapshot().limits if limit.owner == "budget"]
    count.booked, count.free = limiter.costs.total, status.available
    check([json.loads(count.as_json())])


def test_what_is_spent_survives_a_restart_and_nobody_is_told_twice(tmp_path: Path, manual_clock: ManualClock) -> None:
    told: list[str] = []

    def run(dollars: float, budget: float = 1.0, *, rolling: bool = False) -> float:
        """A program that spends, says what is left, and ends."""
        limiter = make_limiter(
            budgets=[Budget(budget, "day", timezone="Asia/Tokyo", rolling=rolling)],
            store=f"sqlite:///{tmp_path}/limits.db",
            clock=manual_clock,
            on_alert=lambda alert: told.append(alert.kind),
        )
        try:
            with limiter:
                limiter.acquire("p:m", Estimate(cost=dollars)).settle(Usage(cost=dollars))
                (status,) = [limit for limit in limiter.snapshot().limits if limit.owner == "budget"]
        finally:
            assert limiter.alerts.flush()
        return round(status.available, 6)

    assert [run(0.85), run(0.05), run(0.05, budget=2.0)] == [0.15, 0.1, 1.05]
    assert told == ["threshold", "pace"]
    manual_clock.advance(15 * 3_600 - 1)  # one second to midnight in Tokyo
    with pytest.raises(BudgetExceeded):
        run(0.1)
    manual_clock.advance(1)
    assert [run(0.4), run(0.45)] == [0.6, 0.15]
    assert told == ["threshold", "pace", "exhausted", "threshold"]
    assert [run(0.4, rolling=True), run(0.1, rolling=True)] == [0.6, 0.5]
    manual_clock.advance(86_400 + 1_440)
    assert run(0.1, rolling=True) == 0.9
