"""Layers around one call: a decorated function that calls a limited twin."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from agent_rate_limiter import MultiProviderLimiter, Provider
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from tests.adapters.openai_sdk import ask, client_of
from tests.adapters.support import MODEL, accounted, booked, finish


@pytest.mark.parametrize("kind", [OpenAI, AsyncOpenAI])
def test_the_inner_layer_retries_and_the_outer_one_sees_one_call(provider: SimulatedProvider, kind: Any) -> None:
    limiter = MultiProviderLimiter([Provider("openai", {MODEL: {"rpm": 1_000, "concurrency": 2}})])

    async def use() -> None:
        client = limiter.wrap(client_of(kind, provider))

        @limiter.limit(target=f"openai:{MODEL}")
        async def answer() -> list[Any]:
            return await finish(ask(client))

        provider.inject(Fault("rate_limit", retry_after=0), times=2)
        assert await answer()
        await finish(client.close())

    asyncio.run(use())
    assert provider.report().received == 3
    assert booked(limiter) == accounted(provider)
    assert limiter.snapshot().in_flight == 0
