"""Stores: where the limits' states live, chosen by a URI."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from agent_rate_limiter.errors import ConfigError

if TYPE_CHECKING:
    from agent_rate_limiter.engine.port import NearStore, SharedStore, Store

ON_STORE_ERROR = ("fail_closed", "fail_open", "local")
"""What may happen while a shared store cannot be reached."""


def open_store(uri: str | Store | SharedStore) -> Store | SharedStore:
    """Return the store that a URI names; a store is returned as it is.

    Raises:
        ConfigError: the URI names none.
    """
    if not isinstance(uri, str):
        if hasattr(uri, "reserve") or is_shared(uri):
            return uri
        raise ConfigError(f"store is {uri!r}: give a URI such as 'memory://', or a store.")
    if uri in {"memory", "memory:", "memory://"}:
        from agent_rate_limiter.stores.memory import MemoryStore

        return MemoryStore()
    scheme, marks, _ = uri.partition("://")
    if marks and scheme == "sqlite":
        from agent_rate_limiter.stores.sqlite.store import SQLiteStore
        from agent_rate_limiter.stores.sqlite.uri import file_of

        return SQLiteStore(file_of("store", uri))
    if marks and scheme.lower().partition("+")[0] in {"redis", "rediss", "valkey", "valkeys", "unix"}:
        return _redis(uri)
    shown = f"{scheme}://…" if marks else uri.rpartition("@")[2]  # what else there is may hold a password
    raise ConfigError(f"store is {shown!r}: it is one of {_KNOWN}.")


_KNOWN = "'memory://' (one process), 'sqlite:///agents.db' (one machine) or 'redis://host:6379/0' (many machines)"


def _redis(uri: str) -> SharedStore:
    from agent_rate_limiter.stores.redis.store import RedisStore
    from agent_rate_limiter.stores.redis.uri import SCHEMES, RedisAddress

    scheme = uri.partition("://")[0].lower()
    if scheme not in SCHEMES:
        known = ", ".join(name for name in SCHEMES if not name.startswith("valkey"))
        raise ConfigError(f"store is '{scheme}://…': it is one of {known}, each followed by ://host:port.")
    return RedisStore(RedisAddress(uri))


def is_shared(store: Store | SharedStore) -> TypeGuard[SharedStore]:
    """Whether processes share it: then it takes batches."""
    return hasattr(store, "run")


def is_near(store: SharedStore) -> TypeGuard[NearStore]:
    """Whether a step in it takes less time than to have another thread take it."""
    return hasattr(type(store), "attempt")  # not what passes everything on: it may want to see everything
