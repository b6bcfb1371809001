"""Who waits for whom, in virtual time: the numbers are exact, and the same on every machine."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress

from agent_rate_limiter import Estimate, RateLimiter, Reservation
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.benchmarks.measure import progress
from tests.benchmarks.report import Goal, Report, Table

ABOUT = "a big request among small ones, and one agent's flood beside another's single call, in virtual time"
TPM = 6_000
BIG, SMALL = 500, 20
WARM_UP = 30.0
"""Seconds that the crowd runs before the newcomer comes."""
FLOOD = 1_000
RPM = 60


def run(*, quick: bool) -> Report:
    """Measure both."""
    report = Report("fairness", ABOUT)
    _big_request(report, (5, 20) if quick else (1, 5, 20))
    _flood(report, (0.5, 300.5) if quick else (0.0, 0.25, 0.5, 0.75, 300.5))
    report.notes += [
        "alone: on a limit that is used up, with nobody else waiting.",
        f"Without agents the order is arrival: each loop that stands in line adds {SMALL} tokens to the wait, once.",
    ]
    return report


# -- a big request among small ones ----------------------------------------------------------------------------


def _big_request(report: Report, crowds: tuple[int, ...]) -> None:
    alone = _wait_of_big(0, agents=False)
    found = [(loops, agents, _wait_of_big(loops, agents=agents)) for loops in crowds for agents in (False, True)]
    columns = {f"{BIG} tokens among endless loops of {SMALL}": "", "waits s": ".2f", "x alone": ".2f"}
    rows: list[list[str | float | None]] = [["alone", alone, 1.0]]
    for loops, agents, waited in found:
        progress(f"{loops} loops")
        rows.append([f"{loops} loops, {'an agent each' if agents else 'no agents'}", waited, waited / alone])
    report.tables.append(Table(f"a big request, {TPM:,} tokens a minute", columns, rows))
    what = f"{BIG} tokens among up to {crowds[-1]} loops of {SMALL}, beside alone"
    report.goals.append(Goal(what, max(waited for *_, waited in found) / alone, 2))


def _wait_of_big(loops: int, *, agents: bool) -> float:
    clock = ManualClock()
    limiter = RateLimiter(tpm=TPM, clock=clock)

    async def main() -> float:
        limiter.acquire(input_tokens=TPM).settle()
        crowd = [asyncio.create_task(_loop(limiter, f"small-{number}" if agents else "")) for number in range(loops)]
        if crowd:
            await asyncio.sleep(WARM_UP)
        reservation = await _call(limiter, "big" if agents else "", BIG)
        for task in crowd:
            task.cancel()
        return reservation.waited

    return run_virtual(main(), clock)


async def _loop(limiter: RateLimiter, agent: str) -> None:
    with suppress(asyncio.CancelledError):
        while True:
            await _call(limiter, agent, SMALL)


async def _call(limiter: RateLimiter, agent: str, tokens: int) -> Reservation:
    with limiter.scope(agent=agent) if agent else nullcontext():
        reservation = await limiter.acquire_async(Estimate(input_tokens=tokens))
    reservation.settle()
    return reservation


# -- one agent's flood beside another's single call ------------------------------------------------------------


def _flood(report: Report, moments: tuple[float, ...]) -> None:
    who = f"one call beside {FLOOD:,} of another agent"
    columns = {who: "", "alone s": ".2f", "waits s": ".2f", "calls later": ".2f"}
    rows: list[list[str | float | None]] = []
    later = []
    for moment in moments:
        progress(f"a flood, {moment} s before")
        alone, waited = _wait_of_single(0, moment % 1), _wait_of_single(FLOOD, moment)
        later.append(round((waited - alone) * RPM / 60, 6))
        rows.append([f"comes {moment:g} s after the flood", alone, waited, later[-1]])
    report.tables.append(Table(f"a flood, {RPM} requests a minute", columns, rows))
    what = f"a single call is later by, beside {FLOOD:,} queued calls of another agent"
    report.goals.append(Goal(what, max(later), 1, unit=" calls"))


def _wait_of_single(flood: int, moment: float) -> float:
    clock = ManualClock()
    limiter = RateLimiter(rpm=RPM, clock=clock)

    async def main() -> float:
        limiter.acquire(requests=RPM).settle()
        others = [asyncio.create_task(_call(limiter, "flood", 0)) for _ in range(flood)]
        await asyncio.sleep(moment)
        reservation = await _call(limiter, "single", 0)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        return reservation.waited

    return run_virtual(main(), clock)
