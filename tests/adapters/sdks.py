"""The real SDKs whose retries and errors are tested, as their users have them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import anthropic
import httpx2
import openai
import pytest
from google import genai

from agent_rate_limiter import MultiProviderLimiter, Provider, RetryStrategy
from agent_rate_limiter.testing.simulated import SimulatedProvider
from tests.adapters.support import finish

QUESTION: Any = [{"role": "user", "content": "Why is the sky blue?"}]
EAGER = genai.types.HttpRetryOptions(attempts=5, initial_delay=0.01)
ONE = genai.types.HttpRetryOptions(attempts=1)  # None retries lost connections, after up to ten seconds (3.4)


class Sdk(NamedTuple):
    """An SDK: how its clients are made, with `retries` of its own, and called."""

    name: str
    model: str
    client: Callable[[SimulatedProvider, bool, int], Any]
    ask: Callable[[Any, bool], Any]
    errors: tuple[type[Exception], ...]
    """Broken streams and, at Google, lost connections come as the HTTP library's."""


def _openai(provider: SimulatedProvider, sync: bool, retries: int) -> Any:
    kind: Any = openai.OpenAI if sync else openai.AsyncOpenAI
    return kind(base_url=provider.openai_url, api_key="sk-test", max_retries=retries)


def _ask_openai(client: Any, stream: bool) -> Any:
    return client.chat.completions.create(model="gpt-4", messages=QUESTION, max_tokens=30, stream=stream)


def _anthropic(provider: SimulatedProvider, sync: bool, retries: int) -> Any:
    kind: Any = anthropic.Anthropic if sync else anthropic.AsyncAnthropic
    return kind(base_url=provider.anthropic_url, api_key="sk-test", max_retries=retries)


def _ask_anthropic(client: Any, stream: bool) -> Any:
    return client.messages.create(model="claude-opus-4", messages=QUESTION, max_tokens=30, stream=stream)


class AsyncHalf:
    """A client of Google's is both; this one stands for its async half."""

    def __init__(self, client: genai.Client) -> None:
        self.client = client


def _google(provider: SimulatedProvider, sync: bool, retries: int) -> Any:
    del sync
    options = genai.types.HttpOptions(base_url=provider.gemini_url, retry_options=EAGER if retries else ONE)
    return genai.Client(api_key="key", http_options=options)


def _ask_google(client: Any, stream: bool) -> Any:
    models = client.client.aio.models if isinstance(client, AsyncHalf) else client.models
    call = models.generate_content_stream if stream else models.generate_content
    return call(model="gemini-2.5-flash", contents="Why is the sky blue?")


SDKS = {
    "openai": Sdk("openai", "gpt-4", _openai, _ask_openai, (openai.APIError,)),
    "anthropic": Sdk(
        "anthropic", "claude-opus-4", _anthropic, _ask_anthropic, (anthropic.APIError, httpx2.TransportError)
    ),
    "google": Sdk("gemini", "gemini-2.5-flash", _google, _ask_google, (genai.errors.APIError, httpx2.TransportError)),
}
every_sdk = pytest.mark.parametrize("sdk", SDKS.values(), ids=SDKS)
both_ways = pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
streamed = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


def limiter_of(sdk: Sdk, **retry: Any) -> MultiProviderLimiter:
    strategy = RetryStrategy(**{"base": 0.01, **retry})
    return MultiProviderLimiter([Provider(sdk.name, {sdk.model: {"concurrency": 50}})], retry=strategy)


async def closed(client: Any) -> None:
    if isinstance(client, genai.Client):
        await client.aio.aclose()
    await finish(client.close())


def called(
    sdk: Sdk,
    provider: SimulatedProvider,
    limiter: MultiProviderLimiter,
    *,
    sync: bool = True,
    stream: bool = False,
    times: int = 1,
) -> list[Exception]:
    """Call through a wrapped client that would retry by itself; return the SDK's errors."""
    raised: list[Exception] = []

    async def use() -> None:
        client = limiter.wrap(sdk.client(provider, sync, 5))
        asked = client if sync or not isinstance(client, genai.Client) else AsyncHalf(client)
        for _ in range(times):
            try:
                await finish(sdk.ask(asked, stream))
            except sdk.errors as error:
                raised.append(error)
        await closed(client)

    asyncio.run(use())
    return raised


# ------------------------------------------------------------------ attempts
