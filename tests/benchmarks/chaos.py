"""Processes that are killed, and a Redis that is paused, restarted or slow: what holds, and how long it takes."""

from __future__ import annotations

import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import redis

from agent_rate_limiter import CostTracker, Limit, LimitExceeded, RateLimiter, Resource, StoreUnavailable
from tests.benchmarks.measure import progress
from tests.benchmarks.report import Goal, Report, Table
from tests.contract.opened import SHARED
from tests.contract.servers import Server, binaries
from tests.programs.shared import Worker, admitted, worst_excess

ABOUT = "a worker is killed each second; then Redis is paused, restarted without its data, and slow"
WORKERS, SLOTS, RATE, BURST, CALL, LEASE = 6, 5, 60, 10, 0.01, 2.0
"""Processes, calls at once, calls a second, burst, dollars, seconds."""


def run(*, quick: bool) -> Report:
    """Do all of it."""
    report = Report("chaos", ABOUT)
    seconds = 8 if quick else 30
    columns = {
        "store": "",
        "killed": "d",
        "admitted": ",d",
        "most at once": "d",
        "acknowledged": ",d",
        "in the ledger": ",d",
        "slots back s": ".1f",
    }
    rows = [_holding(name, seconds, report) for name in SHARED]
    report.tables.append(
        Table(f"{WORKERS} workers, {SLOTS} at once, lease {LEASE:g} s, one killed a second", columns, rows)
    )
    columns = {
        "store": "",
        "killed": "d",
        "admitted": ",d",
        "above the rate": ".2f",
        "used": ".0%",
        "budget $": ".2f",
        "spent $": ".4f",
        "charged $": ".4f",
    }
    rows = [_spending(name, seconds, report) for name in SHARED]
    report.tables.append(
        Table(f"{WORKERS} workers, {RATE}/s, until the budget is spent, one killed a second", columns, rows)
    )
    lost = [_losses(policy, 3.0 if quick else 10.0, report) for policy in ("fail_closed", "fail_open", "local")]
    heads = {
        "policy": "",
        "before": "d",
        "paused": "d",
        "refused": "d",
        "restarted": "d",
        "slow": "d",
        "longest call s": ".2f",
        "longest slow s": ".2f",
    }
    report.tables.append(Table("one process at 50 requests/second while Redis is paused, restarted, slow", heads, lost))
    report.notes.append(
        "before, paused, restarted, slow: calls admitted in that phase; refused: with StoreUnavailable."
    )
    return report


# -- killings --------------------------------------------------------------------------------------------------


@dataclass
class Workers:
    """Processes that are killed one after the other, and replaced.

    Args:
        folder: for their logs.
        make: makes the worker that writes a log.
    """

    folder: Path
    make: Callable[[str], Worker]
    logs: list[str] = field(default_factory=list[str])
    died: dict[str, float] = field(default_factory=dict[str, float])
    running: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list[Any])

    def start(self) -> None:
        """Start one more."""
        log = str(self.folder / f"{len(self.logs)}.log")
        self.logs.append(log)
        self.running.append((log, self.make(log).start()))

    def kill(self) -> None:
        """Kill any of them."""
        log, process = self.running.pop(random.randrange(len(self.running)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.died[log] = time.time()

    def suffer(self, seconds: int, done: Callable[[], bool] = lambda: False) -> None:
        """Kill one each second; in the end, all of them."""
        for _ in range(WORKERS):
            self.start()
        try:
            for _ in range(seconds):
                time.sleep(1)
                if done():
                    return
                self.kill()
                self.start()
        finally:
            while self.running:
                self.kill()

    @property
    def moments(self) -> list[float]:
        """When each call was admitted, in order."""
        return sorted(moment for log in self.logs for moment in admitted(log))


def _holding(name: str, seconds: int, report: Report) -> list[str | float | None]:
    progress(f"{name}: killings")
    folder = Path(tempfile.mkdtemp())
    uri, ledger = SHARED[name](folder), f"sqlite:///{folder / 'ledger.db'}"
    limits = [{"resource": "concurrency", "amount": SLOTS}]
    options = {"lease": LEASE, "ledger": ledger}
    workers = Workers(folder, lambda log: Worker(uri, log, limits, 600, 3, holding=0.03, options=options, cost=CALL))
    workers.suffer(seconds)
    back = _slots_back(uri, limits)
    acknowledged = sum(len(admitted(log, "=")) for log in workers.logs)
    booked = CostTracker(ledger)
    kept = int(str(booked.report(by=()).to_dicts()[0]["requests"]))
    booked.close()
    most = _most_at_once(workers.logs, workers.died)
    report.goals += [
        Goal(f"{name}: calls at once", most, SLOTS, unit=""),
        Goal(f"{name}: the same", most, SLOTS, at_least=True, unit=""),
        Goal(f"{name}: acknowledged calls that the ledger misses", max(0, acknowledged - kept), 0, unit=""),
        Goal(f"{name}: acknowledged calls", acknowledged, SLOTS * seconds, at_least=True, unit=""),
        Goal(f"{name}: seconds until all slots are back", back, LEASE + 1.5, unit=""),
    ]
    return [name, len(workers.died), len(workers.moments), most, acknowledged, kept, back]


def _spending(name: str, seconds: int, report: Report) -> list[str | float | None]:
    """Kill until the budget is spent: by calls that cost a part of what they reserved, or all of it if they died."""
    progress(f"{name}: spending")
    folder = Path(tempfile.mkdtemp())
    uri, budget = SHARED[name](folder), CALL * RATE * seconds / 4
    limits = [
        {"resource": "requests", "amount": RATE, "per": 1.0, "burst": BURST},
        {"resource": "cost", "amount": budget, "per": None, "name": "budget"},
    ]
    options = {"lease": LEASE, "ledger": "memory://"}
    workers = Workers(
        folder, lambda log: Worker(uri, log, limits, 600, 3, 0.03, options=options, cost=CALL, saving=True)
    )
    witness = RateLimiter([Limit(**limit) for limit in limits], target="openai:gpt-4", store=uri, ledger="memory://")  # type: ignore[arg-type]
    workers.suffer(3 * seconds, lambda: _left(witness) < CALL)
    time.sleep(LEASE + 1)  # until the dead are charged
    moments = workers.moments
    paid = [dollars for log in workers.logs for dollars in admitted(log, "$")]
    spent = sum(paid) + (len(moments) - len(paid)) * CALL  # who died may have spent all that it had reserved
    charged, above = budget - _left(witness), max(0.0, round(worst_excess(moments, BURST, RATE), 3))
    used = (len(moments) - BURST) / (RATE * (moments[-1] - moments[0]))
    report.goals += [
        Goal(f"{name}: calls above the rate, workers being killed", above, 0, unit=""),
        Goal(f"{name}: share of the rate used, workers being killed", used, 0.5, at_least=True, unit=""),
        Goal(f"{name}: dollars spent", spent, charged + 1e-9, unit=""),
        Goal(f"{name}: dollars charged", charged, budget + 1e-9, unit=""),
        Goal(f"{name}: the same", charged, budget - CALL, at_least=True, unit=""),
    ]
    return [name, len(workers.died), len(moments), above, used, budget, spent, charged]


def _left(limiter: RateLimiter) -> float:
    limiter.try_acquire(requests=0)
    return next(limit.available for limit in limiter.snapshot().limits if limit.resource == "cost")


def _slots_back(uri: str, limits: list[dict[str, Any]]) -> float:
    """Return how long it takes until every slot can be taken again."""
    limiter = RateLimiter([Limit(**limit) for limit in limits], target="openai:gpt-4", store=uri, ledger="memory://")
    start = time.monotonic()
    held = [limiter.acquire(timeout=60) for _ in range(SLOTS)]
    seconds = time.monotonic() - start
    for call in held:
        call.cancel()
    return seconds


def _most_at_once(logs: list[str], died: dict[str, float]) -> int:
    events: list[tuple[float, int]] = []
    for log in logs:
        begun, ended = admitted(log), admitted(log, "-")
        events += [(moment, 1) for moment in begun] + [(moment, -1) for moment in ended]
        events += [(died[log], -1)] * (len(begun) - len(ended))
    most = now = 0
    for _, change in sorted(events):
        now += change
        most = max(most, now)
    return most


# -- losses ----------------------------------------------------------------------------------------------------


@dataclass
class Caller:
    """Makes calls in a thread, all the time, and counts by phase what becomes of them."""

    limiter: RateLimiter
    phase: str = "before"
    admitted: dict[str, int] = field(default_factory=dict[str, int])
    refused: dict[str, int] = field(default_factory=dict[str, int])
    longest: dict[str, float] = field(default_factory=dict[str, float])
    running: bool = True

    def work(self) -> None:
        """Call until told to stop."""
        while self.running:
            phase, start, counted = self.phase, time.monotonic(), self.admitted
            try:
                self.limiter.acquire(timeout=0.5).settle()
            except StoreUnavailable:
                counted = self.refused
                time.sleep(0.01)
            except LimitExceeded:
                counted = {}
            counted[phase] = counted.get(phase, 0) + 1
            self.longest[phase] = max(self.longest.get(phase, 0.0), time.monotonic() - start)


def _losses(policy: str, pause: float, report: Report) -> list[str | float | None]:
    progress(f"{policy}: losses")
    own = Server(next(iter(binaries().values())))
    limit = Limit(Resource.REQUESTS, 50, per=1, burst=5)
    limiter = RateLimiter(limit, store=own.uri, on_store_error=policy, ledger="memory://")
    caller = Caller(limiter)
    thread = Thread(target=caller.work)
    thread.start()
    time.sleep(2)
    _phase(caller, "paused", lambda: own.send(signal.SIGSTOP), pause, lambda: own.send(signal.SIGCONT))
    _phase(caller, "gone", own.stop, 2, own.start)
    time.sleep(2.5)  # until it is tried again
    _phase(caller, "restarted", lambda: None, 4, lambda: None)
    _phase(caller, "slow", lambda: None, 0, lambda: _slow(own, 4))
    caller.running = False
    thread.join()
    own.stop()
    _judge(report, policy, pause, caller)
    paused = caller.admitted.get("paused", 0)
    counts = [caller.admitted.get(phase, 0) for phase in ("restarted", "slow")]
    refused = sum(caller.refused.values())
    longest = max(seconds for phase, seconds in caller.longest.items() if phase != "slow")
    return [policy, caller.admitted["before"], paused, refused, *counts, longest, caller.longest["slow"]]


def _phase(caller: Caller, name: str, begin: Callable[[], object], seconds: float, end: Callable[[], object]) -> None:
    begin()
    time.sleep(1.5 if name in {"paused", "gone"} else 0.0)  # what was under way has ended, and the loss is known
    caller.phase = name
    time.sleep(seconds)
    end()
    caller.phase = "between"
    time.sleep(6 if name == "paused" else 0.5)


def _slow(own: Server, seconds: float) -> None:
    client: Any = redis.Redis(port=own.port)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        client.execute_command("CLIENT", "PAUSE", 200)
        time.sleep(0.4)


def _judge(report: Report, policy: str, pause: float, caller: Caller) -> None:
    paused, again = caller.admitted.get("paused", 0), caller.admitted.get("restarted", 0)
    most = {"fail_closed": 0, "fail_open": float("inf"), "local": 50 * (pause + 2) + 5}[policy]
    report.goals += [
        Goal(f"{policy}: the longest that any call took, seconds", max(caller.longest.values()), 2.5, unit=""),
        Goal(f"{policy}: calls admitted while Redis was paused", paused, most, unit=""),
    ]
    if policy != "fail_open":  # what that has let through is owed for as long as it takes
        report.goals += [
            Goal(f"{policy}: calls admitted in the 4 s after its restart", again, 150, at_least=True, unit=""),
            Goal(f"{policy}: the same", again, 50 * 4.6 + 5, unit=""),
        ]
    if policy != "fail_closed":
        report.goals.append(Goal(f"{policy}: calls refused by loss", sum(caller.refused.values()), 0, unit=""))
