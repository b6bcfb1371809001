"""A thousand concurrent calls never overspend a budget, and use it up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_rate_limiter import Budget
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.programs.spend_budget import BUDGET, Count, in_tasks, make_limiter

PROGRAM = Path(__file__).with_name("spend_budget.py")
CALLS = 1_000


def spend(store: str, kind: str, processes: int = 1, calls: int = CALLS) -> list[dict[str, Any]]:
    """Run the program in so many processes at once; return what each of them counted."""
    command = [sys.executable, str(PROGRAM), store, kind, str(calls // processes)]
    running = [
        subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for seed in range(processes)
    ]
    answers = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0] * processes, [error for _, error in answers]
    return [json.loads(answer) for answer, _ in answers]


def check(counts: list[dict[str, Any]], calls: int = CALLS) -> None:
    """All together spent at most the budget and at least 95 % of it, and the books say the same."""
    spent = sum(count["spent_nano"] for count in counts)
    assert 0.95 * BUDGET * 1e9 <= spent <= BUDGET * 1e9
    assert sum(count["served"] + count["refused"] for count in counts) == calls
    assert all(count["refused"] for count in counts)
    for count in counts:
        assert round(count["booked"] * 1e9) == count["spent_nano"]
    assert round(min(count["free"] for count in counts) * 1e9) == round(BUDGET * 1e9) - spent


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_a_thousand_calls_in_a_real_program(kind: str) -> None:
    check(spend("memory://", kind))


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
    limiter = make_limiter(budget_limit=None, budgets=[budget], clock=manual_clock)
    count = Count()
    run_virtual(in_tasks(limiter, count, CALLS, 7), manual_clock)
    (status,) = [limit for limit in limiter.snapshot().limits if limit.owner == "budget"]
    count.booked, count.free = limiter.costs.total, status.available
    check([json.loads(count.as_json())])
