"""A hundred tasks at once against limits that nobody has configured: over a real socket, in real time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from openai import AsyncOpenAI, OpenAIError

from agent_rate_limiter import MultiProviderLimiter
from agent_rate_limiter.testing.simulated import SimulatedProvider
from tests.benchmarks.measure import progress
from tests.benchmarks.report import Goal, Report, Table

ABOUT = "100 tasks at once, burst 20 + 2/s, limits not configured; the real OpenAI SDK over a real socket, in real time"
MODEL = "gpt-4"
CALLS, BURST, PER_SECOND = 100, 20, 2
IDEAL = (CALLS - BURST) / PER_SECOND
QUICK = 10
"""Times as fast with `--quick`: limits that many times as high, so 4 s instead of 40 s."""
PATIENT = 100
"""Retries of the SDK, as somebody sets it who wants every call to succeed."""
_LIMIT = "ours: limiter.wrap(AsyncOpenAI())"
_SDK = "the SDK's own retries (max_retries=2)"
_MORE = f"the SDK with max_retries={PATIENT}"


def run(*, quick: bool) -> Report:
    """Send the storm three times."""
    speed = QUICK if quick else 1
    ideal = IDEAL / speed
    rows: list[list[str | float | None]] = []
    found = {name: asyncio.run(_storm(name, speed)) for name in (_LIMIT, _SDK, _MORE)}
    for name, (done, refused, sent, seconds) in found.items():
        rows.append([name, done, refused, sent, seconds, seconds / ideal])
    columns = {"who": "", f"done of {CALLS}": ".0f", "429s": ".0f", "requests": ".0f", "s": ".1f", "x ideal": ".2f"}
    report = Report("storm", ABOUT, [Table(f"ideal: {ideal:g} s", columns, rows)])
    report.notes.append("The SDK's own retries give up early, or pay for each call with many refusals.")
    done, refused, _, seconds = found[_LIMIT]
    report.goals += [
        Goal("calls done", done, CALLS, at_least=True, unit=""),
        Goal("refusals", refused, 5, unit=""),
        Goal("time beside the ideal", seconds / ideal, 1.3 if quick else 1.1),  # the first connections take as long
    ]
    return report


async def _storm(name: str, speed: int) -> tuple[int, int, int, float]:
    """Return calls done, requests refused, requests sent, and seconds."""
    progress(name)
    rate = PER_SECOND * speed
    limit: Any = {"rpm": rate * 60, "slices": (BURST / rate,), "output_tokens": 5}
    with SimulatedProvider({MODEL: limit}) as provider:
        retries = {_SDK: 2, _MORE: PATIENT}.get(name, 0)
        plain = AsyncOpenAI(base_url=provider.openai_url, api_key="any", max_retries=retries)
        async with plain if retries else MultiProviderLimiter().wrap(plain) as client:
            begun = time.monotonic()
            done = sum(await asyncio.gather(*(_call(client) for _ in range(CALLS))))
            seconds = time.monotonic() - begun
        report = provider.report()
    return done, report.refused, report.received, seconds


async def _call(client: AsyncOpenAI) -> bool:
    question: Any = {"role": "user", "content": "Why is the sky blue?"}
    try:
        await client.chat.completions.create(model=MODEL, messages=[question], max_tokens=10)
    except OpenAIError:
        return False
    return True
