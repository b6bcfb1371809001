"""What providers do: their dialects, quotas and failures; dated presets are in `providers.presets`.

Everything here is pure: no I/O and no clock (`now` is passed, in epoch seconds), and no SDK is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_rate_limiter.providers.base import Dialect as Dialect
    from agent_rate_limiter.providers.exceptions import read_failure as read_failure
    from agent_rate_limiter.providers.exceptions import read_refusal as read_refusal
    from agent_rate_limiter.providers.kinds import detect as detect
    from agent_rate_limiter.providers.kinds import dialect as dialect
    from agent_rate_limiter.providers.model import Failure as Failure
    from agent_rate_limiter.providers.model import FailureKind as FailureKind
    from agent_rate_limiter.providers.model import Quota as Quota
    from agent_rate_limiter.providers.responses import read_usage as read_usage
    from agent_rate_limiter.providers.stream import StreamReader as StreamReader

_MODULE = {
    "Dialect": "base",
    "Failure": "model",
    "FailureKind": "model",
    "Quota": "model",
    "StreamReader": "stream",
    "detect": "kinds",
    "dialect": "kinds",
    "read_failure": "exceptions",
    "read_refusal": "exceptions",
    "read_usage": "responses",
}
__all__ = [
    "Dialect",
    "Failure",
    "FailureKind",
    "Quota",
    "StreamReader",
    "detect",
    "dialect",
    "read_failure",
    "read_refusal",
    "read_usage",
]


def __getattr__(name: str) -> object:
    """Import a name when it is first used: who needs the vocabulary alone does not pay for the rest."""
    module = _MODULE.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value: object = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
