"""Streams of OpenAI's own SDK, and how they end."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from agent_rate_limiter_adapters.openai import adapter
from tests.adapters.openai_sdk import ask, client_of, respond, until
from tests.adapters.support import MODEL, booked, roomy, used


def closed_early(stream: Any) -> None:
    next(iter(stream))
    stream.close()


def dropped(stream: Any) -> None:
    next(iter(stream))
    del stream
    gc.collect()


def dropped_unread(stream: Any) -> None:
    del stream
    gc.collect()


def read_through(stream: Any) -> None:
    with pytest.raises((openai.APIConnectionError, httpx.ReadError)):  # 2.x passes the latter on
        list(stream)


def read_to_the_end(stream: Any) -> None:
    list(stream)


def read_to_the_error(stream: Any) -> None:
    with pytest.raises(openai.APIError):
        list(stream)


@pytest.mark.parametrize(
    ("fault", "read"),
    [
        (None, closed_early),
        (None, dropped),
        (None, dropped_unread),
        ("reset_stream", read_through),
        ("truncated_stream", read_to_the_end),
        ("stream_error", read_to_the_error),
    ],
)
def test_a_stream_that_does_not_end_is_charged_its_estimate_at_least(
    provider: SimulatedProvider, fault: str | None, read: Callable[[Any], None]
) -> None:
    limiter = roomy()
    if fault is None:  # slowly, so that the end has not come yet
        provider.inject(Fault("slow_stream", seconds=0.01))
    else:
        provider.inject(Fault(fault, after_pieces=2))
    client = adapter(client_of(OpenAI, provider), limiter)
    with limiter.reserve(f"openai:{MODEL}", input_tokens=20, max_output_tokens=60) as call:
        stream = ask(client, stream=True)
        assert limiter.snapshot().in_flight == 1
        read(stream)
        del stream
        gc.collect()
    assert call.usage is not None
    assert not call.usage.exact
    assert call.usage.input_tokens > 0
    assert used(limiter, "tokens") >= 80
    assert limiter.snapshot().in_flight == 0


@pytest.mark.parametrize("ending", ["close", "break", "cancel"])
def test_an_async_stream_that_is_left_early_is_settled(provider: SimulatedProvider, ending: str) -> None:
    limiter = roomy()
    provider.inject(Fault("slow_stream", seconds=0.02))

    async def use() -> None:
        client = adapter(client_of(AsyncOpenAI, provider), limiter)

        async def read() -> None:
            stream: Any = await ask(client, stream=True)
            async for _ in stream:
                if ending == "close":
                    await stream.close()
                if ending != "cancel":
                    break

        task = asyncio.create_task(read())
        if ending == "cancel":
            await until(lambda: limiter.snapshot().in_flight == 1)
            await asyncio.sleep(0.03)
            task.cancel()
        await asyncio.wait([task])
        gc.collect()
        await until(lambda: limiter.snapshot().in_flight == 0)  # a dropped generator is closed by the loop
        await client.close()

    asyncio.run(use())
    assert booked(limiter)[0] == 1
    assert used(limiter, "tokens") >= 60


def test_a_refusal_inside_a_200_counts_as_a_request_without_tokens(provider: SimulatedProvider) -> None:
    limiter = roomy()
    client = adapter(client_of(OpenAI, provider), limiter)
    provider.inject(Fault("azure_failed_first", after_pieces=0))
    with pytest.raises(openai.APIError):
        list(respond(client, stream=True))
    provider.inject(Fault("stream_error", after_pieces=0))
    assert "error" in [event.type for event in list(respond(client, stream=True))]
    assert booked(limiter) == (2, 0, 0)
    assert used(limiter, "tokens") == 0


def test_a_refusal_inside_a_200_closes_the_target_as_long_as_it_says(provider: SimulatedProvider) -> None:
    limiter = roomy()
    error = {"type": "too_many_requests", "code": "rate_limit_exceeded", "message": "Too many."}
    refusal = Fault("azure_failed_first", after_pieces=0, error=error, headers={"retry-after": "30"})
    provider.inject(refusal)
    with pytest.raises(openai.APIError):
        list(respond(adapter(client_of(OpenAI, provider), limiter), stream=True))
    decision = limiter.explain(f"openai:{MODEL}").decision
    assert not decision.admitted
    assert decision.retry_after == pytest.approx(30, abs=2)


def test_streams_state_their_usage_unless_told_otherwise(provider: SimulatedProvider) -> None:
    limiter = roomy()
    plain = list(ask(client_of(OpenAI, provider), stream=True))
    asked = list(ask(adapter(client_of(OpenAI, provider), limiter), stream=True))
    assert len(asked) == len(plain)  # what only we asked for is not seen: `chunk.choices[0]` is safe
    assert all(chunk.choices for chunk in asked)
    unasked = list(ask(adapter(client_of(OpenAI, provider), limiter, include_usage=False), stream=True))
    assert len(unasked) == len(plain)
    decided = ask(adapter(client_of(OpenAI, provider), limiter), stream=True, stream_options={"include_usage": False})
    assert len(list(decided)) == len(plain)
    assert booked(limiter)[0] == 3


def test_a_stream_that_the_garbage_collector_finds_cannot_hang_the_limiter(provider: SimulatedProvider) -> None:
    """It may do so anywhere, also where the limiter holds its lock, and in any order."""
    limiter = roomy()
    provider.inject(Fault("slow_stream", seconds=0.01), times=2)
    client = adapter(client_of(OpenAI, provider), limiter)
    closed, found = ask(client, stream=True), ask(client, stream=True)
    gc.disable()
    try:
        for stream in (closed, found):
            next(iter(stream))
        del stream, found

        def collect(_: int) -> None:
            closed.close()
            gc.collect()

        busy = threading.Thread(target=limiter._calls.engine.read, args=(collect,), daemon=True)
        busy.start()
        busy.join(5)
        assert not busy.is_alive()
    finally:
        gc.enable()
    assert limiter.snapshot().in_flight == 0
    assert booked(limiter)[0] == 2
