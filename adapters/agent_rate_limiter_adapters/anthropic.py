"""Limits for Anthropic's SDK: `limiter.wrap(Anthropic())`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from agent_rate_limiter import ConfigError
from agent_rate_limiter_adapters.http import kind_of, like, limited_sdk

if TYPE_CHECKING:
    from agent_rate_limiter import MultiProviderLimiter, RateLimiter

C = TypeVar("C")

_KINDS: Mapping[str, str] = {
    "AnthropicBedrock": "bedrock",
    "AnthropicBedrockMantle": "bedrock",
    "AnthropicVertex": "vertex",
    "AnthropicAWS": "anthropic",
    "AnthropicFoundry": "anthropic",
    "AnthropicGoogleCloud": "anthropic",
    "Anthropic": "anthropic",
}
"""The SDK's clients, of which a version may lack some, and who sets the limits there; each has its async twin."""


def adapter(
    client: C,
    limiter: RateLimiter | MultiProviderLimiter,
    *,
    provider: str | None = None,
    fallbacks: Sequence[str] | None = None,
    priority: int | None = None,
    timeout: float | None = None,
    labels: Callable[[], Mapping[str, object]] | None = None,
) -> C:
    """Return a limited twin of a client of Anthropic's SDK; the original stays as it is.

    Every call of the Messages API is limited, once per request, and settled with what it used: plain, streamed,
    parsed, beta, tool runners, raw and streaming responses, and those of `twin.with_options(...)`. Batches and token
    counts are not limited. A limiter's error reaches the caller as it is. The twin does not retry by itself,
    whatever `max_retries` says.

    The two share their connections, as the SDK's own copies do: closing the twin ends those that are open, and the
    original then opens new ones.

    Args:
        client: an Anthropic or AsyncAnthropic, or one for Bedrock, Vertex AI, Foundry or another cloud, with any
            HTTP client.
        limiter: whose limits.
        provider: the name of the provider that all calls go to; None finds it by the client's base_url: the provider
            with that base_url, else the one of that host's kind, else of kind "anthropic" ("bedrock", "vertex").
        fallbacks: where calls may go instead, in order; besides those that the limiter has configured. A list of
            targets of the same provider, whose model is then asked for.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait; None waits for ever.
        labels: asked at every call what it is labelled with, besides the scope's labels.

    Raises:
        ConfigError: it is no such client; or no configured provider fits, or several do.
    """
    kind = _kind_of(client)
    twin = limited_sdk(
        client,
        limiter,
        kind,
        provider=provider,
        fallbacks=fallbacks,
        priority=priority,
        timeout=timeout,
        labels=labels,
    )
    limited: Any = type(twin)
    twin.__class__ = _self_copying(limited)
    return twin


def _kind_of(client: object) -> str:
    import anthropic

    for name, kind in _KINDS.items():
        classes = (getattr(anthropic, name, None), getattr(anthropic, f"Async{name}", None))
        if isinstance(client, tuple(cls for cls in classes if cls is not None)):
            return kind
    raise ConfigError(
        f"client is a {kind_of(client)}: give an Anthropic or AsyncAnthropic, or its like for "
        "Bedrock, Vertex AI, Foundry, AWS or Google Cloud."
    )


@cache
def _self_copying(cls: Any) -> Any:
    """The class of a twin, which is copied as what it is a twin of: the SDK hands credentials on to its own alone."""
    if "_copied_as" in cls.__dict__:
        return cls
    original = cls.__mro__[1]

    def copied(self: Any, *args: Any, **options: Any) -> Any:
        plain = copy.copy(self)
        plain.__class__ = original
        twin = plain.copy(*args, **options)
        twin.__class__ = self.__class__
        return twin

    return like(cls, copy=copied, with_options=copied, _copied_as=original, _limited_request=True)
