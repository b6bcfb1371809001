"""Limited twins of the clients of httpx and httpx2."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from agent_rate_limiter import ConfigError
from agent_rate_limiter.sending import check_terms
from agent_rate_limiter_adapters.http.elsewhere import Others
from agent_rate_limiter_adapters.http.flow import Terms
from agent_rate_limiter_adapters.http.likeness import kind_of, undying
from agent_rate_limiter_adapters.http.targets import Destinations
from agent_rate_limiter_adapters.http.transports import Wrapping, transports

if TYPE_CHECKING:
    from agent_rate_limiter_adapters.http.targets import AnyLimiter

C = TypeVar("C")
LIBRARIES = ("httpx", "httpx2")


def library_of(client: object) -> Any:
    """Return the module, httpx or httpx2, whose client this is.

    Raises:
        ConfigError: it is a client of neither.
    """
    for cls in type(client).__mro__:
        name = cls.__module__.partition(".")[0]
        library = sys.modules.get(name) if name in LIBRARIES else None
        if library is not None and isinstance(client, (library.Client, library.AsyncClient)):
            return library
    raise ConfigError(f"client is a {kind_of(client)}: give a Client or AsyncClient of httpx or httpx2.")


def limited_client(
    client: C,
    limiter: AnyLimiter,
    destinations: Destinations,
    *,
    priority: int | None = None,
    timeout: float | None = None,
    include_usage: bool = True,
    others: Others | None = None,
    labels: Callable[[], Mapping[str, object]] | None = None,
) -> C:
    """Return a client like this one, whose model calls are limited; this one stays as it is.

    The two share their connections, as copies of an SDK's client do: closing the twin ends those that are open, and
    the original then opens new ones.

    Args:
        client: of httpx or httpx2, sync or async; proxies, mounts, hooks and subclasses are kept.
        limiter: whose limits.
        destinations: which of them, by URL.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait; None waits for ever.
        include_usage: ask chat streams to state their usage, where the caller has not decided.
        others: where its calls can go besides.
        labels: asked at every call what it is labelled with, besides the scope's labels.
    """
    check_terms(limiter, priority=priority, timeout=timeout)
    library = library_of(client)
    terms = Terms(library, limiter, destinations, priority, timeout, include_usage, others or Others(), labels)
    twin: C = _twin(client, terms)
    return twin


def _twin(client: Any, terms: Terms) -> Any:
    sync, asynchronous = transports(terms.library.__name__)
    transport = sync if isinstance(client, terms.library.Client) else asynchronous

    def wrapped(inner: Any) -> Any:
        if isinstance(inner, Wrapping) and inner.terms.limiter is terms.limiter:
            inner = inner.inner  # limited already: on these terms from now on, and not twice
        return None if inner is None else transport(inner, terms)

    twin = copy.copy(client)
    twin.__class__ = undying(client.__class__)
    twin._headers = client.headers.copy()  # noqa: SLF001 - the setter would add headers that were removed
    twin.cookies = client.cookies
    twin.event_hooks = client.event_hooks
    twin._transport = wrapped(client._transport)  # noqa: SLF001 - the one way to keep all that was configured
    twin._mounts = {pattern: wrapped(inner) for pattern, inner in client._mounts.items()}  # noqa: SLF001
    twin._limited_twin_of = client  # noqa: SLF001 - SDKs' own clients close the shared connections when dropped
    return twin
