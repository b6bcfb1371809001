"""Google's own SDK against the simulated provider, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from google import genai
from google.genai import errors, types
from pydantic import BaseModel

from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider, count_tokens

QUESTION = "Why is the sky blue?"  # 20 characters


class Weather(BaseModel):
    city: str
    degrees: int


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatedProvider]:
    with SimulatedProvider(
        {"gemini-3": {"rpm": 600, "tpm": 10_000, "output_tokens": 50, "cached_tokens": 2, "reasoning_tokens": 10}}
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(provider: SimulatedProvider) -> None:
    provider.reset()


@pytest.fixture(scope="module")
def client(provider: SimulatedProvider) -> Iterator[genai.Client]:
    running = genai.Client(api_key="secret", http_options=types.HttpOptions(base_url=provider.gemini_url))
    yield running
    running.close()


def test_an_answer_counts_prompt_thoughts_and_candidates(client: genai.Client, provider: SimulatedProvider) -> None:
    answer = client.models.generate_content(model="gemini-3", contents=QUESTION)
    usage = answer.usage_metadata
    assert usage is not None
    assert (usage.prompt_token_count, usage.candidates_token_count, usage.thoughts_token_count) == (5, 40, 10)
    assert (usage.cached_content_token_count, usage.total_token_count) == (2, 55)
    assert count_tokens(answer.text or "") == 40
    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP
    report = provider.report()
    assert (report.input_tokens, report.output_tokens, report.cached_tokens) == (5, 50, 2)
    assert report["gemini-3"].limits["tpm"].used == 5  # input only


def test_a_streamed_answer_says_the_same(client: genai.Client, provider: SimulatedProvider) -> None:
    whole = client.models.generate_content(model="gemini-3", contents=QUESTION)
    provider.reset()
    chunks = list(client.models.generate_content_stream(model="gemini-3", contents=QUESTION))
    assert "".join(chunk.text or "" for chunk in chunks) == whole.text
    assert len(chunks) > 5
    assert chunks[-1].usage_metadata == whole.usage_metadata
    assert provider.report().output_tokens == 50


def test_without_sse_a_stream_is_an_array(provider: SimulatedProvider) -> None:
    url = f"{provider.gemini_url}/v1beta/models/gemini-3:streamGenerateContent"
    answer = httpx.post(url, json={"contents": [{"parts": [{"text": QUESTION}]}]}, params={"key": "secret"})
    assert answer.json()[-1]["usageMetadata"]["totalTokenCount"] == 55
    assert provider.report().completed == 1


def test_a_maximum_cuts_the_answer_and_a_schema_shapes_it(client: genai.Client) -> None:
    config = types.GenerateContentConfig(max_output_tokens=12, system_instruction="Be brief!!!!")
    cut = client.models.generate_content(model="gemini-3", contents=QUESTION, config=config)
    assert cut.candidates is not None
    assert cut.candidates[0].finish_reason == types.FinishReason.MAX_TOKENS
    assert cut.usage_metadata is not None
    assert cut.usage_metadata.prompt_token_count == 8
    shaped = types.GenerateContentConfig(response_mime_type="application/json", response_schema=Weather)
    parsed = client.models.generate_content(model="gemini-3", contents=QUESTION, config=shaped).parsed
    assert isinstance(parsed, Weather)


def test_tokens_are_counted_beforehand_by_the_same_rule(client: genai.Client) -> None:
    assert client.models.count_tokens(model="gemini-3", contents=QUESTION).total_tokens == 5
    assert client.models.get(model="gemini-3").input_token_limit == 1_048_576


def test_a_quota_is_in_the_body_and_in_no_header(client: genai.Client, provider: SimulatedProvider) -> None:
    provider.set_limits("gemini-3", rpm=1)
    client.models.generate_content(model="gemini-3", contents=QUESTION)
    with pytest.raises(errors.ClientError) as caught:
        client.models.generate_content(model="gemini-3", contents=QUESTION)
    assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")
    assert "GenerateRequestsPerMinutePerProjectPerModel-FreeTier" in str(caught.value)
    assert "RetryInfo" in str(caught.value)
    assert not [name for name in caught.value.response.headers if "ratelimit" in name or name == "retry-after"]
    assert provider.report().refused == 1


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("daily_quota", "429 RESOURCE_EXHAUSTED", ["GenerateRequestsPerDay", "'retryDelay': '38s'"]),
        ("limit_zero", "429 RESOURCE_EXHAUSTED", ["limit: 0, model: gemini-3"]),
        ("vertex_exhausted", "429 RESOURCE_EXHAUSTED", ["Resource exhausted, please try again later."]),
        ("overloaded", "503 UNAVAILABLE", ["overloaded"]),
        ("server_error", "500 INTERNAL", ["internal error"]),
    ],
)
def test_errors_are_the_sdks_errors(
    client: genai.Client, provider: SimulatedProvider, fault: str, status: str, words: list[str]
) -> None:
    provider.inject(fault)
    with pytest.raises(errors.APIError) as caught:
        client.models.generate_content(model="gemini-3", contents=QUESTION)
    assert f"{caught.value.code} {caught.value.status}" == status
    for word in words:
        assert word in str(caught.value)


def test_an_unknown_model_is_not_found(client: genai.Client) -> None:
    with pytest.raises(errors.ClientError, match="models/gemini-9 is not found") as caught:
        client.models.generate_content(model="gemini-9", contents=QUESTION)
    assert caught.value.status == "NOT_FOUND"
    with pytest.raises(errors.ClientError, match="NOT_FOUND"):
        client.models.get(model="gemini-9")


def test_overloaded_in_the_middle_of_a_stream(client: genai.Client, provider: SimulatedProvider) -> None:
    provider.inject(Fault("stream_error", after_pieces=2))
    with pytest.raises(errors.ServerError, match="UNAVAILABLE"):
        list(client.models.generate_content_stream(model="gemini-3", contents=QUESTION))
    assert provider.report().failed == 1


@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")  # google-genai's
def test_asyncio(provider: SimulatedProvider) -> None:
    async def main() -> list[str | None]:
        options = types.HttpOptions(base_url=provider.gemini_url)
        async with genai.Client(api_key="secret", http_options=options).aio as client:
            calls = (client.models.generate_content(model="gemini-3", contents=QUESTION) for _ in range(5))
            return [answer.response_id for answer in await asyncio.gather(*calls)]

    assert len(set(asyncio.run(main()))) == 5
