"""Several limiters on one store, as several processes are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from agent_rate_limiter import Limit, RateLimiter
from agent_rate_limiter.engine.port import SharedStore
from agent_rate_limiter.stores import open_store
from agent_rate_limiter.testing import ManualClock
from tests.contract.opened import SHARED
from tests.core.shared.fragile import Fragile


@pytest.fixture(params=SHARED)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Make stores of one place, each as a process would have its own."""
    yield from opened(request.param, tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """The same in a SQLite file, for what is decided before a store is asked."""
    yield from opened("sqlite", tmp_path)


def opened(name: str, folder: Path) -> Iterator[Callable[[], Any]]:
    """Yield what makes stores of one place."""
    made: list[Fragile] = []

    def make() -> Fragile:
        made.append(Fragile(cast("SharedStore", open_store(SHARED[name](folder)))))
        return made[-1]

    yield make
    for store in made:
        store.store.close()


@pytest.fixture
def limiter(stores: Callable[[], Any], manual_clock: ManualClock) -> Callable[..., RateLimiter]:
    def make(*limits: Limit | str, **options: Any) -> RateLimiter:
        return RateLimiter(limits, clock=manual_clock, **{"store": stores(), **options})

    return make
