"""Anthropic's own SDK against the simulated provider, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from pydantic import BaseModel

from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider, count_tokens

if TYPE_CHECKING:
    from anthropic.types import MessageParam

QUESTION: list[MessageParam] = [{"role": "user", "content": "Why is the sky blue?"}]  # 20 characters


class Weather(BaseModel):
    city: str
    degrees: int


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatedProvider]:
    with SimulatedProvider(
        {
            "claude": {
                "rpm": 60,
                "itpm": 30_000,
                "otpm": 8_000,
                "output_tokens": 50,
                "cached_tokens": 2,
                "cache_write_tokens": 1,
                "reasoning_tokens": 10,
            }
        }
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(provider: SimulatedProvider) -> None:
    provider.reset()


@pytest.fixture(scope="module")
def client(provider: SimulatedProvider) -> Iterator[Anthropic]:
    with Anthropic(base_url=provider.anthropic_url, api_key="sk-secret", max_retries=0) as running:
        yield running


def test_a_message_counts_input_apart_from_the_cache(client: Anthropic, provider: SimulatedProvider) -> None:
    raw = client.messages.with_raw_response.create(model="claude", max_tokens=100, messages=QUESTION)
    message = raw.parse()
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (2, 2, 1)
    assert usage.output_tokens == 50
    assert message.content[0].type == "text"
    assert count_tokens(message.content[0].text) == 40  # 10 of the 50 were thought
    assert message.stop_reason == "end_turn"
    assert raw.headers["anthropic-ratelimit-requests-remaining"] == "59"
    assert raw.headers["anthropic-ratelimit-output-tokens-limit"] == "8000"
    assert raw.headers["anthropic-ratelimit-output-tokens-remaining"] == "8000"  # 7950, to the nearest thousand
    assert raw.headers["request-id"].startswith("req_")
    limits = provider.report()["claude"].limits
    assert (limits["itpm"].used, limits["otpm"].used) == (3, 50)  # cache reads are free


def test_a_streamed_message_says_the_same(client: Anthropic, provider: SimulatedProvider) -> None:
    whole = client.messages.create(model="claude", max_tokens=100, messages=QUESTION)
    provider.reset()
    with client.messages.stream(model="claude", max_tokens=100, messages=QUESTION) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_message()
    assert events[0] == "message_start"
    assert events[-1] == "message_stop"
    assert events.count("content_block_delta") > 5
    assert final.content[0].to_dict()["text"] == whole.content[0].to_dict()["text"]
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.usage.input_tokens == whole.usage.input_tokens
    assert provider.report()["claude"].limits["otpm"].used == 50


def test_the_raw_stream_carries_input_first_and_cumulative_output_last(client: Anthropic) -> None:
    events = list(client.messages.create(model="claude", max_tokens=100, messages=QUESTION, stream=True))
    assert events[0].type == "message_start"
    assert events[0].message.usage.input_tokens == 2
    assert events[-2].type == "message_delta"
    assert events[-2].usage.output_tokens == 50
    assert events[-2].delta.stop_reason == "end_turn"


def test_max_tokens_cuts_the_answer_and_is_required(client: Anthropic) -> None:
    message = client.messages.create(model="claude", max_tokens=12, messages=QUESTION)
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 12)
    with pytest.raises(anthropic.BadRequestError, match="max_tokens: Field required"):
        client.post("/v1/messages", body={"model": "claude", "messages": QUESTION}, cast_to=object)


def test_what_must_parse_parses(client: Anthropic) -> None:
    message = client.messages.parse(model="claude", max_tokens=500, messages=QUESTION, output_format=Weather)
    assert isinstance(message.parsed_output, Weather)


def test_tokens_are_counted_beforehand_by_the_same_rule(client: Anthropic) -> None:
    counted = client.messages.count_tokens(model="claude", messages=QUESTION, system="Be brief!!!!")
    assert counted.input_tokens == 8
    used = client.messages.create(model="claude", max_tokens=9, messages=QUESTION, system="Be brief!!!!").usage
    assert used.input_tokens + 2 + 1 == 8


def test_a_rate_limit_is_the_sdks_rate_limit_error(client: Anthropic, provider: SimulatedProvider) -> None:
    provider.set_limits("claude", itpm=10)
    client.messages.create(model="claude", max_tokens=10, messages=[{"role": "user", "content": "x" * 32}])
    with pytest.raises(anthropic.RateLimitError) as caught:
        client.messages.create(model="claude", max_tokens=10, messages=[{"role": "user", "content": "x" * 32}])
    assert caught.value.type == "rate_limit_error"
    assert "rate limit of 10 input tokens per minute" in str(caught.value)
    assert 0 < int(caught.value.response.headers["retry-after"]) <= 48
    assert provider.report().refused == 1


@pytest.mark.parametrize(
    ("fault", "error", "kind"),
    [
        ("rate_limit", anthropic.RateLimitError, "rate_limit_error"),
        ("ramp_limit_exceeded", anthropic.RateLimitError, "rate_limit_error"),
        ("enforced_spend_limit_reached", anthropic.RateLimitError, "rate_limit_error"),
        ("contract_spend_limit_reached", anthropic.RateLimitError, "rate_limit_error"),
        ("credit_balance_too_low", anthropic.BadRequestError, "invalid_request_error"),
        ("usage_limit_reached", anthropic.BadRequestError, "invalid_request_error"),
        ("workspace_usage_limit_reached", anthropic.BadRequestError, "invalid_request_error"),
        ("billing_error", anthropic.APIStatusError, "billing_error"),
        ("overloaded", anthropic.APIStatusError, "overloaded_error"),
        ("server_error", anthropic.InternalServerError, "api_error"),
        ("authentication", anthropic.AuthenticationError, "authentication_error"),
    ],
)
def test_errors_are_the_sdks_errors(
    client: Anthropic,
    provider: SimulatedProvider,
    fault: str,
    error: type[anthropic.APIStatusError],
    kind: str,
) -> None:
    provider.inject(fault)
    with pytest.raises(error) as caught:
        client.messages.create(model="claude", max_tokens=10, messages=QUESTION)
    statuses = {"billing_error": 402, "overloaded_error": 529}
    assert caught.value.status_code == statuses.get(kind, caught.value.status_code)
    assert caught.value.type == kind
    coded = {"ramp_limit_exceeded", "enforced_spend_limit_reached", "contract_spend_limit_reached"}
    assert caught.value.error_code == (fault if fault in coded else None)
    assert ("retry-after" in caught.value.response.headers) == (fault == "rate_limit")
    client.messages.create(model="claude", max_tokens=10, messages=QUESTION)  # once only


def test_an_unknown_model_is_not_found(client: Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="model: gpt-4"):
        client.messages.create(model="gpt-4", max_tokens=10, messages=QUESTION)


def test_overloaded_in_the_middle_of_a_stream(client: Anthropic, provider: SimulatedProvider) -> None:
    provider.inject(Fault("stream_error", after_pieces=3))
    pieces: list[str] = []
    stream = client.messages.stream(model="claude", max_tokens=100, messages=QUESTION)
    with stream as running, pytest.raises(anthropic.APIStatusError) as caught:
        pieces.extend(running.text_stream)
    assert (caught.value.status_code, caught.value.type) == (200, "overloaded_error")
    report = provider.report()
    assert (report.admitted, report.failed, report.completed) == (1, 1, 0)
    assert report.output_tokens == 10 + count_tokens("".join(pieces))  # thoughts, and two pieces of text


def test_output_is_counted_while_it_is_generated() -> None:
    async def main() -> list[int]:
        options = {"claude": {"otpm": 1_000, "output_tokens": 100, "tokens_per_second": 50}}
        async with SimulatedProvider(options, speed=20) as provider:  # type: ignore[arg-type]
            client = AsyncAnthropic(base_url=provider.anthropic_url, api_key="x", max_retries=0)
            async with (
                client,
                await client.messages.create(model="claude", max_tokens=100, messages=QUESTION, stream=True) as stream,
            ):
                return [
                    provider.report()["claude"].limits["otpm"].used
                    async for event in stream
                    if event.type == "content_block_delta"
                ]

    used = asyncio.run(main())
    assert used == sorted(used)
    assert len(set(used)) > 3
    assert used[-1] <= 100
