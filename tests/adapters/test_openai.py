"""OpenAI's own SDK, whichever version is installed, limited, against the simulated provider over a real socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI
from pydantic import BaseModel

from agent_rate_limiter import (
    AcquireTimeout,
    MultiProviderLimiter,
    Price,
    Provider,
    RateLimiter,
)
from agent_rate_limiter.testing.simulated import SimulatedProvider
from agent_rate_limiter_adapters.openai import adapter
from tests.adapters.openai_sdk import QUESTION, ask, both, client_of, respond, until
from tests.adapters.support import MODEL, accounted, booked, finish, roomy, used

TOOLS: Any = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]
AZURE = {"api_version": "2026-01-01", "api_key": "key"}


class Colour(BaseModel):
    name: str
    wavelength: int


CALLS: dict[str, Callable[[Any], Any]] = {
    "chat": ask,
    "chat with tools": lambda client: ask(client, tools=TOOLS),
    "chat, three choices": lambda client: ask(client, n=3),
    "chat parsed": lambda client: client.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=Colour),
    "chat streamed": lambda client: ask(client, stream=True),
    "chat streamed, usage asked for": lambda client: ask(client, stream=True, stream_options={"include_usage": True}),
    "chat stream helper": lambda client: client.chat.completions.stream(model=MODEL, messages=QUESTION),
    "chat raw": lambda client: client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION),
    "chat streaming response": lambda client: client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=QUESTION
    ),
    "responses": respond,
    "responses parsed": lambda client: client.responses.parse(model=MODEL, input="Red?", text_format=Colour),
    "responses streamed": lambda client: respond(client, stream=True),
    "responses stream helper": lambda client: client.responses.stream(model=MODEL, input="Why is the sky blue?"),
    "embeddings": lambda client: client.embeddings.create(model=MODEL, input=["one", "two"]),
    "embeddings raw": lambda client: client.embeddings.with_raw_response.create(model=MODEL, input="one"),
    "other options": lambda client: ask(client.with_options(timeout=10)),
    "copy of a copy": lambda client: ask(client.copy().with_options(max_retries=3)),
}


@both
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_every_kind_of_call_is_one_reservation_settled_with_what_the_provider_counted(
    provider: SimulatedProvider, kind: Callable[..., Any], call: Callable[[Any], Any]
) -> None:
    limiter = roomy()

    async def use() -> None:
        client = adapter(client_of(kind, provider), limiter)
        await finish(call(client))
        await finish(client.close())

    asyncio.run(use())
    assert booked(limiter) == accounted(provider)
    assert booked(limiter)[0] == 1
    assert used(limiter, "requests") == 1
    assert used(limiter, "tokens") == provider.report().input_tokens + provider.report().output_tokens > 0
    assert limiter.snapshot().in_flight == 0


def test_wrap_finds_the_adapter_by_itself(provider: SimulatedProvider) -> None:
    limiter = roomy()
    ask(limiter.wrap(client_of(OpenAI, provider)))
    assert booked(limiter) == accounted(provider)


def test_what_is_no_model_call_is_not_counted(provider: SimulatedProvider) -> None:
    limiter = roomy()
    adapter(client_of(OpenAI, provider), limiter).models.list()
    assert booked(limiter) == (0, 0, 0)


@both
def test_azure_is_told_by_its_client_and_its_deployments(provider: SimulatedProvider, kind: Any) -> None:
    limiter = MultiProviderLimiter([Provider("azure-openai", {MODEL: {"rpd": 100, "tpd": 100_000}})])
    azure = AzureOpenAI if kind is OpenAI else AsyncAzureOpenAI

    async def use() -> None:
        client = adapter(azure(azure_endpoint=provider.url, **AZURE), limiter)  # type: ignore[call-overload]
        await finish(ask(client))
        await finish(ask(client, stream=True))
        await finish(client.close())

    asyncio.run(use())
    assert booked(limiter) == accounted(provider)
    assert booked(limiter)[0] == 2


def test_a_limiter_of_one_model_takes_every_call(provider: SimulatedProvider) -> None:
    limiter = RateLimiter(rpd=100, tpd=100_000)
    ask(adapter(client_of(OpenAI, provider), limiter), model="whatever")
    assert booked(limiter) == accounted(provider)


# ------------------------------------------------------------------ one call is counted once


@both
def test_a_decorated_function_and_its_wrapped_client_count_once(provider: SimulatedProvider, kind: Any) -> None:
    limiter = roomy()
    client = adapter(client_of(kind, provider), limiter)

    @limiter.limit(provider="openai", model=MODEL, max_output_tokens=60)
    def once() -> Any:
        return ask(client)

    @limiter.limit(provider="openai", model=MODEL, max_output_tokens=60)
    async def once_async() -> Any:
        return await ask(client)

    @limiter.limit(provider="openai", model=MODEL, max_output_tokens=60)
    async def twice() -> None:
        await finish(ask(client))
        await finish(ask(client))

    async def use() -> None:
        await finish(once() if kind is OpenAI else once_async())
        assert booked(limiter) == accounted(provider)
        await twice()
        await finish(client.close())

    asyncio.run(use())
    assert booked(limiter) == accounted(provider)
    assert used(limiter, "requests") == provider.report().received == 3
    assert limiter.snapshot().in_flight == 0


def test_wrapping_twice_counts_once_on_the_latest_terms(provider: SimulatedProvider) -> None:
    limiter = roomy(concurrency=1)
    twin = adapter(adapter(client_of(OpenAI, provider), limiter), limiter, timeout=0.02)
    ask(twin)
    assert booked(limiter) == accounted(provider)
    held = limiter.acquire(f"openai:{MODEL}")
    with pytest.raises(AcquireTimeout):
        ask(twin)
    held.cancel()


def test_two_limiters_both_count(provider: SimulatedProvider) -> None:
    inner, outer = roomy(), roomy()
    list(ask(adapter(adapter(client_of(OpenAI, provider), inner), outer), stream=True))
    assert booked(inner) == booked(outer) == accounted(provider)


# ------------------------------------------------------------------ many at once


def test_fifty_threads_share_one_limit(provider: SimulatedProvider) -> None:
    limiter = roomy(concurrency=8)
    client = adapter(client_of(OpenAI, provider), limiter)
    provider.set_limits(MODEL, concurrency=8)

    def work(number: int) -> None:
        if number % 2:
            list(ask(client, stream=True))
        else:
            ask(client)

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(work, range(100)))
    assert booked(limiter) == accounted(provider)
    assert provider.report().completed == 100
    assert limiter.snapshot().in_flight == limiter.snapshot().waiting == 0


def test_two_hundred_tasks_share_one_limit(provider: SimulatedProvider) -> None:
    limiter = roomy(concurrency=20)
    provider.set_limits(MODEL, concurrency=20)

    async def use() -> None:
        async with adapter(client_of(AsyncOpenAI, provider), limiter) as client:
            await asyncio.gather(*(finish(ask(client, stream=number % 2 == 0)) for number in range(200)))

    asyncio.run(use())
    assert booked(limiter) == accounted(provider)
    assert provider.report().completed == 200
    assert limiter.snapshot().in_flight == limiter.snapshot().waiting == 0


def test_a_cancelled_wait_leaves_no_trace(provider: SimulatedProvider) -> None:
    limiter = roomy(concurrency=1)

    async def use() -> None:
        async with adapter(client_of(AsyncOpenAI, provider), limiter) as client:
            held = limiter.acquire(f"openai:{MODEL}")
            waiting = asyncio.create_task(ask(client))
            await until(lambda: limiter.snapshot().waiting == 1)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
            held.cancel()

    asyncio.run(use())
    assert provider.report().received == 0
    assert limiter.snapshot().in_flight == limiter.snapshot().waiting == 0


def test_priority_decides_who_goes_first(provider: SimulatedProvider) -> None:
    limiter = roomy(concurrency=1)
    original = client_of(AsyncOpenAI, provider)
    order: list[str] = []

    async def call(name: str, client: Any) -> None:
        await ask(client)
        order.append(name)

    async def use() -> None:
        patient, urgent = adapter(original, limiter, priority=10), adapter(original, limiter, priority=0)
        held = limiter.acquire(f"openai:{MODEL}")
        tasks = [asyncio.create_task(call("patient", patient)) for _ in range(3)]
        await until(lambda: limiter.snapshot().waiting == 3)
        tasks.append(asyncio.create_task(call("urgent", urgent)))
        await until(lambda: limiter.snapshot().waiting == 4)
        held.cancel()
        await asyncio.gather(*tasks)
        await original.close()

    asyncio.run(use())
    assert order[0] == "urgent"


def test_dollars_are_booked_from_real_usage(provider: SimulatedProvider) -> None:
    price = Price(input_per_1m=30, output_per_1m=60)
    limiter = RateLimiter(rpd=100, price=price, target=f"openai:{MODEL}")
    before = time.time()
    answer = ask(adapter(client_of(OpenAI, provider), limiter))
    expected = (answer.usage.prompt_tokens * 30 + answer.usage.completion_tokens * 60) / 1e6
    assert limiter.snapshot().spend == pytest.approx(expected)
    assert before <= limiter.snapshot().at


@both
def test_labels_are_asked_for_at_every_call(provider: SimulatedProvider, kind: Any) -> None:
    limiter = roomy()
    steps = iter(("plan", "act"))

    async def use() -> None:
        twin = limiter.wrap(client_of(kind, provider), labels=lambda: {"step": next(steps)})
        with limiter.scope(agent="a"):
            await finish(ask(twin))
            await finish(ask(twin))
        await finish(twin.close())

    assert limiter.can_wrap(client_of(OpenAI, provider))
    assert limiter.can_wrap(kind)
    assert not limiter.can_wrap(object())
    asyncio.run(use())
    rows = limiter.costs.report(by=("agent", "step")).to_dicts()
    assert {(row["agent"], row["step"]) for row in rows} == {("a", "plan"), ("a", "act")}
