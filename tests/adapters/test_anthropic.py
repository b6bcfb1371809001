"""Anthropic's own SDK, limited, against the simulated provider over a real socket."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from agent_rate_limiter import (
    MultiProviderLimiter,
    RateLimiterError,
)
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from agent_rate_limiter_adapters.anthropic import adapter
from tests.adapters import support
from tests.adapters.openai_sdk import opened as clients
from tests.adapters.refusing import refusals
from tests.adapters.support import accounted, booked, finish, used

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
