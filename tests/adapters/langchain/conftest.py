"""One provider for a module, as new for each test; and what LangChain was installed, for the log."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

import pytest

from agent_rate_limiter.testing.simulated import SimulatedProvider
from tests.adapters.langchain.models import MODEL, OBLIGING, SIMULATED
from tests.adapters.langchain.scripted import oblige


def pytest_report_header() -> str:
    names = ("langchain-core", "langchain", "langgraph", "langchain-openai", "langchain-anthropic")
    return "langchain: " + ", ".join(f"{name} {version(name)}" for name in names)


@pytest.fixture(scope="session")
def running() -> Iterator[SimulatedProvider]:
    with SimulatedProvider({MODEL: SIMULATED, OBLIGING: {**SIMULATED, "reply": oblige}}, seed=5) as provider:
        yield provider


@pytest.fixture
def provider(running: SimulatedProvider) -> SimulatedProvider:
    running.reset()
    return running
