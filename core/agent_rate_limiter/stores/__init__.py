"""Stores: where the limits' states live, chosen by a URI."""

from __future__ import annotations

import re
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
    without_password = re.sub(r"//[^/@]*@", "//***@", uri)
    raise ConfigError(f"store is {without_password!r}: it is 'memory://' (one process).")
