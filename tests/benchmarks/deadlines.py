"""How long it takes to refuse a call that cannot be admitted in time."""

from __future__ import annotations

import asyncio
from time import thread_time

from agent_rate_limiter import AllTargetsFailed, LimitExceeded, MultiProviderLimiter, Provider
from tests.benchmarks.report import Goal, Report, Table

ABOUT = "calls whose deadline cannot be met, among a thousand that wait: refused at once (thread CPU time)"
WAITING = 1_000
TARGETS = ("a:m", "b:m", "c:m")


def run(*, quick: bool) -> Report:
    """Refuse calls to one target, and to three of which none is free in time."""
    calls = 200 if quick else 2_000
    report = Report("deadlines", ABOUT)
    rows: list[list[str | float | None]] = []
    for name, fallbacks in (("one target", ()), ("three targets", TARGETS[1:])):
        spent = sorted(asyncio.run(_refusals(fallbacks, calls)))
        p99 = 1_000 * spent[int(0.99 * len(spent))]
        rows.append([name, 1_000 * spent[len(spent) // 2], p99])
        report.goals.append(Goal(f"p99 of a refusal, {name}", p99, 5, unit=" ms"))
    columns = {f"acquire(timeout=5), {calls:,} times": "", "median ms": ".3f", "p99 ms": ".3f"}
    report.tables.append(Table(f"refusals, {WAITING:,} calls waiting", columns, rows))
    return report


async def _refusals(fallbacks: tuple[str, ...], calls: int) -> list[float]:
    limiter = MultiProviderLimiter([Provider(target[0], {"m": {"rpm": 60}}) for target in TARGETS])
    for target in TARGETS:
        limiter.acquire(target, requests=60).settle()
    waiting = [asyncio.ensure_future(limiter.acquire_async(TARGETS[n % 3])) for n in range(WAITING)]
    await asyncio.sleep(0)
    spent: list[float] = []
    for _ in range(calls):
        start = thread_time()
        try:
            (await limiter.acquire_async(TARGETS[0], fallbacks=fallbacks, timeout=5)).cancel()
        except (LimitExceeded, AllTargetsFailed):
            spent.append(thread_time() - start)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return spent
