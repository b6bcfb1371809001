"""What providers do: their dialects, quotas and failures; dated presets are in `providers.presets`.

Everything here is pure: no I/O and no clock (`now` is passed, in epoch seconds), and no SDK is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_rate_limiter.lazy import lazy

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
__all__ = [*_MODULE]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]

if not TYPE_CHECKING:  # type checkers see the imports above, and so whether a name is there
    __getattr__, __dir__ = lazy(__name__, _MODULE, __all__)
