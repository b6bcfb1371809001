"""Limited twins of plain clients: where their calls go, and what they share with the original."""

from __future__ import annotations

import asyncio
import gc
import gzip
import importlib
import json
from typing import Any

import pytest

from agent_rate_limiter import (
    ConfigError,
    Limit,
    MultiProviderLimiter,
    Provider,
    RateLimiter,
    RequestTooLarge,
    Resource,
)
from agent_rate_limiter.testing.simulated import SimulatedProvider
from agent_rate_limiter_adapters.http import adapter
from tests.adapters.plain_http import (
    ANSWER,
    ASKED,
    PATH,
    everywhere,
    post,
    reply_json,
    send,
)
from tests.adapters.support import MODEL, ScriptedServer, accounted, booked, finish, roomy


@everywhere
def test_a_refusal_reaches_the_caller_and_nothing_is_sent(library: str, side: str) -> None:
    limiter = MultiProviderLimiter([Provider("openai", {MODEL: {"tpm": 10}})])
    with ScriptedServer(lambda _: reply_json(ANSWER)) as server:
        with pytest.raises(RequestTooLarge) as caught:
            send(library, side, server, post, limiter)
        assert not server.heard
    assert type(caught.value) is RequestTooLarge
    assert caught.value.__cause__ is None


@everywhere
def test_a_provider_is_found_by_its_base_url(library: str, side: str) -> None:
    with ScriptedServer(lambda _: reply_json(ANSWER)) as server:
        providers = [Provider("openai", {MODEL: {}}), Provider("mine", {MODEL: {}}, base_url=f"{server.url}/v1")]
        limiter = MultiProviderLimiter(providers)
        send(library, side, server, post, limiter, provider=None)
        assert [row["provider"] for row in limiter.costs.report().to_dicts()] == ["mine"]
        with pytest.raises(ConfigError, match="No provider is configured"):
            send(
                library,
                side,
                server,
                lambda client: client.post("/v2/chat/completions", json=ASKED),
                limiter,
                provider=None,
            )
        assert len(server.heard) == 1


@everywhere
def test_a_transport_that_has_read_its_answer_already_is_limited_too(library: str, side: str) -> None:
    module = importlib.import_module(library)
    limiter = roomy()
    answers = [
        module.Response(200, json=ANSWER),
        module.Response(429, headers={"retry-after": "0.01"}, json={"error": {"code": "rate_limit_exceeded"}}),
        module.Response(200, headers={"content-encoding": "gzip"}, content=gzip.compress(json.dumps(ANSWER).encode())),
    ]
    client = getattr(module, side)(transport=module.MockTransport(lambda _: answers.pop(0)), base_url="http://mock")

    async def use() -> None:
        twin = adapter(client, limiter, provider="openai")
        for status in (200, 429, 200):
            response = (await finish(post(twin)))[0]
            assert response.status_code == status
            assert response.json()
        await finish(twin.aclose() if side == "AsyncClient" else twin.close())

    asyncio.run(use())
    assert booked(limiter) == (3, 22, 14)


@everywhere
def test_the_connection_of_an_error_is_given_back(library: str, side: str) -> None:
    module: Any = importlib.import_module(library)
    closed: list[bool] = []

    class Broken(module.SyncByteStream, module.AsyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Any:
            yield b"{"
            raise module.ReadError("lost")

        async def __aiter__(self) -> Any:
            yield b"{"
            raise module.ReadError("lost")

        def close(self) -> None:
            closed.append(True)

        async def aclose(self) -> None:
            closed.append(True)

    limiter = roomy()
    transport = module.MockTransport(lambda _: module.Response(500, stream=Broken()))
    client = getattr(module, side)(transport=transport, base_url="http://mock")

    async def use() -> None:
        with pytest.raises(module.ReadError):
            await finish(post(adapter(client, limiter, provider="openai")))
        await finish(client.aclose() if side == "AsyncClient" else client.close())

    asyncio.run(use())
    assert closed == [True]
    assert limiter.snapshot().in_flight == 0


@everywhere
def test_a_twin_has_its_own_settings_and_shares_the_connections(library: str, side: str) -> None:
    module = importlib.import_module(library)
    limiter = roomy()
    original = getattr(module, side)(headers={"x-team": "blue"}, cookies={"a": "1"}, timeout=3.0, trust_env=False)

    async def use() -> None:
        with ScriptedServer(lambda _: reply_json(ANSWER)) as server:
            twin = adapter(original, limiter, provider="openai")
            assert isinstance(twin, type(original))
            assert (twin.headers["x-team"], twin.cookies["a"], twin.timeout) == ("blue", "1", original.timeout)
            twin.headers["x-team"], twin.cookies["a"] = "red", "2"
            twin.event_hooks["request"].append(print)
            assert (original.headers["x-team"], original.cookies["a"]) == ("blue", "1")
            assert original.event_hooks["request"] == []
            twin.event_hooks = {}
            await finish(original.post(server.url + PATH, json=ASKED))
            assert booked(limiter) == (0, 0, 0)
            await finish(twin.post(server.url + PATH, json=ASKED))
            del twin
            gc.collect()
            again = adapter(original, limiter, provider="openai")
            await finish(again.aclose() if side == "AsyncClient" else again.close())
            with pytest.raises(RuntimeError, match="closed"):
                await finish(again.post(server.url + PATH, json=ASKED))
            await finish(original.post(server.url + PATH, json=ASKED))
            assert server.heard[1].headers["x-team"] == "red"
            await finish(original.aclose() if side == "AsyncClient" else original.close())

    asyncio.run(use())
    assert booked(limiter) == (1, 11, 7)


@everywhere
def test_a_twin_of_a_twin_counts_once(library: str, side: str) -> None:
    limiter = roomy()
    with ScriptedServer(lambda _: reply_json(ANSWER)) as server:
        send(library, side, server, lambda client: post(adapter(client, limiter, provider="openai")), limiter)
    assert booked(limiter) == (1, 11, 7)


@everywhere
def test_a_twin_opens_and_closes_as_a_context(library: str, side: str) -> None:
    limiter = roomy()

    async def use() -> None:
        with ScriptedServer(lambda _: reply_json(ANSWER)) as server:
            twin = adapter(getattr(importlib.import_module(library), side)(), limiter, provider="openai")
            if side == "AsyncClient":
                async with twin:
                    await twin.post(server.url + PATH, json=ASKED)
            else:
                with twin:
                    twin.post(server.url + PATH, json=ASKED)
            assert twin.is_closed

    asyncio.run(use())
    assert booked(limiter) == (1, 11, 7)


@everywhere
def test_wrap_finds_the_adapter_by_itself(library: str, side: str) -> None:
    limiter = RateLimiter(rpd=100)
    with ScriptedServer(lambda _: reply_json(ANSWER)) as server:

        async def use() -> None:
            twin = limiter.wrap(getattr(importlib.import_module(library), side)())
            await finish(twin.post(server.url + PATH, json=ASKED))
            await finish(twin.aclose() if side == "AsyncClient" else twin.close())

        asyncio.run(use())
    assert booked(limiter) == (1, 11, 7)


@pytest.mark.parametrize("thing", [object(), "http://127.0.0.1", importlib.import_module("httpx").Response(200)])
def test_only_clients_are_wrapped(thing: object) -> None:
    with pytest.raises(ConfigError, match="give a Client or AsyncClient of httpx or httpx2"):
        adapter(thing, roomy())


@everywhere
@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("anthropic", "/v1/messages", {"model": "claude", "max_tokens": 50}),
        ("anthropic", "/v1/messages", {"model": "claude", "max_tokens": 50, "stream": True}),
        ("gemini", "/v1beta/models/claude:generateContent", {}),
        ("gemini", "/v1beta/models/claude:streamGenerateContent?alt=sse", {}),
        ("gemini", "/v1beta/models/claude:streamGenerateContent", {}),
    ],
)
def test_other_providers_are_settled_with_what_they_counted(
    library: str, side: str, name: str, path: str, body: dict[str, Any]
) -> None:
    limiter = MultiProviderLimiter([Provider(name, {"claude": {"limits": [Limit(Resource.REQUESTS, 99, None)]}})])
    if name == "anthropic":
        body = {**body, "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
    else:
        body = {**body, "contents": [{"role": "user", "parts": [{"text": "Why is the sky blue?"}]}]}
    with SimulatedProvider(default={"output_tokens": 30}) as provider:

        async def use() -> None:
            client = getattr(importlib.import_module(library), side)(base_url=provider.url)
            twin = adapter(client, limiter, provider=name)
            response = (await finish(twin.post(path, json=body)))[0]
            assert response.status_code == 200
            await finish(twin.aclose() if side == "AsyncClient" else twin.close())

        asyncio.run(use())
        assert booked(limiter) == accounted(provider)
        assert booked(limiter)[0] == 1
