"""Fixtures for the adapters' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent_rate_limiter.testing.simulated import SimulatedProvider
from tests.adapters.openai_sdk import opened


@pytest.fixture(scope="module")
def running() -> Iterator[SimulatedProvider]:
    with SimulatedProvider(default={"output_tokens": 40}, seed=5) as provider:
        yield provider


@pytest.fixture
def provider(running: SimulatedProvider) -> SimulatedProvider:
    running.reset()
    return running


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    """Close the sync clients of a test."""
    yield
    while opened:
        opened.pop().close()
