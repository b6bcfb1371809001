"""Fixtures for the adapters' tests."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from agent_rate_limiter.testing.simulated import SimulatedProvider
from tests.adapters.openai_sdk import opened

# The frameworks live in an environment of their own, where `make test` runs these folders by name.
collect_ignore = [
    folder
    for folder, module in (("langchain", "langchain_core"), ("crewai", "crewai"), ("llamaindex", "llama_index"))
    if find_spec(module) is None
]


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
