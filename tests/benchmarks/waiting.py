"""Ten thousand tasks, or a thousand threads, that wait for one limiter."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from statistics import median

from tests.benchmarks.crowds import Found
from tests.benchmarks.measure import progress
from tests.benchmarks.report import Goal, Report, Table

ABOUT = "a crowd that waits for one limiter (RPM, TPM, budget), beside a bare heap of futures with a single timer"
TASKS, THREADS = 10_000, 1_000
BARE, LIMITER, WITH_TIMEOUTS = "bare heap", "limiter", "limiter, a timeout each"
IDLE_CORE = 0.01
"""The most of a core that waiting may use."""

ROOT = Path(__file__).parents[2]

Runs = dict[str, list[Found]]
"""Who → what each round found."""


def run(*, quick: bool) -> Report:
    """Let crowds wait in fresh processes that take turns."""
    rounds = 3 if quick else 9
    memory = _rounds(1, "memory", TASKS, {BARE: "bare memory", LIMITER: "limiter memory"})
    tasks = _rounds(rounds, f"{TASKS:,} tasks", TASKS, {
        BARE: "bare tasks", LIMITER: "limiter tasks", WITH_TIMEOUTS: "limiter timeouts",
    })  # fmt: skip
    threads = _rounds(rounds, f"{THREADS:,} threads", THREADS, {BARE: "bare threads", LIMITER: "limiter threads"})
    report = Report("waiting", ABOUT, [_task_table(memory, tasks), _thread_table(threads)])
    report.goals += [*_task_goals(memory, tasks), *_thread_goals(threads)]
    report.notes += [
        f"{rounds} rounds in fresh processes, medians; x: the median of each round's ratio to the bare heap.",
        "KB a waiter: what Python allocates (tracemalloc) and what the process grows by (resident), its task included.",
        "release: from giving back what they wait for until all have gone on. idle: CPU while all wait, of one core.",
    ]
    return report


def _rounds(rounds: int, title: str, size: int, members: dict[str, str]) -> Runs:
    runs: Runs = {name: [] for name in members}
    for number in range(rounds):
        for name, command in members.items():
            progress(f"{title}: {name}, round {number + 1} of {rounds}")
            runs[name].append(_measured(command, size))
    return runs


def _measured(command: str, size: int) -> Found:
    parts = [sys.executable, "-m", "tests.benchmarks.crowds", *command.split(), str(size)]
    done = subprocess.run(parts, check=True, stdout=subprocess.PIPE, text=True, timeout=120, cwd=ROOT)
    found: Found = json.loads(done.stdout)
    return found


def _typical(runs: Runs, name: str, field: str) -> float:
    return median(found[field] for found in runs[name])


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def _times(runs: Runs, name: str, field: str) -> float:
    """How many times as much as the bare heap, compared round by round."""
    return median(mine[field] / bare[field] for mine, bare in zip(runs[name], runs[BARE], strict=True))


def _task_table(memory: Runs, tasks: Runs) -> Table:
    columns = {
        f"{TASKS:,} tasks": "", "KB a waiter": ".2f", "resident": ".2f", "gather ms": ".0f", "release ms": ".0f",
        "x release": ".1f", "timers": ".0f", "idle": ".2%", "misplaced": ".0f",
    }  # fmt: skip
    rows: list[list[str | float | None]] = [
        [
            name,
            _typical(memory, name, "bytes") / 1000 if name in memory else None,
            _known(_typical(tasks, name, "resident") / 1000),
            _typical(tasks, name, "gathered") * 1000,
            _typical(tasks, name, "released") * 1000,
            _times(tasks, name, "released"),
            *(_typical(tasks, name, field) for field in ("timers", "idle", "misplaced")),
        ]
        for name in tasks
    ]
    return Table("tasks of one event loop, four priorities", columns, rows)


def _thread_table(threads: Runs) -> Table:
    columns = {
        f"{THREADS:,} threads": "", "gather ms": ".0f", "release ms": ".0f", "x release": ".1f", "idle": ".2%",
        "misplaced": ".0f",
    }  # fmt: skip
    rows: list[list[str | float | None]] = [
        [
            name,
            _typical(threads, name, "gathered") * 1000,
            _typical(threads, name, "released") * 1000,
            _times(threads, name, "released"),
            _typical(threads, name, "idle"),
            _typical(threads, name, "misplaced") if name != BARE else None,  # nobody notes whom it lets go first
        ]
        for name in threads
    ]
    return Table("threads, four priorities", columns, rows)


def _task_goals(memory: Runs, tasks: Runs) -> list[Goal]:
    resident = _known(_times(tasks, LIMITER, "resident"))
    return [
        Goal("memory of a waiting task, allocated", _times(memory, LIMITER, "bytes"), 2),
        Goal("memory of a waiting task, resident", resident, 2, why="This system does not tell."),
        Goal("time to release all tasks", _times(tasks, LIMITER, "released"), 3),
        Goal("timers while tasks wait", _worst(tasks, "timers"), 1, unit=""),
        Goal("CPU while tasks wait", _worst(tasks, "idle") * 100, IDLE_CORE * 100, unit=" % of a core"),
        Goal("tasks out of order (priority, then arrival)", _worst(tasks, "misplaced"), 0, unit=""),
    ]


def _thread_goals(threads: Runs) -> list[Goal]:
    return [
        Goal("CPU while threads wait", _worst(threads, "idle") * 100, IDLE_CORE * 100, unit=" % of a core"),
        Goal("threads out of order (priority, then arrival)", _worst(threads, "misplaced"), 0, unit=""),
    ]


def _worst(runs: Runs, field: str) -> float:
    return max(found[field] for name, found_by in runs.items() if name != BARE for found in found_by)
