"""CrewAI without telemetry, network, or the user's files; set before it is first imported."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_rate_limiter.testing import SimulatedProvider

os.environ.update(
    HOME=tempfile.mkdtemp(prefix="crewai-"),
    CREWAI_STORAGE_DIR="crewai-tests",
    CREWAI_DISABLE_TELEMETRY="true",
    CREWAI_TRACING_ENABLED="false",
    CREWAI_TESTING="true",
    CREWAI_DISABLE_VERSION_CHECK="true",
    OTEL_SDK_DISABLED="true",
    LITELLM_LOCAL_MODEL_COST_MAP="True",
    OPENAI_API_KEY="sk-test",
    ANTHROPIC_API_KEY="sk-test",
)


@pytest.fixture
def provider() -> Iterator[SimulatedProvider]:
    from tests.adapters.crewai.crews import reply

    with SimulatedProvider(default={"reply": reply, "output_tokens": 30}, seed=5) as running:
        yield running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """CrewAI never closes its SDK clients."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"))


@pytest.fixture(scope="module", autouse=True)
def _left_behind() -> Iterator[None]:
    """What a module leaves open is closed here, and not in somebody else's test."""
    yield
    gc.collect()
