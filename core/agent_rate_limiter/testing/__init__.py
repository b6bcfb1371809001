"""For your own tests: a clock you move, an event loop on its time, and a provider on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_rate_limiter.testing.clock import ManualClock
from agent_rate_limiter.testing.loop import VirtualTimeLoop, run_virtual

if TYPE_CHECKING:
    from agent_rate_limiter.testing.simulated import SimulatedProvider as SimulatedProvider

__all__ = ["ManualClock", "SimulatedProvider", "VirtualTimeLoop", "run_virtual"]


def __getattr__(name: str) -> object:
    """Import the simulated provider when it is used: it needs the extra `testing` (aiohttp)."""
    if name == "SimulatedProvider":
        from agent_rate_limiter.testing.simulated import SimulatedProvider

        return SimulatedProvider
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
