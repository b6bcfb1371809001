"""A ledger in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_rate_limiter import CostTracker
from agent_rate_limiter.testing import ManualClock
from tests.core.ledger.books import PRICES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "costs.db"


@pytest.fixture
def costs(path: Path, manual_clock: ManualClock) -> Iterator[CostTracker]:
    with CostTracker(f"sqlite:///{path}", prices=PRICES, clock=manual_clock) as tracker:
        yield tracker
