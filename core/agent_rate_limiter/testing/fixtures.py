"""Pytest fixtures, found by pytest as soon as the library is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agent_rate_limiter.testing.clock import ManualClock
    from agent_rate_limiter.testing.simulated import SimulatedProvider


@pytest.fixture
def manual_clock() -> ManualClock:
    """A clock that stands still until the test moves it: `MultiProviderLimiter(..., clock=manual_clock)`."""
    from agent_rate_limiter.testing.clock import ManualClock

    return ManualClock()


@pytest.fixture
def simulated_provider() -> Iterator[SimulatedProvider]:
    """A provider on loopback without limits; `set_limits` gives it some. Needs the extra `testing`."""
    from agent_rate_limiter.testing.simulated import SimulatedProvider

    with SimulatedProvider() as provider:
        yield provider
