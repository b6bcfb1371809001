"""Gemini: generateContent, streamed too, and errors (provider docs and google-genai 3.4, Nov 2026)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agent_rate_limiter.testing.simulated.bodies import maximum, required, section, sse
from agent_rate_limiter.testing.simulated.calls import Answer, Call, Event, Refusal, Reply
from agent_rate_limiter.testing.simulated.options import Dimension, Headers
from agent_rate_limiter.testing.simulated.tokens import characters, count_tokens, json_characters, tokens_of
from agent_rate_limiter.testing.simulated.wires import Moment, Problem, Readings

_ERRORS: dict[Problem, tuple[int, str, str]] = {
    "bad_request": (400, "INVALID_ARGUMENT", "The request is not valid."),
    "authentication": (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    "model_not_found": (
        404,
        "NOT_FOUND",
        (
            "models/{model} is not found for API version v1beta, or is not supported for generateContent. "
            "Call ListModels to see the list of available models and their supported methods."
        ),
    ),
    "server_error": (500, "INTERNAL", "An internal error has occurred. Please retry."),
    "overloaded": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "unavailable": (503, "UNAVAILABLE", "The service is currently unavailable."),
}
_TYPES = "type.googleapis.com/google.rpc."
_METRICS = "generativelanguage.googleapis.com/generate_content_free_tier_"


class Generate:
    """`POST /v1beta/models/{model}:generateContent` and `:streamGenerateContent`."""

    name = "generate"

    def call(self, body: Mapping[str, Any], model: str | None, *, stream: bool) -> Call:
        """Understand a request; the path names the model."""
        config = section(body, "generationConfig")
        schema = section(config, "responseJsonSchema") or section(config, "responseSchema")
        return Call(
            api=self.name,
            model=model or "",
            input_tokens=input_tokens(body),
            max_output_tokens=maximum(config, "maxOutputTokens"),
            stream=stream,
            choices=maximum(config, "candidateCount") or 1,
            schema=schema or None,
            body=body,
        )

    def body(self, call: Call, answer: Answer, at: int) -> dict[str, Any]:
        """A whole `GenerateContentResponse`."""
        del at
        return _chunk(call, answer, _parts(answer, answer.text), answer.tokens.output, last=True)

    def events(self, call: Call, answer: Answer, at: int) -> Iterator[Event]:
        """Chunks of the same shape; each has the usage so far, the last one all of it."""
        del at
        pieces = list(answer.pieces()) or [""]
        produced = answer.tokens.reasoning
        for number, piece in enumerate(pieces, 1):
            said = count_tokens(piece) + sum(tool.tokens for tool in answer.tools)
            tokens = said * call.choices
            produced += tokens
            thought = answer.tokens.reasoning if number == 1 else 0
            chunk = _chunk(call, answer, _parts(answer, piece), produced, last=number == len(pieces))
            yield sse(chunk, tokens=tokens + thought)

    def failure(self, call: Call, answer: Answer, error: Mapping[str, Any]) -> Iterator[Event]:
        """A chunk that is an error; nothing follows."""
        del call, answer
        yield sse({"error": {"code": error["code"], "message": error["message"], "status": error["type"]}})


class GeminiWire:
    """Gemini: everything is in the body's `details`, whose order varies."""

    request_id = "x-request-id"

    def quota_headers(self, readings: Readings, moment: Moment, which: Headers) -> dict[str, str]:
        """None: Gemini states no quota in headers."""
        del readings, moment, which
        return {}

    def refusal(self, call: Call, refusal: Refusal, moment: Moment) -> Reply:
        """429 `RESOURCE_EXHAUSTED` with the quota's id and, where one can be told, a retry delay."""
        wait = None if refusal.wait is None else moment.real(refusal.wait)
        return Reply(429, exhausted(call, refusal.dimension, refusal.limit, wait))

    def problem(self, problem: Problem, model: str, message: str | None = None, param: str | None = None) -> Reply:
        """`{"error": {"code", "message", "status"}}`."""
        del param
        status, name, text = _ERRORS[problem]
        return Reply(status, error_body(status, message or text.format(model=model), name))

    def stream_error(self) -> dict[str, Any]:
        """Overloaded in the middle of an answer."""
        status, name, text = _ERRORS["overloaded"]
        return {"type": name, "code": status, "message": text}


def input_tokens(body: Mapping[str, Any]) -> int:
    """What `countTokens` says: contents, system instruction, tools and schema."""
    contents = required(body, "contents", (list, dict))
    config = section(body, "generationConfig")
    schema = config.get("responseJsonSchema") or config.get("responseSchema")
    read = characters(contents) + characters(body.get("systemInstruction"))
    return tokens_of(read + json_characters(body.get("tools")) + json_characters(schema))


def error_body(code: int, message: str, status: str, details: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Google's error object."""
    return {
        "error": {
            "code": code,
            "message": message,
            "status": status,
            **({"details": details} if details else {}),
        }
    }


def exhausted(call: Call, dimension: Dimension, limit: int, wait: float | None) -> dict[str, Any]:
    """The body of a quota failure; `wait` in the client's seconds."""
    resource = "input_token_count" if "tokens" in dimension.resource else "requests"
    what = "ContentInputTokens" if resource == "input_token_count" else "Requests"
    period = "PerDay" if dimension.seconds > 60 else "PerMinute"  # noqa: PLR2004 - a minute
    scope = f"PerModel{period}" if what != "Requests" else f"{period}PerProjectPerModel"
    violation = {
        "quotaMetric": f"{_METRICS}{resource}",
        "quotaId": f"Generate{what}{scope}-FreeTier",
        "quotaDimensions": {"location": "global", "model": call.model},
        "quotaValue": str(limit),
    }
    link = {
        "description": "Learn more about Gemini API quotas",
        "url": "https://ai.google.dev/gemini-api/docs/rate-limits",
    }
    details: list[dict[str, Any]] = [
        {"@type": f"{_TYPES}Help", "links": [link]},
        {"@type": f"{_TYPES}QuotaFailure", "violations": [violation]},
    ]
    message = (
        "You exceeded your current quota, please check your plan and billing details. For more information "
        "on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits. "
        f"\n* Quota exceeded for metric: {_METRICS}{resource}, limit: {limit}, model: {call.model}"
    )
    if wait is not None:
        delay = f"{wait:.9f}".rstrip("0").rstrip(".") + "s"
        message += f"\nPlease retry in {delay}."
        details.append({"@type": f"{_TYPES}RetryInfo", "retryDelay": delay})
    turn = call.input_tokens % len(details)  # the order varies, and the same request always gets the same
    return error_body(429, message, "RESOURCE_EXHAUSTED", details[turn:] + details[:turn])


def _parts(answer: Answer, text: str) -> list[dict[str, Any]]:
    """The text, or the calls to tools, which come whole."""
    calls = [{"functionCall": {"name": tool.name, "args": tool.arguments}} for tool in answer.tools]
    return calls or [{"text": text}]


def _chunk(call: Call, answer: Answer, parts: list[dict[str, Any]], produced: int, *, last: bool) -> dict[str, Any]:
    finish = {"finishReason": "MAX_TOKENS" if answer.truncated else "STOP"} if last else {}
    candidates = [
        {"content": {"parts": parts, "role": "model"}, "index": index, **finish} for index in range(call.choices)
    ]
    tokens = answer.tokens
    usage = {
        "promptTokenCount": tokens.input,
        "candidatesTokenCount": produced - tokens.reasoning,
        "totalTokenCount": tokens.input + produced,
    }
    if tokens.cached:
        usage["cachedContentTokenCount"] = tokens.cached
    if tokens.reasoning:
        usage["thoughtsTokenCount"] = tokens.reasoning
    return {
        "candidates": candidates,
        "usageMetadata": usage,
        "modelVersion": call.model,
        "responseId": answer.key,
    }
