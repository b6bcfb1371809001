"""Usage in responses of every provider, as JSON and as the SDKs' own objects."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import httpx2
import pytest
import requests
from anthropic.types import Message
from google.genai.types import GenerateContentResponse
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from agent_rate_limiter.providers import dialect, read_usage
from agent_rate_limiter.usage import Usage

CHAT = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-5.6-sol",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 10, "audio_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 2},
    },
}
CHAT_USAGE = Usage(
    input_tokens=100,
    output_tokens=50,
    cached_input_tokens=40,
    cache_write_tokens=10,
    reasoning_tokens=30,
    input_audio_tokens=5,
    output_audio_tokens=2,
)
RESPONSES = {
    "id": "r",
    "object": "response",
    "created_at": 1,
    "model": "gpt-5.6-sol",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 100,
        "output_tokens": 50,
        "total_tokens": 150,
        "input_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 10},
        "output_tokens_details": {"reasoning_tokens": 30},
    },
}
RESPONSES_USAGE = Usage(
    input_tokens=100, output_tokens=50, cached_input_tokens=40, cache_write_tokens=10, reasoning_tokens=30
)
EMBEDDINGS = {
    "object": "list",
    "model": "text-embedding-3-small",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-4-8",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 10,
        "output_tokens": 20,
        "cache_creation_input_tokens": 300,
        "cache_read_input_tokens": 4000,
        "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
        "output_tokens_details": {"thinking_tokens": 15},
    },
}
ANTHROPIC_USAGE = Usage(
    input_tokens=4310,
    output_tokens=20,
    cached_input_tokens=4000,
    cache_write_tokens=300,
    cache_write_1h_tokens=200,
    reasoning_tokens=15,
)
GEMINI = {
    "candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}],
    "usageMetadata": {
        "promptTokenCount": 100,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 30,
        "toolUsePromptTokenCount": 7,
        "cachedContentTokenCount": 60,
        "totalTokenCount": 157,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": 88},
            {"modality": "AUDIO", "tokenCount": 12},
        ],
        "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 4}],
    },
}
GEMINI_USAGE = Usage(
    input_tokens=107,
    output_tokens=50,
    cached_input_tokens=60,
    reasoning_tokens=30,
    input_audio_tokens=12,
    output_audio_tokens=4,
)


def _chat_usage(**usage: Any) -> dict[str, Any]:
    return {"choices": [], "usage": usage}


CASES: list[tuple[str, Any, Usage | None]] = [
    ("openai chat", CHAT, CHAT_USAGE),
    ("openai responses", RESPONSES, RESPONSES_USAGE),
    ("openai embeddings", EMBEDDINGS, Usage(input_tokens=8)),
    (
        "openai transcription",
        {
            "text": "…",
            "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 101, "total_tokens": 115}
            | {"input_token_details": {"text_tokens": 0, "audio_tokens": 14}},
        },
        Usage(input_tokens=14, output_tokens=101, input_audio_tokens=14),
    ),
    ("openai transcription, by length", {"text": "…", "usage": {"type": "duration", "seconds": 9}}, None),
    ("anthropic", ANTHROPIC, ANTHROPIC_USAGE),
    ("gemini", GEMINI, GEMINI_USAGE),
    (
        "gemini interactions",
        {
            "usage": {"total_input_tokens": 10, "total_output_tokens": 5, "total_thought_tokens": 7}
            | {"total_cached_tokens": 4, "total_tool_use_tokens": 3, "total_tokens": 25}
        },
        Usage(input_tokens=13, output_tokens=12, cached_input_tokens=4, reasoning_tokens=7),
    ),
    (
        "bedrock converse",
        {
            "usage": {"inputTokens": 10, "outputTokens": 20, "totalTokens": 130}
            | {"cacheReadInputTokens": 60, "cacheWriteInputTokens": 40}
            | {"cacheDetails": [{"ttl": "1h", "inputTokens": 30}, {"ttl": "5m", "inputTokens": 10}]}
        },
        Usage(
            input_tokens=110,
            output_tokens=20,
            cached_input_tokens=60,
            cache_write_tokens=40,
            cache_write_1h_tokens=30,
        ),
    ),
    (
        "bedrock invoke, boto3",
        {
            "body": object(),
            "ResponseMetadata": {
                "HTTPHeaders": {"x-amzn-bedrock-input-token-count": "12"} | {"x-amzn-bedrock-output-token-count": "34"}
            },
        },
        Usage(input_tokens=12, output_tokens=34),
    ),
    ("groq", _chat_usage(prompt_tokens=7, completion_tokens=8), Usage(input_tokens=7, output_tokens=8)),
    ("groq stream", {"x_groq": {"usage": {"prompt_tokens": 7, "completion_tokens": 8}}}, Usage(1, 7, 8)),
    (
        "cohere v2",
        {
            "usage": {"billed_units": {"input_tokens": 5.0, "output_tokens": 6.0}, "cached_tokens": 4.0}
            | {"tokens": {"input_tokens": 71.0, "output_tokens": 6.0}}
        },
        Usage(input_tokens=71, output_tokens=6, cached_input_tokens=4),
    ),
    ("cohere v1 and embeddings", {"meta": {"billed_units": {"input_tokens": 5}}}, Usage(input_tokens=5)),
    (
        "xai: reasoning beside the completion, by the total",
        _chat_usage(prompt_tokens=37, completion_tokens=530, total_tokens=800)
        | {
            "usage": {"prompt_tokens": 37, "completion_tokens": 530, "total_tokens": 800}
            | {"completion_tokens_details": {"reasoning_tokens": 233}}
        },
        Usage(input_tokens=37, output_tokens=763, reasoning_tokens=233),
    ),
    (
        "deepseek",
        _chat_usage(prompt_tokens=100, completion_tokens=9, prompt_cache_hit_tokens=64, prompt_cache_miss_tokens=36),
        Usage(input_tokens=100, output_tokens=9, cached_input_tokens=64),
    ),
    (
        "openrouter: its own price",
        _chat_usage(prompt_tokens=10, completion_tokens=5, cost=0.0123, cost_details={"upstream_inference_cost": None}),
        Usage(input_tokens=10, output_tokens=5, cost=0.0123),
    ),
    (
        "openrouter: a key of one's own",
        _chat_usage(
            prompt_tokens=10,
            completion_tokens=5,
            is_byok=True,
            cost=0.001,
            cost_details={"upstream_inference_cost": 0.02},
        ),
        Usage(input_tokens=10, output_tokens=5, cost=0.021),
    ),
    (
        "litellm: prompt_tokens include Anthropic's cache, stated beside them",
        _chat_usage(
            prompt_tokens=4310, completion_tokens=20, cache_creation_input_tokens=300, cache_read_input_tokens=4000
        ),
        Usage(input_tokens=4310, output_tokens=20, cached_input_tokens=4000, cache_write_tokens=300),
    ),
    (
        "langchain message",
        SimpleNamespace(
            usage_metadata={
                "input_tokens": 4310,
                "output_tokens": 20,
                "total_tokens": 4330,
                "input_token_details": {"cache_read": 4000, "cache_creation": 0, "ephemeral_5m_input_tokens": 100}
                | {"ephemeral_1h_input_tokens": 200, "audio": 3},
                "output_token_details": {"reasoning": 15},
            }
        ),
        Usage(
            input_tokens=4310,
            output_tokens=20,
            cached_input_tokens=4000,
            cache_write_tokens=300,
            cache_write_1h_tokens=200,
            reasoning_tokens=15,
            input_audio_tokens=3,
        ),
    ),
    ("llama-index response", SimpleNamespace(raw=SimpleNamespace(usage=CHAT["usage"])), CHAT_USAGE),
    (
        "openai, a line of a batch",
        {"id": "batch_req_1", "custom_id": "a", "response": {"status_code": 200, "body": CHAT}, "error": None},
        replace(CHAT_USAGE, service_tier="batch"),
    ),
    (
        "anthropic, a line of a batch",
        {"custom_id": "a", "result": {"type": "succeeded", "message": ANTHROPIC}},
        replace(ANTHROPIC_USAGE, service_tier="batch"),
    ),
    ("a line of a batch that failed", {"custom_id": "a", "response": None, "error": {"code": "batch_expired"}}, None),
    ("a usage object itself", CHAT["usage"], CHAT_USAGE),
    ("ours", CHAT_USAGE, CHAT_USAGE),
    ("none", {"choices": []}, None),
    ("null", {"usage": None}, None),
    ("nothing", None, None),
    ("a text", "hello", None),
    (
        "rubbish: negative, fractions, NaN, text, true",
        _chat_usage(prompt_tokens=-5, completion_tokens=1.5, cost=math.nan, prompt_tokens_details="x"),
        Usage(output_tokens=1),
    ),
    ("rubbish: no count", _chat_usage(prompt_tokens="many", completion_tokens=True), None),
    (
        "rubbish: a part larger than the whole",
        _chat_usage(prompt_tokens=10, completion_tokens=5, prompt_tokens_details={"cached_tokens": 99}),
        Usage(input_tokens=10, output_tokens=5, cached_input_tokens=10),
    ),
]


@pytest.mark.parametrize(("response", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_usage(response: object, expected: Usage | None) -> None:
    assert read_usage(response) == expected
    assert dialect("openai").usage(response) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (ChatCompletion.model_validate(CHAT), CHAT_USAGE),
        (Response.model_validate(RESPONSES), RESPONSES_USAGE),
        (CreateEmbeddingResponse.model_validate(EMBEDDINGS), Usage(input_tokens=8)),
        (Message.model_validate(ANTHROPIC), ANTHROPIC_USAGE),
        (GenerateContentResponse.model_validate(GEMINI), GEMINI_USAGE),
    ],
    ids=["openai chat", "openai responses", "openai embeddings", "anthropic", "google-genai"],
)
def test_usage_of_the_sdks_objects(response: object, expected: Usage) -> None:
    assert read_usage(response) == expected


def test_usage_of_raw_responses_that_were_read() -> None:
    unread = requests.Response()
    read = requests.Response()
    read._content = b'{"usage": {"prompt_tokens": 3}}'
    for response in (httpx.Response(200, json=CHAT), httpx2.Response(200, json=CHAT)):
        assert read_usage(response) == CHAT_USAGE
        assert read_usage(SimpleNamespace(http_response=response)) == CHAT_USAGE
    assert read_usage(read) == Usage(input_tokens=3)
    assert read_usage(unread) is None
    assert read_usage(httpx.Response(200, content=b"not json")) is None


def test_a_stream_that_was_not_read_stays_unread() -> None:
    def pieces() -> Any:
        yield CHAT
        raise AssertionError

    stream = pieces()
    assert read_usage(stream) is None
    assert next(stream) is CHAT


@pytest.mark.parametrize(
    ("stated", "service"),
    [
        ({"service_tier": "flex"}, "flex"),
        ({"service_tier": "Priority"}, "priority"),
        ({"usage": {"service_tier": "batch"}}, "batch"),  # Anthropic
        ({"response": {"service_tier": "flex"}}, "flex"),  # OpenAI Responses' last event
        ({"usage": {"traffic_type": "ON_DEMAND_PRIORITY"}}, "priority"),  # Vertex
        ({"service_tier": "default"}, ""),
        ({"service_tier": "on_demand"}, ""),
        ({"usage": {"service_tier": "standard"}}, ""),
        ({"service_tier": None}, ""),
        ({"service_tier": 5}, ""),
        ({}, ""),
    ],
)
def test_how_a_call_was_served(stated: dict[str, Any], service: str) -> None:
    counts = {"input_tokens": 5, "output_tokens": 2}
    usage = read_usage({**stated, "usage": {**counts, **stated.get("usage", {})}})
    assert usage is not None
    assert usage.service_tier == service
