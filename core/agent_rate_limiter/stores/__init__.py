"""Stores: where the limits' states live, chosen by a URI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_rate_limiter.errors import ConfigError

if TYPE_CHECKING:
    from agent_rate_limiter.engine.port import Store


def open_store(uri: str) -> Store:
    """Return the store that a URI names.

    Raises:
        ConfigError: the URI names none.
    """
    if uri in {"memory", "memory:", "memory://"}:
        from agent_rate_limiter.stores.memory import MemoryStore

        return MemoryStore()
    message = f"store is {uri!r}: it is 'memory://' (one process)."
    raise ConfigError(message)
