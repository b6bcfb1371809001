"""For your own tests: a clock you move, an event loop on its time, and a provider on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_rate_limiter.lazy import lazy
from agent_rate_limiter.testing.clock import ManualClock
from agent_rate_limiter.testing.loop import VirtualTimeLoop, run_virtual

if TYPE_CHECKING:
    from agent_rate_limiter.testing.simulated import SimulatedProvider as SimulatedProvider

__all__ = ["ManualClock", "SimulatedProvider", "VirtualTimeLoop", "run_virtual"]

if not TYPE_CHECKING:  # it needs the extra `testing` (aiohttp)
    __getattr__, __dir__ = lazy(__name__, {"SimulatedProvider": "simulated"}, __all__)
