"""Crews share one limit, in one process and in several: they wait for each other, and none fails."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_rate_limiter.testing import SimulatedProvider
from tests.adapters.crewai.crews import MODEL
from tests.adapters.crewai.sharing import SHARED, SPEED, TPM, run
from tests.untraced import untraced

ROOT = Path(__file__).parents[3]


@pytest.fixture
def shared() -> Iterator[SimulatedProvider]:
    with SimulatedProvider({MODEL: SHARED}, speed=SPEED, seed=5) as provider:
        yield provider


def assert_shared(provider: SimulatedProvider, *, calls: int) -> None:
    """All was asked, and more than fits at once, so they waited. A minute lasts two seconds: a late one may collide."""
    report = provider.report()
    assert report.completed >= calls
    assert report.input_tokens + report.output_tokens > TPM
    assert report.refused <= calls / 4


def test_five_crews_in_one_process(shared: SimulatedProvider) -> None:
    assert run(shared.openai_url, "memory://", 5) == ["done"] * 5
    assert_shared(shared, calls=15)


def test_two_processes(shared: SimulatedProvider, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'limits.db'}"
    command = [sys.executable, "-W", "ignore", "-m", "tests.adapters.crewai.sharing", shared.openai_url, store, "3"]
    running = [
        subprocess.Popen(command, cwd=ROOT, env=untraced(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=100)[1].decode() for process in running]
    assert [json.loads(lines.splitlines()[-1]) for lines in told] == [["done"] * 3] * 2, told
    assert_shared(shared, calls=18)
