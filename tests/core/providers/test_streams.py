"""Streams of every provider: their usage, their errors, and what is known when they break."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from anthropic.types import RawMessageStartEvent
from google.genai.types import GenerateContentResponse
from openai.types.chat import ChatCompletionChunk

from agent_rate_limiter.estimates import estimate_tokens
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.providers import Failure, FailureKind, StreamReader, dialect
from agent_rate_limiter.usage import Usage

TEXT = "The limiter admits calls exactly as fast as the limits allow, and waits instead of failing."
WORDS = [f"{word} " for word in TEXT.split()]


def _chunk(delta: dict[str, Any] | None, finish: str | None = None, **rest: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, **rest}


CHAT_USAGE = {"prompt_tokens": 12, "completion_tokens": 20, "total_tokens": 32}
CHAT = [
    _chunk({"role": "assistant", "content": ""}, usage=None),
    *(_chunk({"content": word}, usage=None) for word in WORDS),
    _chunk({}, "stop", usage=None),
    _chunk(None, usage=CHAT_USAGE),
]
RESPONSES = [
    {"type": "response.created", "response": {"id": "r", "status": "in_progress", "error": None, "usage": None}},
    *({"type": "response.output_text.delta", "item_id": "i", "delta": word} for word in WORDS),
    {"type": "response.output_text.done", "item_id": "i", "text": TEXT},
    {"type": "response.output_item.done", "item": {"content": [{"type": "output_text", "text": TEXT}]}},
    {
        "type": "response.completed",
        "response": {"status": "completed", "output": [{"content": [{"text": TEXT}]}], "error": None}
        | {"usage": {"input_tokens": 12, "output_tokens": 20, "total_tokens": 32}},
    },
]
ANTHROPIC = [
    {
        "type": "message_start",
        "message": {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "m"}
        | {"stop_reason": None, "stop_sequence": None}
        | {"usage": {"input_tokens": 2, "cache_read_input_tokens": 10, "output_tokens": 1}},
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    *({"type": "content_block_delta", "delta": {"type": "text_delta", "text": word}} for word in WORDS),
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 20}},
    {"type": "message_stop"},
]


def _gemini(text: str, finish: str | None = None, **usage: int) -> dict[str, Any]:
    candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "finishReason": finish, "index": 0}
    return {"candidates": [candidate], "usageMetadata": usage}


GEMINI = [
    *(_gemini(word, promptTokenCount=12, candidatesTokenCount=1) for word in WORDS),
    _gemini("", "STOP", promptTokenCount=12, candidatesTokenCount=5, thoughtsTokenCount=15, totalTokenCount=32),
]
BEDROCK = [
    {"messageStart": {"role": "assistant"}},
    *({"contentBlockDelta": {"delta": {"text": word}, "contentBlockIndex": 0}} for word in WORDS),
    {"contentBlockStop": {"contentBlockIndex": 0}},
    {"messageStop": {"stopReason": "end_turn"}},
    {"metadata": {"usage": {"inputTokens": 12, "outputTokens": 20, "totalTokens": 32}, "metrics": {"latencyMs": 9}}},
]
GROQ = [
    *(_chunk({"content": word}) for word in WORDS),
    _chunk({}, "stop", x_groq={"id": "x", "usage": CHAT_USAGE}),
]
COHERE = [
    {"type": "message-start", "delta": {"message": {"role": "assistant"}}},
    *({"type": "content-delta", "delta": {"message": {"content": {"text": word}}}} for word in WORDS),
    {
        "type": "message-end",
        "delta": {"finish_reason": "COMPLETE", "usage": {"tokens": {"input_tokens": 12, "output_tokens": 20}}},
    },
]
INTERACTIONS = [
    *({"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": word}} for word in WORDS),
    {
        "event_type": "interaction.completed",
        "interaction": {"usage": {"total_input_tokens": 12, "total_output_tokens": 20, "total_tokens": 32}},
    },
]
CUMULATIVE = [  # xAI, DeepSeek, vLLM: usage in every chunk
    *(_chunk({"content": word}, usage={"prompt_tokens": 12, "completion_tokens": 1}) for word in WORDS),
    _chunk({}, "stop", usage=CHAT_USAGE),
]
INVOKE = [  # Bedrock's InvokeModelWithResponseStream, as boto3 gives it and as it is on the wire
    *({"chunk": {"bytes": json.dumps(event).encode()}} for event in ANTHROPIC[:-1]),
    {"bytes": base64.b64encode(json.dumps({"type": "message_stop"}).encode()).decode()},
]
STREAMS: dict[str, list[Any]] = {
    "openai": CHAT,
    "azure": RESPONSES,
    "anthropic": ANTHROPIC,
    "gemini": GEMINI,
    "vertex": INTERACTIONS,
    "bedrock": BEDROCK,
    "mistral": CUMULATIVE,
    "groq": GROQ,
    "cohere": COHERE,
    "aws": INVOKE,
}
CACHED = {"anthropic": 10, "aws": 10}


def _read(kind: str, events: list[Any], headers: dict[str, str] | None = None) -> StreamReader:
    reader = dialect(kind).reader(headers)
    for event in events:
        reader.feed(event)
    return reader


@pytest.mark.parametrize("kind", STREAMS)
def test_a_whole_stream_states_its_usage(kind: str) -> None:
    reader = _read(kind, STREAMS[kind])
    reasoning = 15 if kind == "gemini" else 0
    expected = Usage(1, 12, 20, cached_input_tokens=CACHED.get(kind, 0), reasoning_tokens=reasoning)
    assert reader.usage == expected
    assert reader.done
    assert reader.failure is None


@pytest.mark.parametrize("kind", STREAMS)
def test_a_broken_stream_is_never_exact_and_counts_what_came(kind: str) -> None:
    for length in range(1, len(STREAMS[kind]) - 2):
        reader = _read(kind, STREAMS[kind][:length])
        usage = reader.usage
        assert usage is None or not usage.exact
        assert usage is None or usage.output_tokens >= reader.text_tokens
        assert not reader.done or length > len(WORDS)


@pytest.mark.parametrize("kind", STREAMS)
def test_the_text_seen_is_estimated_once(kind: str) -> None:
    whole = estimate_tokens(TEXT)
    assert abs(_read(kind, STREAMS[kind]).text_tokens - whole) <= 2


def test_nothing_seen_is_nothing_known() -> None:
    reader = dialect("openai").reader()
    assert (reader.usage, reader.failure, reader.done, reader.text_tokens) == (None, None, False, 0)


def test_usage_that_never_came_is_estimated() -> None:
    reader = _read("openai", [*CHAT[:-1], "[DONE]"])
    assert reader.done
    assert reader.usage == Usage(output_tokens=reader.text_tokens, exact=False)


@pytest.mark.parametrize(
    "event",
    [
        _chunk({"reasoning_content": TEXT}),
        _chunk({"reasoning": TEXT, "reasoning_details": [{"text": TEXT}]}),
        _chunk({"refusal": TEXT}),
        _chunk({"tool_calls": [{"index": 0, "function": {"name": "", "arguments": TEXT}}]}),
        {"type": "response.function_call_arguments.delta", "delta": TEXT},
        {"type": "response.reasoning_summary_text.delta", "delta": TEXT},
        {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": TEXT}},
        {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": TEXT}},
        {"contentBlockDelta": {"delta": {"toolUse": {"input": TEXT}}}},
        {"contentBlockDelta": {"delta": {"reasoningContent": {"text": TEXT}}}},
        {"choices": [{"index": 0, "text": TEXT}]},
        {"generation": TEXT},
    ],
)
def test_reasoning_and_tool_calls_are_output_too(event: dict[str, Any]) -> None:
    assert _read("openai", [event]).text_tokens == pytest.approx(estimate_tokens(TEXT), abs=1)


def test_audio_is_not_text() -> None:
    event = {"type": "response.audio.delta", "delta": base64.b64encode(bytes(1000)).decode()}
    assert _read("openai", [event]).text_tokens == 0


AZURE_ERROR = {"type": "error", "code": "rate_limit_exceeded", "message": "Too Many Requests", "param": None}
AZURE_FAILED = {
    "type": "response.failed",
    "response": {"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "Too Many Requests"}},
}
AZURE_HEADERS = {"retry-after": "4", "x-ratelimit-remaining-tokens": "-27689"}


@pytest.mark.parametrize("events", [[AZURE_ERROR, AZURE_FAILED], [AZURE_FAILED, AZURE_ERROR], [AZURE_FAILED]])
def test_azures_200_that_is_a_refusal(events: list[dict[str, Any]]) -> None:
    reader = _read("azure", [RESPONSES[0], *events], AZURE_HEADERS)
    assert reader.failure == Failure(
        FailureKind.WAIT,
        retry_after=4.0,
        resource=Resource.TOKENS,
        period="minute",
        code="rate_limit_exceeded",
        message="Too Many Requests",
        status=200,
    )
    assert reader.done
    assert reader.usage is None


@pytest.mark.parametrize(
    ("kind", "event", "expected"),
    [
        ("anthropic", {"type": "error", "error": {"type": "overloaded_error", "message": "…"}}, FailureKind.OVERLOADED),
        ("anthropic", {"type": "error", "error": {"type": "api_error", "message": "…"}}, FailureKind.TRANSIENT),
        ("openai", {"error": {"message": "…", "type": "server_error", "code": None}}, FailureKind.TRANSIENT),
        ("openai", {"error": {"message": "…", "code": "insufficient_quota"}}, FailureKind.NO_CREDIT),
        ("openrouter", _chunk({"content": ""}, "error", error={"code": 502, "message": "…"}), FailureKind.TRANSIENT),
        ("gemini", {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "…"}}, FailureKind.WAIT),
        ("gemini", {"event_type": "error", "error": {"code": "unavailable", "message": "…"}}, FailureKind.OVERLOADED),
        ("bedrock", {"throttlingException": {"message": "Too many tokens"}}, FailureKind.WAIT),
        ("bedrock", {"modelStreamErrorException": {"message": "…"}}, FailureKind.TRANSIENT),
        ("bedrock", {"serviceUnavailableException": {}}, FailureKind.OVERLOADED),
        ("bedrock", {"validationException": {"message": "…"}}, FailureKind.FATAL),
    ],
)
def test_errors_in_a_stream(kind: str, event: dict[str, Any], expected: FailureKind) -> None:
    reader = _read(kind, [*STREAMS[kind if kind != "openrouter" else "openai"][:4], event])
    assert reader.failure is not None
    assert reader.failure.kind is expected
    assert reader.usage is not None
    assert not reader.usage.exact


def test_a_refusal_before_any_output_used_nothing() -> None:
    assert _read("openai", [{"error": {"message": "…", "code": "rate_limit_exceeded"}}]).usage is None


def test_events_as_the_sdks_objects() -> None:
    chat = _read("openai", [ChatCompletionChunk.model_validate(event) for event in CHAT])
    assert chat.usage == Usage(1, 12, 20)
    start = RawMessageStartEvent.model_validate(ANTHROPIC[0])
    assert _read("anthropic", [start, *ANTHROPIC[1:]]).usage == Usage(1, 12, 20, cached_input_tokens=10)
    gemini = _read("gemini", [GenerateContentResponse.model_validate(event) for event in GEMINI])
    assert gemini.usage == Usage(1, 12, 20, reasoning_tokens=15)


def test_geminis_blocked_prompt_ends_the_stream() -> None:
    reader = _read("gemini", [{"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 9}}])
    assert reader.usage == Usage(input_tokens=9)
    assert reader.done


def test_bytes_that_are_no_event() -> None:
    reader = _read("bedrock", [{"bytes": "not base64!"}, {"chunk": {"bytes": b"not json"}}, {"bytes": 7}])
    assert (reader.usage, reader.failure, reader.done) == (None, None, False)


def test_arguments_that_come_parsed_are_output_too() -> None:
    call = {"functionCall": {"name": "look", "args": {"city": "Paris", "days": 3}}}
    reader = _read("gemini", [{"candidates": [{"content": {"parts": [call]}}]}])
    assert 5 <= reader.text_tokens <= 20


@pytest.mark.parametrize(
    "events",
    [
        [_chunk({"content": "a"}), _chunk({}, "stop"), _chunk(None, usage=CHAT_USAGE, service_tier="flex")],
        [{"type": "response.completed", "response": {"usage": CHAT_USAGE, "service_tier": "flex"}}],
        [
            {"type": "message_start", "message": {"usage": {"input_tokens": 5, "service_tier": "flex"}}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
            {"type": "message_stop"},
        ],
    ],
)
def test_a_stream_says_how_it_was_served(events: list[dict[str, Any]]) -> None:
    usage = _read("openai", events).usage
    assert usage is not None
    assert usage.service_tier == "flex"
