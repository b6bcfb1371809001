"""Find the adapter for whatever a user wants limited."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from agent_rate_limiter.checks import check_priority, check_timeout
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.plain import meant

GROUP = "agent_rate_limiter.adapters"
"""Entry points of this group: the name is the top-level module of the classes that the adapter knows
(`openai`, `httpx`, …), the value a function `(client, limiter, **options) → limited twin`."""

Adapter = Callable[..., Any]


def adapter_for(client: object) -> Adapter:
    """Return the adapter of the client's class or of one of its bases, the nearest first.

    Raises:
        ConfigError: no installed adapter knows it.
    """
    point = find_adapter(client)
    if point is not None:
        adapter: Adapter = point.load()
        return adapter
    kind = type(client)
    message = (
        f"client is a {kind.__module__}.{kind.__qualname__}: no adapter knows it. "
        f"Known: {', '.join(sorted(_known()))}. "
        "Decorate the function that makes the call with @limiter.limit(...) instead."
    )
    raise ConfigError(message)


def check_options(adapter: Adapter, options: Mapping[str, Any]) -> None:
    """Refuse what would only be noticed at the first call, or told as a bug of ours.

    Raises:
        ConfigError: an option that the adapter does not have, or a priority or a timeout that makes no sense.
    """
    if options.get("priority") is not None:
        check_priority(options["priority"])
    if options.get("timeout") is not None:
        check_timeout(options["timeout"])
    takes = inspect.signature(adapter).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes):
        return  # it checks them itself
    known = [parameter.name for parameter in takes if parameter.kind is parameter.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            raise ConfigError(f"wrap: no option {name!r} for this client; {meant(name, known)}")


def find_adapter(client: object) -> EntryPoint | None:
    """Return where the adapter is for a client, or its class; None when no adapter knows it or one of its bases."""
    known = _known()
    kind: type[Any] = client if isinstance(client, type) else type(client)
    places = (cls.__module__.partition(".")[0] for cls in kind.__mro__)
    return next((known[place] for place in places if place in known), None)


@cache
def _known() -> Mapping[str, EntryPoint]:
    """The installed adapters; looking through all that is installed takes milliseconds, and is done once."""
    return {point.name: point for point in entry_points(group=GROUP)}
