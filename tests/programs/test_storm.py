"""A hundred tasks at once against a provider whose limits nobody has configured."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from openai import AsyncOpenAI

from agent_rate_limiter import MultiProviderLimiter
from agent_rate_limiter.testing.simulated import SimulatedProvider

MODEL = "gpt-4"
CALLS, BURST, PER_SECOND = 100, 20, 20
"""Ten times as fast as a burst of 20 and 2 a second. `speed` would not do: headers tell limits, unscaled."""
IDEAL = (CALLS - BURST) / PER_SECOND


def test_a_storm_of_a_hundred_tasks_is_served_at_the_limit_with_hardly_a_refusal() -> None:
    async def storm(provider: SimulatedProvider) -> float:
        original = AsyncOpenAI(base_url=provider.openai_url, api_key="sk-test")
        question: Any = {"role": "user", "content": "Why is the sky blue?"}
        async with MultiProviderLimiter().wrap(original) as client:
            begun = time.monotonic()
            create = client.chat.completions.create
            await asyncio.gather(
                *(create(model=MODEL, messages=[question], max_tokens=10) for _ in range(CALLS)),
            )
            return time.monotonic() - begun

    limit: Any = {"rpm": PER_SECOND * 60, "slices": (BURST / PER_SECOND,), "output_tokens": 5}
    with SimulatedProvider({MODEL: limit}) as provider:
        took = asyncio.run(storm(provider))
        report = provider.report()
    assert report.completed == CALLS
    assert report.refused <= 5
    assert took <= IDEAL * 1.5, f"{took:.2f} s, {report.refused} refusals"  # real time, and others use the machine
