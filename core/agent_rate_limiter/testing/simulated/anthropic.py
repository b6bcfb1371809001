"""Anthropic: messages, streams, quota headers and errors (provider docs and anthropic 2.12, Nov 2026)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agent_rate_limiter.testing.simulated.bodies import maximum, required, section, sse
from agent_rate_limiter.testing.simulated.calls import (
    Answer,
    BadRequest,
    Call,
    Event,
    Reading,
    Refusal,
    Reply,
    pieces,
)
from agent_rate_limiter.testing.simulated.options import Headers, ToolCall
from agent_rate_limiter.testing.simulated.tokens import characters, count_tokens, json_characters, tokens_of
from agent_rate_limiter.testing.simulated.wires import ORGANIZATION, Moment, Problem, Readings, first

_ERRORS: dict[Problem, tuple[int, str, str]] = {
    "bad_request": (400, "invalid_request_error", "The request is not valid."),
    "authentication": (401, "authentication_error", "invalid x-api-key"),
    "model_not_found": (404, "not_found_error", "model: {model}"),
    "server_error": (500, "api_error", "Internal server error"),
    "overloaded": (529, "overloaded_error", "Overloaded"),
    "unavailable": (503, "api_error", "Service unavailable"),
}
_ADVICE = (
    "For details, refer to: https://docs.claude.com/en/api/rate-limits. You can see the response headers for "
    "current usage. Please reduce the prompt length or the maximum tokens requested, or try again later."
)


class Messages:
    """`POST /v1/messages`."""

    name = "messages"

    def call(self, body: Mapping[str, Any], model: str | None, *, stream: bool) -> Call:
        """Understand a request; `max_tokens` is required."""
        most = maximum(body, "max_tokens")
        if most is None:
            raise BadRequest("max_tokens: Field required", "max_tokens")
        schema = section(body, "output_config", "format", "schema")
        return Call(
            api=self.name,
            model=model or required(body, "model", str),
            input_tokens=input_tokens(body),
            max_output_tokens=most,
            stream=stream or bool(body.get("stream")),
            schema=schema or None,
            body=body,
        )

    def body(self, call: Call, answer: Answer, at: int) -> dict[str, Any]:
        """A `message`."""
        del at
        content: list[Any] = [{"type": "text", "text": answer.text, "citations": None}]
        if answer.tools:
            content = [_tool(key, tool, tool.arguments) for key, tool in answer.numbered()]
        return _message(call, answer, content, _stop(answer), answer.tokens.output)

    def events(self, call: Call, answer: Answer, at: int) -> Iterator[Event]:
        """`message_start` (input) … `message_delta` (cumulative output) `message_stop`."""
        del at
        start = {"type": "message_start", "message": _message(call, answer, [], None, 1)}
        yield sse(start, "message_start", tokens=answer.tokens.reasoning)
        yield sse({"type": "ping"}, "ping")
        if answer.tools:
            for index, (key, tool) in enumerate(answer.numbered()):
                head = _tool(key, tool, {}), count_tokens(tool.name)
                parts = (("input_json_delta", "partial_json", piece) for piece in pieces(tool.json))
                yield from _block(index, *head, parts)
        else:
            yield from _block(0, {"type": "text", "text": ""}, 0, (("text_delta", "text", p) for p in answer.pieces()))
        ending = {"stop_reason": _stop(answer), "stop_sequence": None}
        usage = _usage(answer, answer.tokens.output)
        yield sse({"type": "message_delta", "delta": ending, "usage": usage}, "message_delta")
        yield sse({"type": "message_stop"}, "message_stop")

    def failure(self, call: Call, answer: Answer, error: Mapping[str, Any]) -> Iterator[Event]:
        """An `error` event; nothing follows."""
        del call
        inner = {"details": None, "type": error["type"], "message": error["message"]}
        yield sse({"type": "error", "error": inner, "request_id": f"req_{answer.key}"}, "error")


class AnthropicWire:
    """Anthropic: RFC 3339 resets at which a limit is full again, remaining tokens to the nearest thousand."""

    request_id = "request-id"

    def quota_headers(self, readings: Readings, moment: Moment, which: Headers) -> dict[str, str]:
        """`anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-*`.

        `-tokens-*` repeats the most restrictive token limit in effect.
        """
        stated = {
            "requests": first(readings, "rpm", "rpd", "rps"),
            "tokens": _tightest(readings),
            "input-tokens": readings.get("itpm"),
            "output-tokens": readings.get("otpm"),
        }
        headers: dict[str, str] = {}
        for name, reading in stated.items():
            if reading is not None and which != "none":
                headers |= _trio(name, reading, moment, which)
        return headers

    def refusal(self, call: Call, refusal: Refusal, moment: Moment) -> Reply:
        """429 `rate_limit_error`, whose text names the limit."""
        words = refusal.dimension.words
        if refusal.dimension.name == "ramp":
            return self._ramp(call, refusal, moment)
        message = (
            f"This request would exceed your organization's rate limit of {refusal.limit:,} {words} "
            f"(org: {ORGANIZATION}, model: {call.model}). {_ADVICE}"
        )
        if refusal.dimension.name == "concurrency":
            message = "Number of concurrent connections has exceeded your rate limit. " + _ADVICE
        return Reply(429, error_body("rate_limit_error", message), _retry(refusal, moment))

    def problem(self, problem: Problem, model: str, message: str | None = None, param: str | None = None) -> Reply:
        """`{"type": "error", "error": {"type", "message"}}`."""
        del param
        status, kind, text = _ERRORS[problem]
        return Reply(status, error_body(kind, message or text.format(model=model)))

    def stream_error(self) -> dict[str, Any]:
        """Overloaded in the middle of an answer."""
        _, kind, text = _ERRORS["overloaded"]
        return {"type": kind, "code": None, "message": text}

    def _ramp(self, call: Call, refusal: Refusal, moment: Moment) -> Reply:
        message = (
            "This request would exceed your organization's maximum usage increase rate for "
            f"{refusal.dimension.words} (org: {ORGANIZATION}, model: {call.model}). Your current limit is "
            f"{refusal.limit:,} and will increase to {refusal.limit + refusal.step:,} at the next minute "
            "boundary."
        )
        body = error_body("rate_limit_error", message, {"error_code": "ramp_limit_exceeded"})
        return Reply(429, body, _retry(refusal, moment))


def input_tokens(body: Mapping[str, Any]) -> int:
    """What `count_tokens` says: messages, system and tools."""
    messages = required(body, "messages", list)
    schema = section(body, "output_config", "format", "schema")
    read = characters(messages) + characters(body.get("system"))
    return tokens_of(read + json_characters(body.get("tools")) + json_characters(schema))


def error_body(kind: str, message: str, details: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Anthropic's error object."""
    return {
        "type": "error",
        "error": {"type": kind, "message": message, **({"details": details} if details else {})},
    }


def _retry(refusal: Refusal, moment: Moment) -> dict[str, str]:
    return {} if refusal.wait is None else {"retry-after": moment.retry_after(refusal.wait)}


def _tightest(readings: Readings) -> Reading | None:
    limits = [readings[name] for name in ("itpm", "otpm", "tpm", "tpd") if name in readings]
    return min(limits, key=lambda reading: reading.remaining, default=None)


def _trio(name: str, reading: Reading, moment: Moment, which: Headers) -> dict[str, str]:
    remaining = max(0, reading.remaining)
    if name != "requests":
        remaining = (remaining + 500) // 1000 * 1000
    prefix = f"anthropic-ratelimit-{name}"
    headers = {f"{prefix}-remaining": str(remaining)}
    if which == "all":
        headers |= {f"{prefix}-limit": str(reading.limit), f"{prefix}-reset": moment.timestamp(reading.reset)}
    return headers


def _message(call: Call, answer: Answer, content: list[Any], stop: str | None, output: int) -> dict[str, Any]:
    return {
        "id": f"msg_{answer.key}",
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": _usage(answer, output),
    }


def _tool(key: str, tool: ToolCall, given: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{key}", "name": tool.name, "input": given}


def _block(index: int, head: Mapping[str, Any], tokens: int, parts: Iterable[tuple[str, str, str]]) -> Iterator[Event]:
    """One block of content: its beginning, its pieces, its end."""
    start = {"type": "content_block_start", "index": index, "content_block": head}
    yield sse(start, "content_block_start", tokens=tokens)
    for kind, field, piece in parts:
        delta = {"type": "content_block_delta", "index": index, "delta": {"type": kind, field: piece}}
        yield sse(delta, "content_block_delta", tokens=count_tokens(piece))
    yield sse({"type": "content_block_stop", "index": index}, "content_block_stop")


def _stop(answer: Answer) -> str:
    if answer.tools:
        return "tool_use"
    return "max_tokens" if answer.truncated else "end_turn"


def _usage(answer: Answer, output: int) -> dict[str, Any]:
    """`input_tokens` leaves out what the cache read or wrote."""
    tokens = answer.tokens
    return {
        "input_tokens": tokens.input - tokens.cached - tokens.cache_write,
        "cache_creation_input_tokens": tokens.cache_write,
        "cache_read_input_tokens": tokens.cached,
        "output_tokens": output,
        "service_tier": "standard",
    }
