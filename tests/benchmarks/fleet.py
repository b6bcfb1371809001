"""A fleet of processes calls one provider through the real OpenAI SDK, by each library in turn."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agent_rate_limiter.testing import SimulatedProvider
from tests.benchmarks.fleet_limits import LIBRARIES, MODEL, REQUESTS, THREADS, TOKENS, Member
from tests.benchmarks.measure import progress
from tests.benchmarks.report import Goal, Report, Table
from tests.contract.opened import server

ABOUT = "processes share one key: what the provider refuses, what fails, how much of the limits is used"
PROCESSES = 8
OURS, PYTHON_312 = "ours", "token-throttle"
PATIENCE = 120


def run(*, quick: bool) -> Report:
    """Let each library limit the fleet."""
    seconds = 10.0 if quick else 30.0
    names = [name for name in LIBRARIES if name != PYTHON_312 or find_spec("token_throttle")]
    rows = {name: _fleet(name, seconds) for name in names}
    columns = {"by": "", "calls done": ",d", "calls failed": ",d", "429s": ",d", "refused": ".1%", "limit used": ".1%"}
    what = f"{PROCESSES} processes of {THREADS} threads, {REQUESTS} requests and {TOKENS:,} tokens a minute"
    report = Report("fleet", ABOUT, [Table(f"{what}, for {seconds:g} s", columns, list(rows.values()))])
    _, _, failed, _, refused, used = rows[OURS]
    report.goals += [
        Goal("ours: calls that failed", failed, 0, unit=""),  # type: ignore[arg-type]
        Goal("ours: share that the provider refused", refused, 0.01, unit=""),  # type: ignore[arg-type]
        Goal("ours: share of the limits used", used, 0.9, at_least=True, unit=""),  # type: ignore[arg-type]
    ]
    report.notes += [
        "Calls of 60 to 1,900 tokens, answered at once. The provider's limits are everybody's; it charges the larger",
        "of prompt and max_tokens (as OpenAI does), and so does everybody. Calls by others are retried twice.",
        "limit used: of the tokens, or the requests, that the provider would have let through in that time.",
        "token-throttle (which needs Python 3.12) is left out where it is not installed.",
    ]
    return report


def _fleet(name: str, seconds: float) -> list[str | float | None]:
    progress(name)
    folder = Path(tempfile.mkdtemp())
    limits: Any = {"rpm": REQUESTS, "tpm": TOKENS}
    with SimulatedProvider({MODEL: limits}) as provider:
        members = [
            Member(name, server("redis").port, provider.openai_url, number, seconds, str(folder / "go"))
            for number in range(PROCESSES)
        ]
        found = _together(members, folder)
        report = provider.report()
    done, failed = (sum(counts[key] for counts in found) for key in ("done", "failed"))
    refused = report.refused / max(1, report.received)
    return [name, done, failed, report.refused, refused, report[MODEL].used_share]


def _together(members: list[Member], folder: Path) -> list[dict[str, int]]:
    command = [sys.executable, "-m", "tests.benchmarks.fleet_limits"]
    running = [subprocess.Popen([*command, json.dumps(vars(member))], stdout=subprocess.PIPE) for member in members]
    try:
        deadline = time.monotonic() + PATIENCE
        while len(list(folder.iterdir())) < len(members):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (folder / "go").touch()
        return [json.loads(process.communicate(timeout=PATIENCE)[0]) for process in running]
    finally:
        for process in running:
            process.kill()
