"""Anthropic's own SDK, limited, against the simulated provider over a real socket."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Callable
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.lib.bedrock import AnthropicBedrock
from anthropic.lib.credentials import AccessToken
from anthropic.lib.vertex import AnthropicVertex

from agent_rate_limiter import (
    ConfigError,
    MultiProviderLimiter,
    Provider,
    RateLimiterError,
)
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from agent_rate_limiter_adapters.anthropic import adapter
from tests.adapters import support
from tests.adapters.openai_sdk import opened as clients
from tests.adapters.refusing import refusals
from tests.adapters.support import Heard, Reply, ScriptedServer, accounted, booked, finish, used

MODEL = "claude-opus-4"
QUESTION: Any = [{"role": "user", "content": "Why is the sky blue?"}]
TOOLS: Any = [{"name": "look_up", "description": "Look it up.", "input_schema": {"type": "object", "properties": {}}}]
BOTH: list[Any] = [Anthropic, AsyncAnthropic]
both = pytest.mark.parametrize("kind", BOTH)


def roomy(name: str = "anthropic", **options: Any) -> MultiProviderLimiter:
    """A limiter in which nothing binds, nothing refills, and nothing is retried."""
    return support.roomy(name, MODEL, **options)


def client_of(kind: Callable[..., Any], provider: SimulatedProvider, **options: Any) -> Any:
    client = kind(**{"base_url": provider.anthropic_url, "api_key": "sk-test", **options})
    if not hasattr(client, "__aenter__"):
        clients.append(client)
    return client


def ask(client: Any, **options: Any) -> Any:
    return client.messages.create(**{"model": MODEL, "messages": QUESTION, "max_tokens": 60, **options})


def stream_helper(client: Any) -> Any:
    return client.messages.stream(model=MODEL, messages=QUESTION, max_tokens=60)


def raw(client: Any, **options: Any) -> Any:
    given: Any = {"model": MODEL, "messages": QUESTION, "max_tokens": 60, **options}
    return client.messages.with_raw_response.create(**given)


async def read_body(result: Any) -> None:
    """Read a raw, plain or streamed response to its end."""
    manager = result
    if hasattr(manager, "__aenter__"):
        async with manager as response:
            await finish(response.read())
    else:
        with manager as response:
            response.read()


CALLS: dict[str, Callable[[Any], Any]] = {
    "plain": ask,
    "with a system prompt and tools": lambda client: ask(client, system="Be brief.", tools=TOOLS),
    "streamed": lambda client: ask(client, stream=True),
    "stream helper": stream_helper,
    "beta": lambda client: client.beta.messages.create(model=MODEL, messages=QUESTION, max_tokens=60, betas=["x"]),
    "raw": raw,
    "other options": lambda client: ask(client.with_options(timeout=10)),
    "copy of a copy": lambda client: ask(client.copy().with_options(max_retries=3), stream=True),
}


@both
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_every_kind_of_call_is_one_reservation_settled_with_what_the_provider_counted(
    provider: SimulatedProvider, kind: Any, call: Callable[[Any], Any]
) -> None:
    limiter = roomy()

    async def use() -> None:
        client = adapter(client_of(kind, provider), limiter)
        await finish(call(client))
        await finish(client.close())

    asyncio.run(use())
    assert booked(limiter) == accounted(provider)
    assert booked(limiter)[0] == used(limiter, "requests") == 1
    assert used(limiter, "tokens") == provider.report().input_tokens + provider.report().output_tokens > 0
    assert limiter.snapshot().in_flight == 0


@both
def test_a_streaming_response_is_settled_when_it_has_been_read(provider: SimulatedProvider, kind: Any) -> None:
    limiter = roomy()

    async def use() -> None:
        client = adapter(client_of(kind, provider), limiter)
        given: Any = {"model": MODEL, "messages": QUESTION, "max_tokens": 60, "stream": True}
        await read_body(client.messages.with_streaming_response.create(**given))
        await finish(client.close())

    asyncio.run(use())
    assert booked(limiter) == accounted(provider)
    assert limiter.snapshot().in_flight == 0


def test_wrap_finds_the_adapter_by_itself(provider: SimulatedProvider) -> None:
    limiter = roomy()
    ask(limiter.wrap(client_of(Anthropic, provider)))
    assert booked(limiter) == accounted(provider)


def test_what_is_cached_is_booked_as_such() -> None:
    with SimulatedProvider(default={"output_tokens": 40, "cached_tokens": 4, "cache_write_tokens": 2}) as caching:
        limiter = roomy()
        answer = ask(adapter(client_of(Anthropic, caching), limiter))
        assert answer.usage.cache_read_input_tokens == 4
        assert booked(limiter) == accounted(caching)


def test_counting_tokens_is_not_limited(provider: SimulatedProvider) -> None:
    limiter = roomy()
    adapter(client_of(Anthropic, provider), limiter).messages.count_tokens(model=MODEL, messages=QUESTION)
    assert booked(limiter) == (0, 0, 0)


# ------------------------------------------------------------------ streams that do not end well


def closed_early(stream: Any) -> None:
    next(iter(stream))
    stream.close()


def dropped(stream: Any) -> None:
    next(iter(stream))
    del stream
    gc.collect()


def read_through(stream: Any) -> None:
    with pytest.raises(Exception, match=r"(?i)reset|read|connection"):
        list(stream)


@pytest.mark.parametrize(
    ("fault", "read"),
    [
        (Fault("slow_stream", seconds=0.01), closed_early),
        (Fault("slow_stream", seconds=0.01), dropped),
        (Fault("reset_stream", after_pieces=2), read_through),
        (Fault("truncated_stream", after_pieces=2), list),
    ],
)
def test_a_stream_that_does_not_end_is_charged_its_estimate_at_least(
    provider: SimulatedProvider, fault: Fault, read: Callable[[Any], object]
) -> None:
    limiter = roomy()
    provider.inject(fault)
    client = adapter(client_of(Anthropic, provider), limiter)
    with limiter.reserve(f"anthropic:{MODEL}", input_tokens=5, max_output_tokens=60) as call:
        stream = ask(client, stream=True)
        assert limiter.snapshot().in_flight == 1
        read(stream)
        del stream
        gc.collect()
    assert call.usage is not None
    assert not call.usage.exact
    assert used(limiter, "tokens") >= 60
    assert limiter.snapshot().in_flight == 0


def test_an_async_stream_that_is_left_early_is_settled(provider: SimulatedProvider) -> None:
    limiter = roomy()
    provider.inject(Fault("slow_stream", seconds=0.02))

    async def use() -> None:
        async with adapter(client_of(AsyncAnthropic, provider), limiter) as client, stream_helper(client) as stream:
            async for _ in stream.text_stream:
                break
        assert limiter.snapshot().in_flight == 0

    asyncio.run(use())
    assert booked(limiter)[0] == 1
    assert used(limiter, "tokens") >= 60


@both
@pytest.mark.parametrize("pieces", [0, 3])
def test_an_overload_inside_a_stream_is_the_sdks_error_and_is_settled(
    provider: SimulatedProvider, kind: Any, pieces: int
) -> None:
    limiter = roomy()
    provider.inject(Fault("stream_error", after_pieces=pieces), times=4)

    async def use() -> None:
        client = adapter(client_of(kind, provider, max_retries=3), limiter)
        with pytest.raises(anthropic.APIStatusError, match=r"(?i)overloaded"):
            await finish(ask(client, stream=True))
        await finish(client.close())

    asyncio.run(use())
    assert provider.report().received == booked(limiter)[0] == 1
    assert limiter.snapshot().in_flight == 0


# ------------------------------------------------------------------ errors


@both
@pytest.mark.parametrize("options", [{}, {"max_retries": 5}])
@pytest.mark.parametrize("stream", [False, True])
def test_a_429_is_one_attempt_and_one_request_without_tokens(
    provider: SimulatedProvider, kind: Any, options: dict[str, Any], *, stream: bool
) -> None:
    limiter = roomy()
    provider.inject("rate_limit", times=5)

    async def use() -> None:
        client = adapter(client_of(kind, provider), limiter).with_options(**options)
        with pytest.raises(anthropic.RateLimitError):
            await finish(ask(client, stream=stream))
        await finish(client.close())

    asyncio.run(use())
    assert provider.report().received == 1
    assert booked(limiter) == (1, 0, 0)
    assert used(limiter, "tokens") == 0


REFUSALS = refusals("anthropic", MODEL)


@both
@pytest.mark.parametrize(("error", "make"), REFUSALS.items(), ids=[error.__name__ for error in REFUSALS])
def test_the_limiters_errors_come_as_they_are_at_once(
    provider: SimulatedProvider, kind: Any, error: type[RateLimiterError], make: Callable[[], MultiProviderLimiter]
) -> None:
    limiter = make()

    async def use() -> None:
        client = adapter(client_of(kind, provider), limiter, timeout=0.02).with_options(max_retries=4)
        begun = time.monotonic()
        with pytest.raises(error) as caught:
            await finish(ask(client))
        assert time.monotonic() - begun < 0.4  # the SDK's first backoff
        assert caught.type is error
        assert caught.value.__context__ is None or caught.value.__suppress_context__
        await finish(client.close())

    asyncio.run(use())
    assert provider.report().received == 0


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
