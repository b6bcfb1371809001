"""A hundred tasks at once against a provider whose limits nobody has configured."""

from __future__ import annotations

import asyncio
from typing import Any

from openai import AsyncOpenAI

from agent_rate_limiter import MultiProviderLimiter
from agent_rate_limiter.testing import ManualClock
from agent_rate_limiter.testing.simulated import SimulatedProvider

MODEL = "gpt-4"
CALLS, BURST, PER_SECOND = 100, 20, 2
IDEAL = (CALLS - BURST) / PER_SECOND


def test_a_storm_of_a_hundred_tasks_is_served_at_the_limit_with_hardly_a_refusal() -> None:
    """The real SDK over a real socket; the clock of both sides moves on whenever nothing is under way.

    So what is measured does not depend on how busy the machine is.
    """
    clock = ManualClock()

    async def ask(client: Any) -> None:
        question = {"role": "user", "content": "Why is the sky blue?"}
        await client.chat.completions.create(model=MODEL, messages=[question], max_tokens=10)

    async def storm(provider: SimulatedProvider) -> float:
        begun, limiter = clock.now(), MultiProviderLimiter(clock=clock)
        async with limiter.wrap(AsyncOpenAI(base_url=provider.openai_url, api_key="sk-test")) as client:
            tasks = [asyncio.create_task(ask(client)) for _ in range(CALLS)]
            while not all(task.done() for task in tasks):
                await asyncio.sleep(0.001)  # real time: for what is on the wire
                now = limiter.snapshot()
                waiting = sum(not task.done() for task in tasks)
                due = clock.next_alarm()
                if not now.in_flight and now.waiting == waiting and due is not None:
                    clock.advance_to(due)
            await asyncio.gather(*tasks)
        return (clock.now() - begun) / 1000

    limit: Any = {"rpm": PER_SECOND * 60, "slices": (BURST / PER_SECOND,), "output_tokens": 5}
    with SimulatedProvider({MODEL: limit}, clock=lambda: clock.now() / 1000) as provider:
        took = asyncio.run(storm(provider))
        report = provider.report()
    assert report.completed == CALLS
    assert report.refused <= 5
    assert took <= IDEAL * 1.1, f"{took:.2f} s, {report.refused} refusals"
