"""A provider whose clock is moved by hand, and the SDK's client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from agent_rate_limiter.testing.simulated import SimulatedProvider
from tests.core.testing.simulated import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider(clock: Clock) -> Iterator[SimulatedProvider]:
    models = {"m": {"rpm": 100, "tpm": 10_000, "output_tokens": 50}}
    with SimulatedProvider(models, clock=lambda: clock.now) as running:  # type: ignore[arg-type]
        yield running


@pytest.fixture
def client(provider: SimulatedProvider) -> Iterator[OpenAI]:
    with OpenAI(base_url=provider.openai_url, api_key="x", max_retries=0, timeout=5) as running:
        yield running
