"""What requests ask for: model, estimate, stream, and whether they are model calls at all."""

from __future__ import annotations

from typing import Any

import pytest

from agent_rate_limiter.estimates import estimate_tokens
from agent_rate_limiter.providers import dialect

CHAT = "/v1/chat/completions"
TEXT = "The limiter admits calls exactly as fast as the limits allow, and waits instead of failing."
TOKENS = estimate_tokens(TEXT)
PNG = "iVBORw0KGgo" * 500


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (CHAT, {"model": "gpt-5.6-sol"}, "gpt-5.6-sol"),
        ("/v1/messages", {"model": "claude-opus-4-8"}, "claude-opus-4-8"),
        ("/openai/deployments/my-gpt/chat/completions?api-version=1", {"model": "ignored"}, "my-gpt"),
        ("/openai/v1/chat/completions", {"model": "my-gpt"}, "my-gpt"),
        ("/v1beta/models/gemini-2.5-flash:generateContent", {}, "gemini-2.5-flash"),
        ("/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", {}, "gemini-2.5-flash"),
        ("/v1beta/tunedModels/mine:generateContent", {}, "mine"),
        ("/v1beta/openai/chat/completions", {"model": "models/gemini-2.5-flash"}, "gemini-2.5-flash"),
        ("/v1/projects/p/locations/l/publishers/google/models/gemini-3-pro:generateContent", {}, "gemini-3-pro"),
        ("/v1/projects/p/locations/l/publishers/anthropic/models/claude-opus-5@x:rawPredict", {}, "claude-opus-5@x"),
        ("/model/anthropic.claude-opus-5-v1%3A0/converse-stream", {}, "anthropic.claude-opus-5-v1:0"),
        (
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aprofile%2Fx/invoke",
            {},
            "arn:aws:bedrock:us-east-1:1:profile/x",
        ),
        (CHAT, {"model": 7}, None),
        (CHAT, {}, None),
        (CHAT, None, None),
    ],
)
def test_model(path: str, body: Any, expected: str | None) -> None:
    assert dialect("generic").model(path, body) == expected


@pytest.mark.parametrize(
    "path",
    [
        CHAT,
        "/v1/completions",
        "/v1/responses",
        "/v1/responses/compact",
        "/v1/embeddings",
        "/v1/images/generations",
        "/v1/audio/transcriptions",
        "/v1/moderations",
        "/openai/deployments/d/chat/completions?api-version=1",
        "/v1/messages",
        "/v1/messages?beta=true",
        "/v1beta/models/m:generateContent",
        "/v1beta/models/m:streamGenerateContent?alt=sse",
        "/v1beta/models/m:batchEmbedContents",
        "/v1beta/interactions",
        "/v1/projects/p/locations/l/publishers/anthropic/models/m:streamRawPredict",
        "/model/m/converse",
        "/model/m/converse-stream",
        "/model/m/invoke",
        "/model/m/invoke-with-response-stream",
        "/v1/fim/completions",
        "/v1/ocr",
        "/v2/chat",
        "/v2/embed",
        "/v2/rerank",
        "/openai/v1/chat/completions",
        "/inference/v1/chat/completions",
        "/api/v1/chat/completions",
    ],
)
def test_model_calls_are_counted(path: str) -> None:
    assert dialect("openai").counted("POST", path)
    assert dialect("openai").counted("post", path)
    assert not dialect("openai").counted("GET", path)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "/v1/files",
        "/v1/batches",
        "/v1/fine_tuning/jobs",
        "/v1/vector_stores",
        "/v1/responses/resp_1/cancel",
        "/v1/responses/input_tokens",
        "/v1/chat/completions/c_1",
        "/v1/messages/count_tokens",
        "/v1/messages/batches",
        "/v1beta/models/m:countTokens",
        "/v1beta/models/m:batchGenerateContent",
        "/v1beta/cachedContents",
        "/model/m/count-tokens",
        "/v1/tokenize",
        "/v2/embed-jobs",
        "/",
        "",
    ],
)
def test_everything_else_is_not(path: str) -> None:
    assert not dialect("openai").counted("POST", path)


def _user(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    "body",
    [
        _user(TEXT),
        _user([{"type": "text", "text": TEXT}]),
        {"input": TEXT},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": TEXT}]}]},
        {"input": [TEXT]},
        {"prompt": TEXT},
        {"messages": [], "system": TEXT},
        {"system": [{"type": "text", "text": TEXT, "cache_control": {"type": "ephemeral"}}]},
        {"instructions": TEXT},
        {"contents": [{"role": "user", "parts": [{"text": TEXT}]}]},
        {"systemInstruction": {"parts": [{"text": TEXT}]}},
        {"content": {"parts": [{"text": TEXT}]}},
        {"requests": [{"model": "m", "content": {"parts": [{"text": TEXT}]}}]},
        _user([{"text": TEXT}]),
        _user([{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": TEXT}]}]),
        _user([{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": TEXT}}]),
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "function": {"arguments": TEXT}}]}]},
        {"texts": [TEXT]},
        {"query": "", "documents": [TEXT]},
        {"inputText": TEXT},
    ],
)
def test_the_text_of_every_shape_of_request_is_found(body: dict[str, Any]) -> None:
    estimated = dialect("openai").estimate(CHAT, {"model": "m", **body})
    assert TOKENS <= estimated.input_tokens <= TOKENS + 6
    assert estimated.requests == 1


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": PNG}},
        {"inlineData": {"mimeType": "image/png", "data": PNG}},
        {"inline_data": {"mime_type": "image/png", "data": PNG}},
        {"fileData": {"fileUri": "https://x/y"}},
        {"image": {"format": "png", "source": {"bytes": PNG}}},
        {"document": {"format": "pdf", "name": "d", "source": {"bytes": PNG}}},
    ],
)
@pytest.mark.parametrize(
    ("kind", "flat"), [("openai", 765), ("anthropic", 1_600), ("gemini", 1_120), ("generic", 1_000)]
)
def test_media_count_flat(part: dict[str, Any], kind: str, flat: int) -> None:
    body = _user([{"type": "text", "text": TEXT}, part])
    assert dialect(kind).estimate(CHAT, body).input_tokens == pytest.approx(TOKENS + flat, abs=6)


def test_tools_and_schemas_count_as_the_json_they_are() -> None:
    tool = {
        "type": "function",
        "function": {"name": "look", "parameters": {"properties": {"city": {"type": "string"}}}},
    }
    bare = dialect("openai").estimate(CHAT, _user(TEXT)).input_tokens
    one = dialect("openai").estimate(CHAT, {**_user(TEXT), "tools": [tool]}).input_tokens
    ten = dialect("openai").estimate(CHAT, {**_user(TEXT), "tools": [tool] * 10}).input_tokens
    assert one - bare > 20
    assert ten - bare == pytest.approx(10 * (one - bare), rel=0.1)


def test_token_lists_are_counted_as_tokens() -> None:
    assert dialect("openai").estimate("/v1/embeddings", {"input": [[1, 2, 3], [4, 5]]}).input_tokens == 5


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (CHAT, {"max_tokens": 100}, 100),
        (CHAT, {"max_completion_tokens": 100, "max_tokens": 7}, 100),
        (CHAT, {"max_tokens": 100, "n": 3}, 300),
        ("/v1/completions", {"max_tokens": 10, "best_of": 4, "n": 2}, 40),
        ("/v1/responses", {"max_output_tokens": 100}, 100),
        ("/v1/messages", {"max_tokens": 100}, 100),
        ("/v1beta/models/m:generateContent", {"generationConfig": {"maxOutputTokens": 100, "candidateCount": 2}}, 200),
        ("/v1beta/interactions", {"generation_config": {"max_output_tokens": 100}}, 100),
        ("/model/m/converse", {"inferenceConfig": {"maxTokens": 100}}, 100),
        ("/model/m/invoke", {"textGenerationConfig": {"maxTokenCount": 100}}, 100),
        ("/model/m/invoke", {"max_gen_len": 100}, 100),
        ("/v1/embeddings", {"max_tokens": 100}, 0),
        ("/v1beta/models/m:embedContent", {"generationConfig": {"maxOutputTokens": 9}}, 0),
        ("/v2/rerank", {"max_tokens": 4096}, 0),
        (CHAT, {}, 0),
        (CHAT, {"max_tokens": None}, 0),
        (CHAT, {"max_tokens": True}, 0),
        (CHAT, {"max_tokens": -1}, 0),
        (CHAT, {"max_tokens": "100"}, 0),
        (CHAT, {"max_tokens": float("nan")}, 0),
    ],
)
def test_the_most_output_that_a_request_allows(path: str, body: dict[str, Any], expected: int) -> None:
    assert dialect("openai").estimate(path, body).max_output_tokens == expected


def test_streams_are_made_to_report_usage_without_touching_the_callers_body() -> None:
    body = {"model": "m", "stream": True, "messages": []}
    changed = dialect("openai").with_usage(CHAT, body)
    assert changed == {**body, "stream_options": {"include_usage": True}}
    assert "stream_options" not in body
    kept = dialect("openai").with_usage(CHAT, {**body, "stream_options": {"include_obfuscation": False}})
    assert kept is not None
    assert kept["stream_options"] == {"include_obfuscation": False, "include_usage": True}


@pytest.mark.parametrize(
    ("kind", "path", "body"),
    [
        ("openai", CHAT, {"stream": False}),
        ("openai", CHAT, {}),
        ("openai", CHAT, {"stream": True, "stream_options": {"include_usage": True}}),
        ("openai", CHAT, {"stream": True, "stream_options": {"include_usage": False}}),  # the caller's choice
        ("openai", "/v1/responses", {"stream": True}),
        ("anthropic", "/v1/messages", {"stream": True}),
        ("mistral", CHAT, {"stream": True}),  # refuses what it does not know, and reports usage anyway
        ("generic", CHAT, {"stream": True}),  # may refuse it
        ("openai", CHAT, None),
    ],
)
def test_streams_that_need_no_change(kind: str, path: str, body: Any) -> None:
    assert dialect(kind).with_usage(path, body) is None
