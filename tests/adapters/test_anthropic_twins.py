"""Wrapped Anthropic clients beside their originals: what is theirs stays theirs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic
from anthropic.lib.bedrock import AnthropicBedrock
from anthropic.lib.credentials import AccessToken
from anthropic.lib.vertex import AnthropicVertex

from agent_rate_limiter import (
    ConfigError,
    MultiProviderLimiter,
    Provider,
)
from agent_rate_limiter.testing.simulated import SimulatedProvider
from agent_rate_limiter_adapters.anthropic import adapter
from tests.adapters.openai_sdk import opened as clients
from tests.adapters.support import Heard, Reply, ScriptedServer, accounted, booked, finish, used
from tests.adapters.test_anthropic import MODEL, ask, both, client_of, roomy


def test_no_provider_for_the_client_is_told_when_it_is_wrapped(provider: SimulatedProvider) -> None:
    limiter = MultiProviderLimiter([Provider("openai", {"gpt-4": {}})])
    with pytest.raises(ConfigError, match=r"No provider is configured for http://127.*provider="):
        adapter(client_of(Anthropic, provider), limiter)


@pytest.mark.parametrize("thing", [object(), Anthropic, "claude"])
def test_only_clients_are_wrapped(thing: object) -> None:
    with pytest.raises(ConfigError, match="give an Anthropic or AsyncAnthropic"):
        adapter(thing, roomy())


# ------------------------------------------------------------------ one call is counted once


def test_a_decorated_function_and_its_wrapped_client_count_once(provider: SimulatedProvider) -> None:
    limiter = roomy()
    client = adapter(client_of(Anthropic, provider), limiter)

    @limiter.limit(provider="anthropic", model=MODEL, max_output_tokens=60)
    def once() -> Any:
        return ask(client)

    once()
    assert booked(limiter) == accounted(provider)
    assert used(limiter, "requests") == 1


def test_wrapping_twice_counts_once_and_copies_stay_limited(provider: SimulatedProvider) -> None:
    limiter = roomy()
    twin = adapter(adapter(client_of(Anthropic, provider), limiter), limiter)
    ask(twin)
    ask(twin.with_options(timeout=5).copy())
    assert booked(limiter) == accounted(provider)
    assert booked(limiter)[0] == 2


# ------------------------------------------------------------------ the original, and the twin


@both
def test_the_original_stays_as_it_is(provider: SimulatedProvider, kind: Any) -> None:
    original = client_of(kind, provider, default_headers={"x-team": "blue"}, timeout=12.0)
    before = (type(original), original.max_retries, original._client, original._client._transport)
    limiter = roomy()

    async def use() -> None:
        twin = adapter(original, limiter)
        assert type(twin).__name__ == type(original).__name__
        assert isinstance(twin, kind)
        assert isinstance(twin.with_options(timeout=1), type(twin))
        assert (twin.max_retries, twin.timeout, twin.base_url) == (0, 12.0, original.base_url)
        await finish(ask(original))
        await finish(twin.close())
        await finish(ask(original))  # on new connections
        await finish(original.close())

    asyncio.run(use())
    assert (type(original), original.max_retries, original._client, original._client._transport) == before
    assert booked(limiter) == (0, 0, 0)


def test_two_clients_on_one_http_client_are_limited_apart(provider: SimulatedProvider) -> None:
    """LangChain's ChatAnthropic does so: it caches its HTTP clients, for all instances."""
    shared = anthropic.DefaultHttpxClient()
    plain, limited, other = roomy(), roomy(), roomy()
    clients = [client_of(Anthropic, provider, http_client=shared) for _ in range(3)]
    one, two = adapter(clients[0], limited), adapter(clients[1], other)
    for client, times in ((one, 1), (two, 2), (clients[2], 3)):
        for _ in range(times):
            ask(client)
    assert [booked(limiter)[0] for limiter in (plain, limited, other)] == [0, 1, 2]
    assert provider.report().received == 6


def test_copies_of_a_twin_keep_the_credentials_of_its_original() -> None:
    """The SDK hands a token provider on to copies of its own classes only."""
    token = AccessToken(token="from-the-provider", expires_at=None)
    heard: list[Heard] = []

    def answer(request: Heard) -> Reply:
        heard.append(request)
        usage = {"input_tokens": 3, "output_tokens": 2}
        message = {"id": "m", "type": "message", "role": "assistant", "model": MODEL, "content": [], "usage": usage}
        return Reply([json.dumps(message).encode()])

    limiter = roomy()
    with ScriptedServer(answer) as server:
        original = Anthropic(base_url=server.url, credentials=lambda **_: token)
        clients.append(original)
        ask(adapter(original, limiter).with_options(timeout=5).copy())
    assert heard[0].headers["authorization"] == "Bearer from-the-provider"
    assert booked(limiter) == (1, 3, 2)


# ------------------------------------------------------------------ other clouds


def test_bedrock_and_vertex_are_told_by_their_clients() -> None:
    paths: list[str] = []

    def answer(request: Heard) -> Reply:
        paths.append(request.path)
        usage = {"input_tokens": 3, "output_tokens": 2}
        message = {"id": "m", "type": "message", "role": "assistant", "model": MODEL, "content": [], "usage": usage}
        return Reply([json.dumps(message).encode()])

    with ScriptedServer(answer) as server:
        bedrock = AnthropicBedrock(base_url=server.url, api_key="key", aws_region="us-east-1")
        vertex = AnthropicVertex(base_url=server.url, region="global", project_id="p", access_token="t")
        for client, name in ((bedrock, "bedrock"), (vertex, "vertex")):
            limiter = roomy(name)
            ask(adapter(client, limiter))
            ask(adapter(client, limiter).with_options(timeout=5))
            assert booked(limiter) == (2, 6, 4), paths
            client.close()
