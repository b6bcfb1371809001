"""OpenAI chat completions and embeddings (provider docs and openai 3.54, Nov 2026)."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Mapping
from typing import Any, cast

from agent_rate_limiter.testing.simulated.bodies import maximum, required, section, sse
from agent_rate_limiter.testing.simulated.calls import Answer, Call, Event, pieces
from agent_rate_limiter.testing.simulated.options import ToolCall
from agent_rate_limiter.testing.simulated.tokens import (
    Dice,
    characters,
    count_tokens,
    json_characters,
    tokens_of,
)

DIMENSIONS = 1536  # of text-embedding-3-small


class Chat:
    """`POST /chat/completions`."""

    name = "chat"

    def call(self, body: Mapping[str, Any], model: str | None, *, stream: bool) -> Call:
        """Understand a request."""
        messages = required(body, "messages", list)
        schema = section(body, "response_format", "json_schema", "schema")
        read = characters(messages) + json_characters(body.get("tools")) + json_characters(schema)
        return Call(
            api=self.name,
            model=model or required(body, "model", str),
            input_tokens=tokens_of(read),
            max_output_tokens=maximum(body, "max_completion_tokens", "max_tokens"),
            stream=stream or bool(body.get("stream")),
            choices=maximum(body, "n") or 1,
            schema=schema or None,
            body=body,
        )

    def body(self, call: Call, answer: Answer, at: int) -> dict[str, Any]:
        """A `chat.completion`."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if answer.tools else answer.text,
            "refusal": None,
            "annotations": [],
        }
        if answer.tools:
            message["tool_calls"] = [_tool(key, tool, tool.json) for key, tool in answer.numbered()]
        choices = [
            {"index": index, "message": message, "logprobs": None, "finish_reason": _finish(answer)}
            for index in range(call.choices)
        ]
        return {**_head(call, answer, at, "chat.completion"), "choices": choices, "usage": _usage(answer)}

    def events(self, call: Call, answer: Answer, at: int) -> Iterator[Event]:
        """`chat.completion.chunk`s; the usage comes last, without choices, if it was asked for."""
        head = _head(call, answer, at, "chat.completion.chunk")
        counted = bool(section(call.body, "stream_options").get("include_usage"))
        nothing = {"usage": None} if counted else {}

        def chunk(index: int, delta: Mapping[str, Any], finish: str | None = None, tokens: int = 0) -> Event:
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
            return sse({**head, "choices": [choice], **nothing}, tokens=tokens)

        for index in range(call.choices):
            thought = answer.tokens.reasoning if index == 0 else 0
            yield chunk(index, {"role": "assistant", "content": "", "refusal": None}, tokens=thought)
            for piece in answer.pieces():
                yield chunk(index, {"content": piece}, tokens=count_tokens(piece))
            for place, (key, tool) in enumerate(answer.numbered()):
                begun = {"index": place, **_tool(key, tool, "")}
                yield chunk(index, {"tool_calls": [begun]}, tokens=count_tokens(tool.name))
                for piece in pieces(tool.json):
                    more = {"index": place, "function": {"arguments": piece}}
                    yield chunk(index, {"tool_calls": [more]}, tokens=count_tokens(piece))
            yield chunk(index, {}, _finish(answer))
        if counted:
            yield sse({**head, "choices": [], "usage": _usage(answer)})
        yield sse("[DONE]")

    def failure(self, call: Call, answer: Answer, error: Mapping[str, Any]) -> Iterator[Event]:
        """A chunk that is an error; nothing follows."""
        del call, answer
        yield sse(
            {
                "error": {
                    "message": error["message"],
                    "type": error["type"],
                    "param": None,
                    "code": error["code"],
                }
            }
        )


class Embeddings:
    """`POST /embeddings`: unit vectors that depend on the text alone."""

    name = "embeddings"

    def call(self, body: Mapping[str, Any], model: str | None, *, stream: bool) -> Call:
        """Understand a request: texts, or lists of token numbers, one or many."""
        del stream  # embeddings are never streamed
        inputs = _inputs(required(body, "input", (str, list)))
        tokens = sum(len(item) if isinstance(item, list) else count_tokens(item) for item in inputs)
        return Call(self.name, model or required(body, "model", str), tokens, max_output_tokens=0, body=body)

    def body(self, call: Call, answer: Answer, at: int) -> dict[str, Any]:
        """A list of embeddings, base64 unless floats were asked for, as the SDK's default has it."""
        del at
        size = maximum(call.body, "dimensions") or DIMENSIONS
        encoded = call.body.get("encoding_format") == "base64"
        vectors = (_vector(item, call.model, size) for item in _inputs(call.body["input"]))
        data = [
            {"object": "embedding", "index": index, "embedding": _base64(vector) if encoded else vector}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": answer.tokens.input, "total_tokens": answer.tokens.input}
        return {"object": "list", "data": data, "model": call.model, "usage": usage}

    def events(self, call: Call, answer: Answer, at: int) -> Iterator[Event]:
        """Never asked for: embeddings are not streamed."""
        raise NotImplementedError

    def failure(self, call: Call, answer: Answer, error: Mapping[str, Any]) -> Iterator[Event]:
        """Never asked for: embeddings are not streamed."""
        raise NotImplementedError


def _head(call: Call, answer: Answer, at: int, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{answer.key}",
        "object": kind,
        "created": at,
        "model": call.model,
        "service_tier": "default",
        "system_fingerprint": "fp_simulated",
    }


def _finish(answer: Answer) -> str:
    if answer.tools:
        return "tool_calls"
    return "length" if answer.truncated else "stop"


def _tool(key: str, tool: ToolCall, arguments: str) -> dict[str, Any]:
    return {"id": f"call_{key}", "type": "function", "function": {"name": tool.name, "arguments": arguments}}


def _usage(answer: Answer) -> dict[str, Any]:
    tokens = answer.tokens
    return {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.total,
        "prompt_tokens_details": {
            "cached_tokens": tokens.cached,
            "cache_write_tokens": tokens.cache_write,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": tokens.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _inputs(given: str | list[Any]) -> list[str | list[int]]:
    single = isinstance(given, str) or isinstance(given[0], int)
    return cast("list[str | list[int]]", [given] if single else given)


def _vector(item: str | list[int], model: str, size: int) -> list[float]:
    numbers = struct.unpack(f"<{size}h", Dice(model, item).bytes("vector", 2 * size))
    length = sum(number * number for number in numbers) ** 0.5 or 1.0
    return [number / length for number in numbers]


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
