"""A simulated LLM provider: a real HTTP server on loopback that enforces limits the way providers do."""

from __future__ import annotations

from agent_rate_limiter.testing.simulated.calls import Call
from agent_rate_limiter.testing.simulated.faults import Fault
from agent_rate_limiter.testing.simulated.options import ModelOptions, ToolCall
from agent_rate_limiter.testing.simulated.reports import LimitReport, ModelReport, Report, RequestRecord
from agent_rate_limiter.testing.simulated.server import SimulatedProvider, serve_forever
from agent_rate_limiter.testing.simulated.tokens import count_tokens

__all__ = [
    "Call",
    "Fault",
    "LimitReport",
    "ModelOptions",
    "ModelReport",
    "Report",
    "RequestRecord",
    "SimulatedProvider",
    "ToolCall",
    "count_tokens",
    "serve_forever",
]
