"""Members of every shared store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_rate_limiter.engine.port import SharedStore
from agent_rate_limiter.stores import is_shared, open_store
from tests.contract.direct import Direct
from tests.contract.members import Member
from tests.contract.opened import SHARED


@pytest.fixture(params=SHARED)
def member(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Member]:
    """Make members, each with a connection of its own."""
    opened: list[SharedStore] = []

    def make(name: str) -> Direct:
        store = open_store(SHARED[request.param](tmp_path))
        assert is_shared(store)
        opened.append(store)
        return Direct(store, name)

    yield make
    for store in opened:
        store.close()
