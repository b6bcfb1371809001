"""LangChain, CrewAI and LlamaIndex in one process share one limit and one budget."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.llamaindex.together import AT_ONCE, EACH
from tests.untraced import untraced


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the program says: without a budget, and with one; in a process without telemetry or the user's files."""
    home = str(tmp_path_factory.mktemp("home"))
    quiet = {"CREWAI_DISABLE_TELEMETRY": "true", "CREWAI_TRACING_ENABLED": "false", "OTEL_SDK_DISABLED": "true"}
    local = {"CREWAI_TESTING": "true", "CREWAI_DISABLE_VERSION_CHECK": "true", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.adapters.llamaindex.together"],
        env={**untraced(), **quiet, **local, "HOME": home, "OPENAI_API_KEY": "sk-test"},
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    )
    without, with_budget = json.loads(done.stdout.splitlines()[-1])
    return without, with_budget


def test_one_limit_holds_for_all(outcome: tuple[dict[str, Any], dict[str, Any]]) -> None:
    result, _ = outcome
    assert result["failed"] == []
    assert result["requests"] == {"langchain": EACH, "llamaindex": EACH, "crewai": EACH}
    assert (result["received"], result["refused"]) == (3 * EACH, 0)
    assert result["at_once"] == AT_ONCE
    assert result["cost"][0] == pytest.approx(result["cost"][1])
    assert result["in_flight"] == 0


def test_one_budget_holds_for_all(outcome: tuple[dict[str, Any], dict[str, Any]]) -> None:
    _, result = outcome
    assert result["cost"][0] <= 0.006
    assert result["cost"][0] == pytest.approx(result["cost"][1])
    assert 0 < result["received"] < 3 * EACH
    assert result["over_budget"] == len(result["failed"]) == 3 * EACH - result["received"]
    assert result["in_flight"] == 0
