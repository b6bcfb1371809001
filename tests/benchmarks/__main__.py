"""`python -m tests.benchmarks [name …] [--quick] [--no-goals] [--json FILE]`: exit code 1 if a goal is missed."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import progress
from tests.benchmarks.report import Goal, Report

NAMES = ("hot_path", "entries", "waiting", "imports", "fairness", "deadlines", "ledger", "storm", "stores")
LONG = ("processes", "fleet", "chaos", "frameworks")
"""Run by name only: they take minutes, or need the frameworks (`make bench-frameworks`)."""


def main() -> int:
    """Run what was asked for, and say how it went."""
    options = _options()
    machine = _machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    reports = [_run(name, quick=options.quick) for name in options.names or NAMES]
    if options.json:
        found = {"machine": machine, "quick": options.quick, "benchmarks": [report.as_data() for report in reports]}
        options.json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    missed = _sum_up([goal for report in reports for goal in report.goals])
    return 1 if missed and not options.no_goals else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"which of {', '.join(NAMES)} (all unless said), {', '.join(LONG)}"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a measurement")
    parser.add_argument("--no-goals", action="store_true", help="exit with 0 even if a goal is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    options = parser.parse_args()
    for name in options.names:
        if name not in NAMES + LONG:
            parser.error(f"no benchmark is called {name!r}: choose from {', '.join(NAMES + LONG)}")
    return options


def _run(name: str, *, quick: bool) -> Report:
    progress(name)
    report: Report = import_module(f"tests.benchmarks.{name}").run(quick=quick)
    progress("")
    print(f"\n{report}", flush=True)
    return report


def _sum_up(goals: list[Goal]) -> int:
    missed = sum(goal.met is False for goal in goals)
    unmeasured = sum(goal.met is None for goal in goals)
    kept = len(goals) - missed - unmeasured
    print(f"\n{kept} of {len(goals)} goals kept, {missed} missed, {unmeasured} not measured")
    return missed


def _machine() -> dict[str, Any]:
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        platform.python_implementation(): platform.python_version(),
        "on": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load before": load,
    }


if __name__ == "__main__":
    sys.exit(main())
