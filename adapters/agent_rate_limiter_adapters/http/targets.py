"""Whose limits a call is under, and whose language it speaks, told from where it goes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from agent_rate_limiter import ConfigError
from agent_rate_limiter.providers import Dialect, detect, dialect

if TYPE_CHECKING:
    from agent_rate_limiter import MultiProviderLimiter, Provider, RateLimiter

    AnyLimiter = RateLimiter | MultiProviderLimiter

_PORTS = {"http": 80, "https": 443}
_GENERIC = "generic"
_URLS = 256


class Destination(NamedTuple):
    """Where a call goes: the provider's name in the limiter's configuration, and its dialect."""

    provider: str
    dialect: Dialect


class Destinations:
    """Finds the destination of a URL among the limiter's providers.

    The provider is the one that was named; else the one whose `base_url` the URL begins with; else the one whose
    kind or name is that of the URL's host, or `kind` for a host that nobody knows.

    Args:
        limiter: with the providers; a limiter that has none configured takes every call.
        provider: the name of the one provider that all calls go to; None finds it by URL.
        kind: the dialect spoken with a host that nobody knows: the SDK's own.

    Raises:
        ConfigError: the limiter has no such provider.
    """

    def __init__(self, limiter: AnyLimiter, *, provider: str | None = None, kind: str | None = None) -> None:
        self._providers: Mapping[str, Provider] = getattr(limiter, "providers", {})
        self._name = provider
        self._kind = kind or _GENERIC
        self._paths = dialect(self._kind)
        self.find = lru_cache(_URLS)(self._find)  # a client calls a few addresses, again and again
        if provider is not None and self._providers and provider not in self._providers:
            raise ConfigError(f"provider is {provider!r}: the limiter has no such provider. {self._known()}")

    def counted(self, method: str, path: str) -> bool:
        """Whether a request is a model call; the providers' paths do not collide, so one answer serves all."""
        return self._paths.counted(method, path)

    def _find(self, url: str) -> Destination:
        """Return where a call to this URL goes.

        Raises:
            ConfigError: no provider fits, or several do.
        """
        host = detect(url) or self._kind
        if self._name is not None:
            named = self._providers.get(self._name)
            return Destination(self._name, dialect((named and _kind(named)) or _known_kind(self._name) or host))
        if not self._providers:
            return Destination(host, dialect(host))
        found = self._by_base_url(url) or self._by_kind(host)
        if not found:
            raise ConfigError(f"No provider is configured for {_shown(url)} (kind {host!r}). {self._known()} {_FIX}")
        if len(found) > 1:
            names = ", ".join(repr(provider.name) for provider in found)
            raise ConfigError(f"Several providers fit {_shown(url)}: {names}. {_FIX}")
        return Destination(found[0].name, dialect(_kind(found[0]) or host))

    def spoken(self, name: str) -> Dialect:
        """Return the dialect that a provider speaks, by its name or kind."""
        provider = self._providers.get(name)
        return dialect((provider and _kind(provider)) or _known_kind(name) or _GENERIC)

    def _by_base_url(self, url: str) -> list[Provider]:
        place = _place(url)
        fits: dict[int, list[Provider]] = {}
        for provider in self._providers.values():
            base = _place(provider.base_url) if provider.base_url else ()
            if base and place[: len(base)] == base:
                fits.setdefault(len(base), []).append(provider)
        return fits[max(fits)] if fits else []  # the longest fits best

    def _by_kind(self, kind: str) -> list[Provider]:
        """Providers of a kind: rather one that is not said to be elsewhere, and rather one of that very name."""
        ranked: dict[tuple[bool, bool], list[Provider]] = {}
        for provider in self._providers.values():
            if _kind(provider) == kind != _GENERIC:
                ranked.setdefault((provider.base_url is not None, provider.name != kind), []).append(provider)
        return ranked[min(ranked)] if ranked else []

    def _known(self) -> str:
        return f"Known: {', '.join(self._providers)}."


_FIX = "Say which with wrap(client, provider=...), or give the Provider its base_url or kind."


def _kind(provider: Provider) -> str | None:
    """The dialect that a provider's kind or name tells."""
    return dialect(provider.kind).kind if provider.kind else _known_kind(provider.name)


def _known_kind(name: str) -> str | None:
    kind = dialect(name).kind
    return None if kind == _GENERIC else kind


def _place(url: str) -> tuple[str, ...]:
    """A URL as host, port and the parts of its path."""
    parts = urlsplit(url)
    port = parts.port or _PORTS.get(parts.scheme, 0)
    return (parts.hostname or "", str(port), *filter(None, parts.path.split("/")))


def _shown(url: str) -> str:
    """A URL without what could be a secret: credentials and query."""
    parts = urlsplit(url)
    if not parts.scheme:
        return parts.path  # a name in place of an address
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
