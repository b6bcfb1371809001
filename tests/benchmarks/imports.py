"""What the import costs, beside pydantic's: in fresh processes, taking turns."""

from __future__ import annotations

import subprocess
import sys

from tests.benchmarks.measure import Contender, Turn, interleave
from tests.benchmarks.report import Goal, Report, Table

ABOUT = "the import statement alone, in fresh processes that take turns, files in the cache"
OURS, THEIRS = "import agent_rate_limiter", "import pydantic"
STATEMENTS = (
    OURS,
    THEIRS,
    "from agent_rate_limiter import RateLimiter",
    "from agent_rate_limiter import MultiProviderLimiter, Provider",
    "from pydantic import BaseModel",
)


def run(*, quick: bool) -> Report:
    """Time each statement."""
    contenders = {statement: Contender(statement, _import(statement)) for statement in STATEMENTS}
    for contender in contenders.values():
        contender.turn(1)  # compiles what was not compiled yet
    rounds = 15 if quick else 25
    interleave(list(contenders.values()), rounds)
    beside = contenders[THEIRS]
    columns = {"statement": "", "ms": ".1f", "spread": "", "x import pydantic": ".2f", "by rounds": ".2f"}
    rows: list[list[str | float | None]] = [
        [it.name, it.median * 1000, f"±{it.spread:.0%}", it.times_in_median(beside), it.times(beside)]
        for it in contenders.values()
    ]
    report = Report("imports", ABOUT, [Table("imports", columns, rows)])
    report.notes.append(f"{rounds} rounds; both roots import lazily, so the other lines show what a first use costs.")
    report.goals.append(Goal(f"`{OURS}` beside `{THEIRS}`", contenders[OURS].times(beside), 1.3))
    return report


def _import(statement: str) -> Turn:
    code = f"from time import perf_counter as now; start = now(); {statement}; print(now() - start)"

    def turn(_: int) -> float:
        done = subprocess.run(
            [sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True, timeout=60
        )
        return float(done.stdout)

    return turn
