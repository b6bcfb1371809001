"""Limits for OpenAI's SDK, 2.x and 3.x: `limiter.wrap(OpenAI())`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from agent_rate_limiter import ConfigError
from agent_rate_limiter_adapters.http import kind_of, limited_sdk

if TYPE_CHECKING:
    from agent_rate_limiter import MultiProviderLimiter, RateLimiter

C = TypeVar("C")


def adapter(
    client: C,
    limiter: RateLimiter | MultiProviderLimiter,
    *,
    provider: str | None = None,
    fallbacks: Mapping[str, object] | Sequence[str] | None = None,
    priority: int | None = None,
    timeout: float | None = None,
    include_usage: bool = True,
    labels: Callable[[], Mapping[str, object]] | None = None,
) -> C:
    """Return a limited twin of a client of OpenAI's SDK; the original stays as it is.

    Every model call over HTTP is limited, once per request, and settled with what it used: chat, responses, parse,
    embeddings, images, audio, streams, raw and streaming responses, and those of `twin.with_options(...)`. A
    limiter's error reaches the caller as it is. The twin does not retry by itself, whatever `max_retries` says.
    Realtime and Responses over WebSockets are not limited.

    The two share their connections, as the SDK's own copies do: closing the twin ends those that are open, and the
    original then opens new ones.

    Args:
        client: an OpenAI, AsyncOpenAI, AzureOpenAI or AsyncAzureOpenAI, with any HTTP client.
        limiter: whose limits.
        provider: the name of the provider that all calls go to; None finds it by the client's base_url: the provider
            with that base_url, else the one of that host's kind, else of kind "openai" (Azure: "azure").
        fallbacks: where calls may go instead, in order; besides those that the limiter has configured. A list of
            targets of the same provider, whose model is then asked for; or a mapping of targets to the client of
            each, such as `{"anthropic:claude-opus-4": Anthropic()}`. To OpenAI clients goes every call; to clients of
            Anthropic and Google go chat completions alone, by those providers' OpenAI-compatible endpoints.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait; None waits for ever.
        include_usage: ask chat streams to state their usage, where the caller has not decided; the caller does not
            see the chunk that states it.
        labels: asked at every call what it is labelled with, besides the scope's labels.

    Raises:
        ConfigError: it is no such client; or no configured provider fits, or several do.
    """
    import openai

    if not isinstance(client, (openai.OpenAI, openai.AsyncOpenAI)):
        raise ConfigError(
            f"client is a {kind_of(client)}: give an OpenAI, AsyncOpenAI, AzureOpenAI or AsyncAzureOpenAI."
        )
    azure = isinstance(client, (openai.AzureOpenAI, openai.AsyncAzureOpenAI))
    return limited_sdk(
        client,
        limiter,
        "azure" if azure else "openai",
        provider=provider,
        fallbacks=fallbacks,
        priority=priority,
        timeout=timeout,
        include_usage=include_usage,
        labels=labels,
    )
