"""Many processes on one limit: how exactly it is kept, how much of it is used, what a provider refuses."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from agent_rate_limiter.testing import SimulatedProvider
from tests.benchmarks.measure import progress
from tests.benchmarks.report import Goal, Report, Table
from tests.contract.opened import SHARED
from tests.programs.shared import Worker, slowest_share, worst_excess
from tests.programs.shared import run as run_workers

ABOUT = "4 and 16 processes draw on one limit, and call a simulated provider that has the same one"
RATE, BURST = 100, 20
SLICE, SHORT = 1.0, 0.2
"""Seconds of its rate that a provider lets through at once: the shortest that one documents (Azure; Anthropic's example
of 60 a minute as 1 a second), and a fifth of it, which forgives calls that come a tenth of a second late."""
COLUMNS = {
    "store": "",
    "processes": "d",
    "admitted": ",d",
    "above the limit": ".2f",
    "used": ".1%",
    "fewest": "d",
    "most": "d",
    "refused": ".2%",
    "by the strict one": ".2%",
}


def run(*, quick: bool) -> Report:
    """Measure every store."""
    report = Report("processes", ABOUT)
    seconds = 3.0 if quick else 10.0
    rows = [_row(name, count, seconds, report) for name in SHARED for count in (4, 16)]
    report.tables.append(Table(f"{RATE} requests/second, {BURST} at once, for {seconds:g} s", COLUMNS, rows))
    report.notes += [
        "above the limit: calls beyond burst + refill in the worst window, by the time at which each was taken.",
        "used: what was admitted after the burst, of what the limit let through in that time.",
        "fewest, most: calls of any one process.",
        "refused: by a provider of this rate that lets a second's calls through at once, asked with half of it;",
        f"by the strict one: it lets {SHORT:g} s of them through, less than any provider documents.",
    ]
    return report


def _row(name: str, count: int, seconds: float, report: Report) -> list[str | float | None]:
    progress(f"{name}, {count} processes")
    folder = Path(tempfile.mkdtemp())
    limit = {"resource": "requests", "amount": RATE, "per": 1.0, "burst": BURST}
    uri = SHARED[name](folder)
    workers = [Worker(uri, str(folder / f"{n}.log"), limit, seconds, 6) for n in range(count)]
    moments = run_workers(workers, 120)
    share, strict = (_refused(folder / f"{slice_}", name, count, seconds, slice_) for slice_ in (SLICE, SHORT))
    logs = [worker.log for worker in workers]
    above = max(0.0, round(worst_excess(moments, BURST, RATE), 3))
    used = (len(moments) - BURST) / (RATE * (moments[-1] - moments[0]))
    what = f"{name}, {count} processes"
    report.goals += [
        Goal(f"{what}: calls above the limit in any window", above, 0, unit=""),
        Goal(f"{what}: share of the limit used", used, 0.9, at_least=True, unit=""),
        Goal(f"{what}: share that the provider refused", share, 0.01, unit=""),
        Goal(f"{what}: share that the strict one refused", strict, 0.01, unit=""),
    ]
    return [name, count, len(moments), above, used, *slowest_share(logs), share, strict]


def _refused(folder: Path, name: str, count: int, seconds: float, slice_: float) -> float:
    """Return the share of calls that a provider with the same rate refuses, sent through wrapped clients.

    The limiter's burst is half of the provider's: calls arrive later than they were admitted, some more than others.
    """
    folder.mkdir()
    limit = {"resource": "requests", "amount": RATE, "per": 1.0, "burst": round(RATE * slice_ / 2)}
    models: Any = {"gpt-4": {"rpm": RATE * 60, "slices": (slice_,), "output_tokens": 5}}
    with SimulatedProvider(models) as provider:
        uri = SHARED[name](folder)
        url = provider.openai_url
        run_workers([Worker(uri, str(folder / f"{n}"), limit, seconds, 6, provider=url) for n in range(count)], 180)
        report = provider.report()
    return report.refused / max(1, report.received)
