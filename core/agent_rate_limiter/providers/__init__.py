"""What providers do: their dialects, quotas and failures; dated presets are in `providers.presets`.

Everything here is pure: no I/O and no clock (`now` is passed, in epoch seconds), and no SDK is imported.
"""

from __future__ import annotations

from agent_rate_limiter.providers.dialect import Dialect
from agent_rate_limiter.providers.exceptions import read_failure
from agent_rate_limiter.providers.kinds import detect, dialect
from agent_rate_limiter.providers.model import Failure, FailureKind, Quota
from agent_rate_limiter.providers.responses import read_usage
from agent_rate_limiter.providers.stream import StreamReader

__all__ = [
    "Dialect",
    "Failure",
    "FailureKind",
    "Quota",
    "StreamReader",
    "detect",
    "dialect",
    "read_failure",
    "read_usage",
]
