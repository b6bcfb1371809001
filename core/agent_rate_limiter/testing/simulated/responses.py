"""OpenAI Responses (provider docs and openai 3.54, Nov 2026)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agent_rate_limiter.testing.simulated.bodies import maximum, required, section, sse
from agent_rate_limiter.testing.simulated.calls import Answer, Call, Event, pieces
from agent_rate_limiter.testing.simulated.tokens import characters, count_tokens, json_characters, tokens_of


class Responses:
    """`POST /responses`."""

    name = "responses"

    def call(self, body: Mapping[str, Any], model: str | None, *, stream: bool) -> Call:
        """Understand a request."""
        given = required(body, "input", (str, list))
        schema = section(body, "text", "format", "schema")
        read = characters(given) + characters(body.get("instructions"))
        read += json_characters(body.get("tools")) + json_characters(schema)
        return Call(
            api=self.name,
            model=model or required(body, "model", str),
            input_tokens=tokens_of(read),
            max_output_tokens=maximum(body, "max_output_tokens"),
            stream=stream or bool(body.get("stream")),
            schema=schema or None,
            body=body,
        )

    def body(self, call: Call, answer: Answer, at: int) -> dict[str, Any]:
        """A `response`, completed or cut at its maximum."""
        status = "incomplete" if answer.truncated else "completed"
        return _response(call, answer, at, status, output=_output(answer, status), usage=_usage(answer))

    def events(self, call: Call, answer: Answer, at: int) -> Iterator[Event]:
        """`response.created` … `response.completed`, numbered."""
        for number, (kind, fields, tokens) in enumerate(self._steps(call, answer, at)):
            yield sse({"type": kind, "sequence_number": number, **fields}, kind, tokens=tokens)

    def failure(self, call: Call, answer: Answer, error: Mapping[str, Any]) -> Iterator[Event]:
        """`error`, then `response.failed`.

        `failed_first` in the error gives the other order, with the error nested and the response's own error
        null: seen at Azure's `/openai/v1/responses` (public issue, 2026-08-11).
        """
        inner = {"code": error["code"], "message": error["message"]}
        failed = {"response": _response(call, answer, 0, "failed", error=inner)}
        if error.get("failed_first"):
            failed["response"]["error"] = None
            yield sse({"type": "response.failed", "sequence_number": 1, **failed}, "response.failed")
            nested = {"type": error["type"], **inner, "param": None}
            yield sse({"type": "error", "sequence_number": 2, "error": nested}, "error")
            return
        yield sse({"type": "error", "sequence_number": 1, **inner, "param": None}, "error")
        yield sse({"type": "response.failed", "sequence_number": 2, **failed}, "response.failed")

    def _steps(self, call: Call, answer: Answer, at: int) -> Iterator[Step]:
        begun = {"response": _response(call, answer, at, "in_progress")}
        final = self.body(call, answer, at)
        yield "response.created", begun, 0
        yield "response.in_progress", begun, 0
        for index, item in enumerate(final["output"]):
            begins = answer.tokens.reasoning if index == 0 else 0
            steps = _text_steps(answer, index, item) if item["type"] == "message" else _tool_steps(index, item)
            empty: dict[str, Any] = {"content": []} if item["type"] == "message" else {"arguments": ""}
            begins += count_tokens(item.get("name", ""))
            opened: dict[str, Any] = {"output_index": index, "item": {**item, "status": "in_progress", **empty}}
            yield "response.output_item.added", opened, begins
            yield from steps
            yield "response.output_item.done", {"output_index": index, "item": item}, 0
        yield f"response.{final['status']}", {"response": final}, 0


Step = tuple[str, dict[str, Any], int]
"""A kind of event, its fields, and the tokens generated for it."""


def _text_steps(answer: Answer, index: int, item: dict[str, Any]) -> Iterator[Step]:
    place = {"item_id": item["id"], "output_index": index, "content_index": 0}
    empty: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    yield "response.content_part.added", {**place, "part": empty}, 0
    for piece in answer.pieces():
        yield "response.output_text.delta", {**place, "delta": piece, "logprobs": []}, count_tokens(piece)
    yield "response.output_text.done", {**place, "text": answer.text, "logprobs": []}, 0
    yield "response.content_part.done", {**place, "part": item["content"][0]}, 0


def _tool_steps(index: int, item: dict[str, Any]) -> Iterator[Step]:
    place = {"item_id": item["id"], "output_index": index}
    for piece in pieces(item["arguments"]):
        yield "response.function_call_arguments.delta", {**place, "delta": piece}, count_tokens(piece)
    done = {**place, "name": item["name"], "arguments": item["arguments"]}
    yield "response.function_call_arguments.done", done, 0


def _response(
    call: Call,
    answer: Answer,
    at: int,
    status: str,
    *,
    output: list[dict[str, Any]] | None = None,
    usage: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
) -> dict[str, Any]:
    cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
    return {
        "id": f"resp_{answer.key}",
        "object": "response",
        "created_at": at,
        "status": status,
        "error": error,
        "incomplete_details": cut,
        "instructions": call.body.get("instructions"),
        "max_output_tokens": call.max_output_tokens,
        "model": call.model,
        "output": output or [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "metadata": {},
        "usage": usage,
    }


def _output(answer: Answer, status: str) -> list[dict[str, Any]]:
    """The calls to tools, or the message."""
    calls = [
        {
            "id": f"fc_{key}",
            "type": "function_call",
            "status": status,
            "call_id": f"call_{key}",
            "name": tool.name,
            "arguments": tool.json,
        }
        for key, tool in answer.numbered()
    ]
    return calls or [_message(answer, status)]


def _message(answer: Answer, status: str) -> dict[str, Any]:
    content: dict[str, Any] = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
    return {
        "id": f"msg_{answer.key}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [content],
    }


def _usage(answer: Answer) -> dict[str, Any]:
    tokens = answer.tokens
    return {
        "input_tokens": tokens.input,
        "input_tokens_details": {"cached_tokens": tokens.cached, "cache_write_tokens": tokens.cache_write},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.total,
    }
