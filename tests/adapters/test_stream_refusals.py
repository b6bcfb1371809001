"""A refusal inside a 200: while nothing of an answer has come, it is retried like a 429."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from agent_rate_limiter import MultiProviderLimiter, Price, RateLimiter, RetryStrategy
from agent_rate_limiter.testing import SimulatedProvider
from agent_rate_limiter.testing.simulated import Fault

MODEL = "gpt-4"
ASKED: Any = [{"role": "user", "content": "Why is the sky blue?"}]
ONCE = RetryStrategy(max_attempts=1)


def quick() -> RetryStrategy:
    """With a retry budget of its own."""
    return RetryStrategy(base=0.001)


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatedProvider]:
    with SimulatedProvider({MODEL: {"output_tokens": 20}}) as provider:
        yield provider


@pytest.fixture(autouse=True)
def _clean(provider: SimulatedProvider) -> None:
    provider.reset()


def limiter_of(retry: RetryStrategy | None = None) -> RateLimiter:
    return RateLimiter(target=f"openai:{MODEL}", price=Price(1, 1), retry=retry or quick())


def responses(provider: SimulatedProvider, limiter: RateLimiter | MultiProviderLimiter) -> str:
    with limiter.wrap(openai.OpenAI(base_url=provider.openai_url, api_key="any")) as client:
        return [event.type for event in client.responses.create(model=MODEL, input="Why?", stream=True)][-1]


def chat(provider: SimulatedProvider, limiter: RateLimiter | MultiProviderLimiter) -> str:
    with limiter.wrap(openai.OpenAI(base_url=provider.openai_url, api_key="any")) as client:
        chunks = client.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
        return [chunk.choices[0].finish_reason or "" for chunk in chunks][-1]


def messages(provider: SimulatedProvider, limiter: RateLimiter | MultiProviderLimiter) -> str:
    with (
        limiter.wrap(anthropic.Anthropic(base_url=provider.anthropic_url, api_key="any")) as client,
        client.messages.stream(model=MODEL, max_tokens=50, messages=ASKED) as stream,
    ):
        return str(stream.get_final_message().stop_reason)


def responses_async(provider: SimulatedProvider, limiter: RateLimiter | MultiProviderLimiter) -> str:
    async def main() -> str:
        async with limiter.wrap(openai.AsyncOpenAI(base_url=provider.openai_url, api_key="any")) as client:
            stream = await client.responses.create(model=MODEL, input="Why?", stream=True)
            return [event.type async for event in stream][-1]

    return asyncio.run(main())


def messages_async(provider: SimulatedProvider, limiter: RateLimiter | MultiProviderLimiter) -> str:
    async def main() -> str:
        original = anthropic.AsyncAnthropic(base_url=provider.anthropic_url, api_key="any")
        async with (
            limiter.wrap(original) as client,
            client.messages.stream(model=MODEL, max_tokens=50, messages=ASKED) as stream,
        ):
            return str((await stream.get_final_message()).stop_reason)

    return asyncio.run(main())


Call = Callable[[SimulatedProvider, "RateLimiter | MultiProviderLimiter"], str]
CALLS: list[tuple[Call, str]] = [
    (responses, "response.completed"),
    (chat, "stop"),
    (messages, "end_turn"),
    (responses_async, "response.completed"),
    (messages_async, "end_turn"),
]


@pytest.mark.parametrize("kind", ["stream_error", "azure_failed_first"])
@pytest.mark.parametrize(("call", "ends"), CALLS)
def test_it_is_retried_before_anything_of_the_answer(
    provider: SimulatedProvider, call: Call, ends: str, kind: str
) -> None:
    provider.inject(Fault(kind, after_pieces=0), times=2)
    limiter = limiter_of()
    assert call(provider, limiter) == ends
    report = provider.report()
    assert (report.received, report.failed, report.completed) == (3, 2, 1)
    (row,) = limiter.costs.report().to_dicts()
    assert (row["requests"], row["output_tokens"]) == (3, 20)


@pytest.mark.parametrize(("call", "_"), CALLS)
def test_it_reaches_the_caller_once_something_has(provider: SimulatedProvider, call: Call, _: str) -> None:
    provider.inject(Fault("stream_error", after_pieces=1), times=1)
    if call in {responses, responses_async}:  # the SDK raises nothing
        assert call(provider, limiter_of()) == "response.failed"
    else:
        with pytest.raises((openai.APIError, anthropic.APIStatusError)):
            call(provider, limiter_of())
    assert provider.report().received == 1


def test_a_rate_limit_closes_the_gate_as_long_as_its_headers_tell(provider: SimulatedProvider) -> None:
    """Azure: HTTP 200 with `retry-after`, then `event: error` with code rate_limit_exceeded."""
    error = {"type": "tokens", "code": "rate_limit_exceeded", "message": "Rate limit reached."}
    fault = Fault("stream_error", after_pieces=0, error=error, headers={"retry-after-ms": "40"})
    provider.inject(fault, times=1)
    limiter = MultiProviderLimiter(retry=quick())
    assert responses(provider, limiter) == "response.completed"
    first, second = provider.requests
    assert second.at - first.at >= 0.04


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
def test_who_may_not_retry_sees_every_byte_of_it(provider: SimulatedProvider, path: str) -> None:
    body = {"model": MODEL, "input": "Why?", "messages": ASKED, "stream": True}
    seen = []
    for wrapped in (False, True):
        provider.reset()
        provider.inject(Fault("stream_error", after_pieces=0), times=1)
        with httpx2.Client() as plain:
            client = limiter_of(ONCE).wrap(plain, include_usage=False) if wrapped else plain
            with client.stream("POST", provider.url + path, json=body) as response:
                seen.append([line for line in response.iter_lines() if "created" not in line])
    assert seen[0] == seen[1]
    assert any("error" in line for line in seen[0])


@pytest.mark.parametrize("call", [chat, responses_async])
def test_a_stream_that_breaks_before_anything_has_come_is_made_anew(provider: SimulatedProvider, call: Call) -> None:
    provider.inject(Fault("reset_stream", after_pieces=0), times=1)
    assert call(provider, limiter_of()) in {"stop", "response.completed"}
    assert provider.report().received == 2


@pytest.mark.parametrize("call", [chat, responses_async])
def test_a_stream_that_ends_before_anything_has_come_reaches_the_caller(
    provider: SimulatedProvider, call: Call
) -> None:
    provider.inject(Fault("truncated_stream", after_pieces=0), times=1)
    limiter = limiter_of()
    assert call(provider, limiter) not in {"stop", "response.completed"}
    assert provider.report().received == 1
    assert limiter.snapshot().in_flight == 0


def test_what_is_not_read_is_charged(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    with limiter.wrap(openai.OpenAI(base_url=provider.openai_url, api_key="any")) as client:
        client.responses.create(model=MODEL, input="Why?", stream=True, max_output_tokens=30).close()
    assert limiter.costs.report().to_dicts()[0]["requests"] == 1
    assert limiter.snapshot().in_flight == 0
