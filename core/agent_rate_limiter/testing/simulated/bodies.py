"""Reading requests: what every API's body has in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from agent_rate_limiter.plain import is_whole
from agent_rate_limiter.testing.simulated.calls import BadRequest, Event
from agent_rate_limiter.testing.simulated.tokens import compact


def required(body: Mapping[str, Any], name: str, kinds: type | tuple[type, ...]) -> Any:
    """A field that must be there, of this kind, and not empty."""
    value = body.get(name)
    if value is None:
        raise BadRequest(f"Missing required parameter: '{name}'.", name)
    if not isinstance(value, kinds) or not value:
        raise BadRequest(f"Invalid value for '{name}'.", name)
    return value


def maximum(body: Mapping[str, Any], *names: str) -> int | None:
    """The first of these fields that names a maximum of output tokens."""
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if not is_whole(value) or value < 1:
            raise BadRequest(f"Invalid value for '{name}': expected a whole number of at least 1.", name)
        return value
    return None


def section(body: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """A nested object; empty if any step to it is missing."""
    node: Any = body
    for name in path:
        node = cast("Mapping[str, Any]", node).get(name) if isinstance(node, Mapping) else None
    return cast("Mapping[str, Any]", node) if isinstance(node, Mapping) else {}


def sse(data: Any, name: str | None = None, *, tokens: int = 0) -> Event:
    """A server-sent event: JSON, or text as it is."""
    text = data if isinstance(data, str) else compact(data)
    prefix = f"event: {name}\n" if name else ""
    return Event(f"{prefix}data: {text}\n\n".encode(), tokens)
