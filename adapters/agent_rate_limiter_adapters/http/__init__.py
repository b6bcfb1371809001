"""Limits at the HTTP layer: for clients of httpx and httpx2, and for the SDKs that are built on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from agent_rate_limiter_adapters.http.clients import library_of, limited_client
from agent_rate_limiter_adapters.http.likeness import kind_of, like, stay, undying
from agent_rate_limiter_adapters.http.sdk import limited_sdk
from agent_rate_limiter_adapters.http.targets import Destinations
from agent_rate_limiter_adapters.http.transports import transports

if TYPE_CHECKING:
    from agent_rate_limiter_adapters.http.targets import AnyLimiter

C = TypeVar("C")
__all__ = [
    "Destinations",
    "adapter",
    "kind_of",
    "library_of",
    "like",
    "limited_client",
    "limited_sdk",
    "stay",
    "transports",
    "undying",
]


def adapter(
    client: C,
    limiter: AnyLimiter,
    *,
    provider: str | None = None,
    priority: int | None = None,
    timeout: float | None = None,
    include_usage: bool = True,
    labels: Callable[[], Mapping[str, object]] | None = None,
) -> C:
    """Return a limited twin of a client of httpx or httpx2, sync or async; the original stays as it is.

    Model calls (POST to the known paths of providers' APIs) are limited and settled with what they used; everything
    else passes through. Request bodies of model calls are read into memory.

    Args:
        client: proxies, mounts, timeouts, hooks and subclasses are kept; connections are shared (see
            `limited_client`).
        limiter: whose limits.
        provider: the name of the provider that all model calls go to; None finds it by URL.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait; None waits for ever.
        include_usage: ask chat streams to state their usage, where the caller has not decided; they then end with
            one chunk more, whose `choices` are empty.
        labels: asked at every call what it is labelled with, besides the scope's labels.

    Raises:
        ConfigError: it is no such client, or the limiter has no such provider.
    """
    destinations = Destinations(limiter, provider=provider)
    return limited_client(
        client,
        limiter,
        destinations,
        priority=priority,
        timeout=timeout,
        include_usage=include_usage,
        labels=labels,
    )
