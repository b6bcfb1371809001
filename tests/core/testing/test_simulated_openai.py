"""OpenAI's own SDK against the simulated provider, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import openai
import pytest
from openai import AsyncOpenAI, AzureOpenAI, OpenAI
from pydantic import BaseModel

from agent_rate_limiter.testing.simulated import SimulatedProvider, count_tokens

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Why is the sky blue?"}]  # 20 characters


class Weather(BaseModel):
    city: str
    degrees: int
    kind: str | None = None
    hourly: list[float]
    sunny: bool


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatedProvider]:
    with SimulatedProvider(
        {"gpt-4": {"rpm": 60_000, "tpm": 1_000_000, "output_tokens": 50, "prices": (30, 60)}},
        seed=7,
        clock=lambda: 1_795_471_200.0,  # time stands still, so that nothing refills
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(provider: SimulatedProvider) -> None:
    provider.reset()


@pytest.fixture(scope="module")
def client(provider: SimulatedProvider) -> Iterator[OpenAI]:
    with OpenAI(base_url=provider.openai_url, api_key="sk-secret", max_retries=0) as running:
        yield running


def test_a_chat_counts_every_token_by_the_rule(client: OpenAI, provider: SimulatedProvider) -> None:
    raw = client.chat.completions.with_raw_response.create(model="gpt-4", messages=QUESTION, max_tokens=80)
    completion = raw.parse()
    text = completion.choices[0].message.content
    assert text is not None
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (5, 50)
    assert count_tokens(text) == 50
    assert completion.choices[0].finish_reason == "stop"
    assert raw.headers["x-ratelimit-remaining-requests"] == "59999"
    assert raw.headers["x-ratelimit-remaining-tokens"] == "999920"  # max_tokens is charged
    assert raw.headers["x-ratelimit-reset-tokens"] == "4ms"
    assert raw.headers["x-request-id"].startswith("req_")
    report = provider.report()
    assert (report.received, report.admitted, report.completed) == (1, 1, 1)
    assert report.dollars == pytest.approx((5 * 30 + 50 * 60) / 1e6)
    assert report["gpt-4"].limits["tpm"].used == 80


def test_max_tokens_cuts_the_answer(client: OpenAI) -> None:
    for limit in ({"max_tokens": 10}, {"max_completion_tokens": 10}):
        completion = client.chat.completions.create(model="gpt-4", messages=QUESTION, extra_body=limit)
        assert completion.choices[0].finish_reason == "length"
        assert count_tokens(completion.choices[0].message.content or "") == 10


def test_a_streamed_chat_says_the_same_and_counts_only_if_asked(client: OpenAI, provider: SimulatedProvider) -> None:
    whole = client.chat.completions.create(model="gpt-4", messages=QUESTION)
    provider.reset()
    stream = client.chat.completions.create(
        model="gpt-4", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]) > 5
    assert [chunk.choices for chunk in chunks].count([]) == 1
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    silent = list(client.chat.completions.create(model="gpt-4", messages=QUESTION, stream=True))
    assert all(chunk.usage is None for chunk in silent)
    assert silent[-1].choices[0].finish_reason == "stop"
    assert provider.report().output_tokens == 100


def test_several_choices_cost_several_answers(client: OpenAI, provider: SimulatedProvider) -> None:
    completion = client.chat.completions.create(model="gpt-4", messages=QUESTION, n=3, max_tokens=60)
    assert len(completion.choices) == 3
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 150
    assert provider.report()["gpt-4"].limits["tpm"].used == 180


def test_responses_whole_and_streamed(client: OpenAI, provider: SimulatedProvider) -> None:
    whole = client.responses.create(model="gpt-4", input="Why is the sky blue?", instructions="Be brief!!!!")
    assert whole.usage is not None
    assert (whole.usage.input_tokens, whole.usage.output_tokens, whole.usage.total_tokens) == (8, 50, 58)
    assert count_tokens(whole.output_text) == 50
    provider.reset()
    with client.responses.stream(model="gpt-4", input="Why is the sky blue?", instructions="Be brief!!!!") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert kinds.count("response.output_text.delta") > 5
    assert final.output_text == whole.output_text
    assert final.usage == whole.usage


def test_a_response_cut_at_its_maximum_is_incomplete(client: OpenAI) -> None:
    whole = client.responses.create(model="gpt-4", input="Why?", max_output_tokens=16)
    assert whole.status == "incomplete"
    assert whole.incomplete_details is not None
    assert whole.incomplete_details.reason == "max_output_tokens"
    events = list(client.responses.create(model="gpt-4", input="Why?", max_output_tokens=16, stream=True))
    assert events[-1].type == "response.incomplete"


def test_what_must_parse_parses(client: OpenAI) -> None:
    chat = client.chat.completions.parse(model="gpt-4", messages=QUESTION, response_format=Weather)
    assert isinstance(chat.choices[0].message.parsed, Weather)
    response = client.responses.parse(model="gpt-4", input="Weather?", text_format=Weather)
    assert isinstance(response.output_parsed, Weather)
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model="gpt-4", messages=QUESTION, response_format=Weather, max_tokens=5)


def test_embeddings_are_unit_vectors_of_the_text_alone(client: OpenAI, provider: SimulatedProvider) -> None:
    two = client.embeddings.create(model="gpt-4", input=["sky", "the blue sky"])
    assert (two.usage.prompt_tokens, two.usage.total_tokens) == (4, 4)
    assert [len(item.embedding) for item in two.data] == [1536, 1536]
    assert sum(number**2 for number in two.data[0].embedding) == pytest.approx(1, rel=1e-5)
    floats = client.embeddings.create(model="gpt-4", input="sky", encoding_format="float")
    assert floats.data[0].embedding == pytest.approx(two.data[0].embedding, rel=1e-6)
    tokens = client.embeddings.create(model="gpt-4", input=[[1, 2, 3], [4, 5]], dimensions=8)
    assert tokens.usage.prompt_tokens == 5
    assert len(tokens.data[1].embedding) == 8
    assert provider.report().output_tokens == 0


def test_cached_and_reasoning_tokens_are_reported_where_the_real_api_does() -> None:
    options = {"output_tokens": 40, "cached_tokens": 3, "cache_write_tokens": 1, "reasoning_tokens": 15}
    with (
        SimulatedProvider({"o3": {**options, "prices": (10, 20)}}) as provider,  # type: ignore[typeddict-item]
        OpenAI(base_url=provider.openai_url, api_key="x", max_retries=0) as client,
    ):
        chat = client.chat.completions.create(model="o3", messages=QUESTION).usage
        response = client.responses.create(model="o3", input="Why is the sky blue?").usage
        streamed = list(client.responses.create(model="o3", input="Why is the sky blue?", stream=True))
    assert chat is not None
    assert chat.prompt_tokens_details is not None
    assert chat.completion_tokens_details is not None
    assert chat.prompt_tokens_details.cached_tokens == 3
    assert chat.prompt_tokens_details.cache_write_tokens == 1
    assert chat.completion_tokens_details.reasoning_tokens == 15
    assert chat.completion_tokens == 40
    assert response is not None
    assert response.input_tokens_details.cached_tokens == 3
    assert response.output_tokens_details.reasoning_tokens == 15
    assert streamed[-1].type == "response.completed"
    report = provider.report()
    assert (report.cached_tokens, report.output_tokens) == (9, 120)


def test_a_rate_limit_is_the_sdks_rate_limit_error() -> None:
    with (
        SimulatedProvider({"gpt-4": {"rpm": 1}}) as provider,
        OpenAI(base_url=provider.openai_url, api_key="x", max_retries=0) as client,
    ):
        client.chat.completions.create(model="gpt-4", messages=QUESTION)
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="gpt-4", messages=QUESTION)
        report = provider.report()
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.type == "requests"
    assert "on requests per min (RPM): Limit 1, Used 1, Requested 1. Please try again in " in str(caught.value)
    assert 59 <= float(caught.value.response.headers["retry-after"]) <= 60
    assert 59_000 < float(caught.value.response.headers["retry-after-ms"]) <= 60_000
    assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    assert (report.admitted, report.refused, report.failed) == (1, 1, 0)


def test_the_sdks_own_retries_are_seen_and_wait_as_told() -> None:
    with (
        SimulatedProvider({"gpt-4": {"rpm": 60, "slices": (1.0,)}}, speed=20) as provider,
        OpenAI(base_url=provider.openai_url, api_key="x", max_retries=2) as client,
    ):
        for _ in range(2):
            client.chat.completions.create(model="gpt-4", messages=QUESTION)
        requests = provider.requests
    assert [request.status for request in requests] == [200, 429, 200]
    assert [request.headers["x-stainless-retry-count"] for request in requests] == ["0", "0", "1"]
    assert 1 <= requests[2].at - requests[1].at < 4  # told 50 ms: one simulated second


@pytest.mark.parametrize(
    ("body", "error", "code"),
    [
        ({"model": "gpt-5", "messages": QUESTION}, openai.NotFoundError, "model_not_found"),
        ({"model": "gpt-4", "messages": []}, openai.BadRequestError, None),
        ({"model": "gpt-4"}, openai.BadRequestError, None),
        ({"model": "gpt-4", "messages": QUESTION, "max_tokens": 0}, openai.BadRequestError, None),
        ({"messages": QUESTION}, openai.BadRequestError, None),
    ],
)
def test_bad_requests_get_openais_errors(
    client: OpenAI, provider: SimulatedProvider, body: dict[str, object], error: type[openai.APIStatusError], code: str
) -> None:
    with pytest.raises(error) as caught:
        client.post("/chat/completions", body=body, cast_to=object)
    assert caught.value.code == code
    assert caught.value.type == "invalid_request_error"
    assert (provider.report().failed, provider.report().admitted) == (1, 0)


def test_what_is_no_json_is_a_bad_request(client: OpenAI) -> None:
    for content in (b"{not json", b"[1]"):
        with pytest.raises(openai.BadRequestError, match="JSON"):
            client.post("/chat/completions", content=content, cast_to=object)


def test_asyncio_threads_and_the_models_list(provider: SimulatedProvider) -> None:
    async def main() -> int:
        async with AsyncOpenAI(base_url=provider.openai_url, api_key="x", max_retries=0) as client:
            calls = (client.chat.completions.create(model="gpt-4", messages=QUESTION) for _ in range(20))
            answers = await asyncio.gather(*calls)
            models = [model.id async for model in client.models.list()]
        assert models == ["gpt-4"]
        return len({answer.id for answer in answers})

    assert asyncio.run(main()) == 20
    assert provider.report().completed == 20


def test_azure_answers_on_its_deployments() -> None:
    with (
        SimulatedProvider(
            {"my-gpt": {"rpm": 60, "tpm": 1_000, "slices": ()}}, clock=lambda: 1_795_471_215.5
        ) as provider,
        AzureOpenAI(azure_endpoint=provider.url, api_key="x", api_version="2026-10-01", max_retries=0) as client,
    ):
        raw = client.chat.completions.with_raw_response.create(model="my-gpt", messages=QUESTION, max_tokens=700)
        assert raw.headers["x-ratelimit-remaining-tokens"] == "295"
        assert raw.headers["x-ratelimit-reset-tokens"] == "45"
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="my-gpt", messages=QUESTION, max_tokens=300)
        with pytest.raises(openai.NotFoundError) as missing:
            client.chat.completions.create(model="other", messages=QUESTION)
    assert missing.value.code == "DeploymentNotFound"
    assert caught.value.code == "429"
    assert caught.value.response.headers["retry-after"] == "45"


def test_azure_refuses_streamed_responses_inside_a_200() -> None:
    with (
        SimulatedProvider({"gpt-4": {"tpm": 1_000}}, dialect="azure") as provider,
        OpenAI(base_url=provider.openai_url, api_key="x", max_retries=0) as client,
    ):
        client.responses.create(model="gpt-4", input="hi", max_output_tokens=990)
        raw = client.responses.with_raw_response.create(model="gpt-4", input="hi", max_output_tokens=99, stream=True)
        events = list(raw.parse())
        report = provider.report()
    assert raw.status_code == 200
    assert float(raw.headers["retry-after"]) > 0
    assert [event.type for event in events] == ["error", "response.failed"]
    assert events[0].type == "error"
    assert events[0].code == "rate_limit_exceeded"
    assert (report.admitted, report.refused, report.output_tokens) == (1, 1, report.output_tokens)


def test_groq_answers_on_its_own_path() -> None:
    with (
        SimulatedProvider({"llama": {"rpd": 1_000, "tpm": 8_000, "output_tokens": 68}}) as provider,
        OpenAI(base_url=f"{provider.url}/openai/v1", api_key="x", max_retries=0) as client,
    ):
        raw = client.chat.completions.with_raw_response.create(model="llama", messages=QUESTION)
        assert raw.headers["x-ratelimit-limit-requests"] == "1000"
        assert raw.headers["x-ratelimit-remaining-tokens"] == "7927"
        assert raw.headers["x-ratelimit-reset-requests"] == "1m26.4s"
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="llama", messages=QUESTION, max_tokens=8_000)
    assert caught.value.status_code == 413
