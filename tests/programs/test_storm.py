"""A hundred tasks at once against a provider whose limits nobody has configured."""

from __future__ import annotations

import asyncio
import time

from openai import AsyncOpenAI

from agent_rate_limiter import MultiProviderLimiter
from agent_rate_limiter.testing.simulated import SimulatedProvider
from tests.adapters.support import finish

MODEL = "gpt-4"
SPEED = 10.0
BURST, PER_SECOND, CALLS = 20, 2.0, 100
IDEAL = (CALLS - BURST) / PER_SECOND
"""Simulated seconds."""


def test_a_storm_of_a_hundred_tasks_is_served_at_the_limit_with_hardly_a_refusal() -> None:
    took: list[float] = []

    async def storm(provider: SimulatedProvider) -> None:
        limiter = MultiProviderLimiter()
        client = limiter.wrap(AsyncOpenAI(base_url=provider.openai_url, api_key="sk-test"))
        question = {"role": "user", "content": "Why is the sky blue?"}

        async def ask() -> None:
            await client.chat.completions.create(model=MODEL, messages=[question], max_tokens=10)  # type: ignore[list-item]

        begun = time.monotonic()
        await asyncio.gather(*(ask() for _ in range(CALLS)))
        took.append((time.monotonic() - begun) * SPEED)
        await finish(client.close())

    with SimulatedProvider({MODEL: {"rpm": 120, "slices": (10.0,), "output_tokens": 5}}, speed=SPEED) as provider:
        asyncio.run(storm(provider))
        report = provider.report()
    assert report.completed == CALLS
    assert report.refused <= 5
    assert took[0] <= IDEAL * 1.1, f"{took[0]:.1f} simulated seconds, {report.refused} refusals"
