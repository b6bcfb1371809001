"""Stores: where the limits' states live, chosen by a URI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_rate_limiter.errors import ConfigError

if TYPE_CHECKING:
    from agent_rate_limiter.engine.port import Store


def open_store(uri: str | Store) -> Store:
    """Return the store that a URI names; a store is returned as it is.

    Raises:
        ConfigError: the URI names none.
    """
    if uri in {"memory", "memory:", "memory://"}:
        from agent_rate_limiter.stores.memory import MemoryStore

        return MemoryStore()
    if not isinstance(uri, str):
        if hasattr(uri, "reserve"):
            return uri
        raise ConfigError(f"store is {uri!r}: give a URI such as 'memory://', or a store.")
    scheme, marks, _ = uri.partition("://")
    shown = f"{scheme}://…" if marks else uri  # what follows may hold a password
    raise ConfigError(f"store is {shown!r}: it is 'memory://' (one process).")
