"""Google's own GenAI SDK, limited, against the simulated provider over a real socket."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import httpx2
import pytest
from google import genai
from google.genai import errors, types

from agent_rate_limiter import (
    MultiProviderLimiter,
    RateLimiterError,
)
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from agent_rate_limiter_adapters.google import adapter
from tests.adapters import support
from tests.adapters.openai_sdk import opened as clients
from tests.adapters.refusing import refusals
from tests.adapters.support import Heard, Reply, ScriptedServer, accounted, booked, finish, used

MODEL = "gemini-2.5-flash"
QUESTION = "Why is the sky blue?"
CONFIG = types.GenerateContentConfig(max_output_tokens=60)
RETRYING = types.HttpRetryOptions(attempts=4, initial_delay=0.01)
ways = pytest.mark.parametrize("way", ["sync", "async"])


def roomy(name: str = "gemini", **options: Any) -> MultiProviderLimiter:
    """A limiter in which nothing binds, nothing refills, and nothing is retried."""
    return support.roomy(name, MODEL, **options)


def client_of(provider: SimulatedProvider, **options: Any) -> genai.Client:
    return opened(provider.gemini_url, **options)


def opened(url: str, *, enterprise: bool = False, **options: Any) -> genai.Client:
    http_options = types.HttpOptions(base_url=url, **options)
    client = genai.Client(api_key="key", enterprise=enterprise, http_options=http_options)
    clients.append(client)
    return client


def ask(models: Any, **options: Any) -> Any:
    return models.generate_content(**{"model": MODEL, "contents": QUESTION, "config": CONFIG, **options})


def stream(models: Any) -> Any:
    return models.generate_content_stream(model=MODEL, contents=QUESTION, config=CONFIG)


def chat(models: Any) -> Any:
    kind = genai.chats.AsyncChats if isinstance(models, genai.models.AsyncModels) else genai.chats.Chats
    return kind(models).create(model=MODEL).send_message(QUESTION)


def used_by(client: genai.Client, way: str, *calls: Callable[[Any], Any]) -> None:
    """Make calls through `client.models` or `client.aio.models`, each read to its end."""

    async def use() -> None:
        try:
            for call in calls:
                await finish(call(client.aio.models if way == "async" else client.models))
        finally:
            await client.aio.aclose()

    asyncio.run(use())


CALLS: dict[str, Callable[[Any], Any]] = {
    "plain": ask,
    "streamed": stream,
    "with retry options": lambda models: ask(
        models, config=types.GenerateContentConfig(http_options=types.HttpOptions(retry_options=RETRYING))
    ),
    "chat": chat,
}


@ways
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_every_kind_of_call_is_one_reservation_settled_with_what_the_provider_counted(
    provider: SimulatedProvider, way: str, call: Callable[[Any], Any]
) -> None:
    limiter = roomy()
    used_by(adapter(client_of(provider), limiter), way, call)
    assert booked(limiter) == accounted(provider)
    assert booked(limiter)[0] == used(limiter, "requests") == 1
    assert used(limiter, "tokens") == provider.report().input_tokens + provider.report().output_tokens > 0
    assert limiter.snapshot().in_flight == 0


def test_wrap_finds_the_adapter_by_itself(provider: SimulatedProvider) -> None:
    limiter = roomy()
    ask(limiter.wrap(client_of(provider)).models)
    assert booked(limiter) == accounted(provider)


@ways
def test_counting_tokens_is_not_limited(provider: SimulatedProvider, way: str) -> None:
    limiter = roomy()
    used_by(adapter(client_of(provider), limiter), way, lambda m: m.count_tokens(model=MODEL, contents=QUESTION))
    assert booked(limiter) == (0, 0, 0)


@ways
@pytest.mark.parametrize("vertex", [False, True])
def test_embeddings_are_requests_and_vertex_is_told_by_its_client(way: str, *, vertex: bool) -> None:
    def answer(request: Heard) -> Reply:
        del request
        one = {"values": [0.5], "statistics": {"token_count": 3}}
        return Reply([json.dumps({"embeddings": [one], "predictions": [{"embeddings": one}]}).encode()])

    limiter = roomy("vertex" if vertex else "gemini")
    with ScriptedServer(answer) as server:
        client = opened(server.url, enterprise=vertex)
        used_by(adapter(client, limiter), way, lambda m: m.embed_content(model=MODEL, contents=QUESTION))
    assert booked(limiter)[0] == len(server.heard) == 1
    assert used(limiter, "tokens") > 0
    assert limiter.snapshot().in_flight == 0


def test_interactions_are_limited_and_not_retried_by_the_sdk() -> None:
    def answer(request: Heard) -> Reply:
        del request
        return Reply([b'{"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}'], status=503)

    limiter = roomy()
    with ScriptedServer(answer) as server:
        twin = adapter(opened(server.url), limiter)
        with pytest.raises(Exception, match=r"503|busy"):
            twin.interactions.create(model=MODEL, input=QUESTION)
    assert booked(limiter)[0] == len(server.heard) == 1


# ------------------------------------------------------------------ streams that do not end well


@pytest.mark.parametrize("fault", ["slow_stream", "reset_stream", "truncated_stream"])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_stream_that_does_not_end_is_charged_its_estimate_at_least(
    provider: SimulatedProvider, way: str, fault: str
) -> None:
    limiter = roomy()
    provider.inject(Fault(fault, after_pieces=2, seconds=0.01))
    twin = adapter(client_of(provider), limiter)

    def begin(models: Any) -> Any:
        return _begun(stream(models)) if way == "sync" else _begun_async(stream(models))

    used_by(twin, way, begin)
    gc.collect()
    assert booked(limiter)[0] == 1
    assert used(limiter, "tokens") >= 60
    assert limiter.snapshot().in_flight == 0


def _begun(pieces: Any) -> list[Any]:
    """Leave a slow stream after its first piece; read any other up to where it breaks."""
    try:
        next(pieces)
        if isinstance(pieces, Iterator):
            pieces.close()  # type: ignore[attr-defined]
    except (httpx.TransportError, httpx2.TransportError, errors.APIError):
        pass
    return []


async def _begun_async(pieces: Any) -> list[Any]:
    opened: AsyncIterator[Any] = await pieces
    try:
        await opened.__anext__()
        await opened.aclose()  # type: ignore[attr-defined]
    except (httpx.TransportError, httpx2.TransportError, errors.APIError):
        pass
    return []


@ways
@pytest.mark.parametrize("pieces", [0, 2])
def test_an_error_inside_a_stream_is_the_sdks_error_and_is_settled(
    provider: SimulatedProvider, way: str, pieces: int
) -> None:
    limiter = roomy()
    provider.inject(Fault("stream_error", after_pieces=pieces), times=4)
    with pytest.raises(errors.APIError, match="503"):
        used_by(adapter(client_of(provider, retry_options=RETRYING), limiter), way, stream)
    assert provider.report().received == booked(limiter)[0] == 1
    assert limiter.snapshot().in_flight == 0


# ------------------------------------------------------------------ errors


@ways
@pytest.mark.parametrize("options", [{}, {"retry_options": RETRYING}])
def test_a_429_is_one_attempt_and_one_request_without_tokens(
    provider: SimulatedProvider, way: str, options: dict[str, Any]
) -> None:
    limiter = roomy()
    provider.inject(Fault("rate_limit", retry_after=0.02), times=5)
    config = types.GenerateContentConfig(http_options=types.HttpOptions(**options))
    with pytest.raises(errors.ClientError, match="RESOURCE_EXHAUSTED"):
        used_by(adapter(client_of(provider, **options), limiter), way, lambda models: ask(models, config=config))
    assert provider.report().received == 1
    assert booked(limiter) == (1, 0, 0)
    assert used(limiter, "tokens") == 0


REFUSALS = refusals("gemini", MODEL)


@ways
@pytest.mark.parametrize("call", [ask, stream])
@pytest.mark.parametrize(("error", "make"), REFUSALS.items(), ids=[error.__name__ for error in REFUSALS])
def test_the_limiters_errors_come_as_they_are_at_once(
    provider: SimulatedProvider,
    way: str,
    call: Callable[[Any], Any],
    error: type[RateLimiterError],
    make: Callable[[], MultiProviderLimiter],
) -> None:
    twin = adapter(client_of(provider), make(), timeout=0.02)
    begun = time.monotonic()
    with pytest.raises(error) as caught:
        used_by(twin, way, call)
    assert caught.type is error
    assert time.monotonic() - begun < 0.9  # the SDK's first backoff
    assert provider.report().received == 0
