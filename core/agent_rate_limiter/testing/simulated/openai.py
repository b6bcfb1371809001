"""How OpenAI, Azure OpenAI and Groq state quotas and refuse (provider docs, public issues, Nov 2026)."""

from __future__ import annotations

import math
from typing import Any

from agent_rate_limiter.testing.simulated.calls import Call, Reading, Refusal, Reply
from agent_rate_limiter.testing.simulated.options import Headers
from agent_rate_limiter.testing.simulated.wires import ORGANIZATION, Moment, Problem, Readings, first

_SHORT = {"requests per minute": "requests per min", "tokens per minute": "tokens per min"}
_ERRORS: dict[Problem, tuple[int, str, str | None, str]] = {
    "bad_request": (400, "invalid_request_error", None, "The request is not valid."),
    "authentication": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    "model_not_found": (
        404,
        "invalid_request_error",
        "model_not_found",
        "The model `{model}` does not exist or you do not have access to it.",
    ),
    "server_error": (
        500,
        "server_error",
        None,
        "The server had an error while processing your request. Sorry about that!",
    ),
    "overloaded": (
        503,
        "service_unavailable_error",
        "server_is_overloaded",
        "The engine is currently overloaded, please try again later.",
    ),
    "unavailable": (503, "server_error", None, "Service unavailable."),
}


class OpenAIWire:
    """OpenAI: Go durations until a limit is full again; the dimension is in the text of the error."""

    request_id = "x-request-id"
    _requests: tuple[str, ...] = ("rpm", "rpd", "rps")
    _tokens: tuple[str, ...] = ("tpm", "tpd")

    def quota_headers(self, readings: Readings, moment: Moment, which: Headers) -> dict[str, str]:
        """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}`."""
        headers: dict[str, str] = {}
        for name, limits in (("requests", self._requests), ("tokens", self._tokens)):
            reading = first(readings, *limits)
            if reading is not None and which != "none":
                headers |= self._trio(name, reading, moment, which)
        return headers

    def refusal(self, call: Call, refusal: Refusal, moment: Moment) -> Reply:
        """429, whose text and code tell what to do."""
        body = self._refusal_body(call, refusal, moment)
        if refusal.wait is None or refusal.too_large:
            return Reply(429, body)
        wait = refusal.wait
        headers = {"retry-after": moment.retry_after(wait), "retry-after-ms": moment.retry_after_ms(wait)}
        return Reply(429, body, headers)

    def problem(self, problem: Problem, model: str, message: str | None = None, param: str | None = None) -> Reply:
        """`{"error": {"message", "type", "param", "code"}}`."""
        status, kind, code, text = _ERRORS[problem]
        return Reply(status, error_body(message or text.format(model=model), kind, code, param))

    def stream_error(self) -> dict[str, Any]:
        """A failure of the server, in the middle of an answer."""
        _, kind, _, text = _ERRORS["server_error"]
        return {"type": kind, "code": "server_error", "message": text}

    def _trio(self, name: str, reading: Reading, moment: Moment, which: Headers) -> dict[str, str]:
        headers = {f"x-ratelimit-remaining-{name}": str(reading.remaining)}
        if which == "all":
            headers[f"x-ratelimit-limit-{name}"] = str(reading.limit)
            headers[f"x-ratelimit-reset-{name}"] = self._reset(reading, moment)
        return headers

    def _reset(self, reading: Reading, moment: Moment) -> str:
        return moment.duration(reading.reset)

    def _refusal_body(self, call: Call, refusal: Refusal, moment: Moment) -> dict[str, Any]:
        words = refusal.dimension.words
        words = f"{_SHORT.get(words, words)} ({refusal.dimension.name.upper()})"
        kind = "requests" if refusal.dimension.resource in {"requests", "concurrency"} else "tokens"
        where = f"for {call.model} in organization {ORGANIZATION} on {words}: Limit {refusal.limit}"
        if refusal.too_large:
            message = (
                f"Request too large {where}, Requested {refusal.requested}. "
                "The input or output tokens must be reduced in order to run successfully."
            )
        else:
            again = "" if refusal.wait is None else f" Please try again in {moment.duration(refusal.wait)}."
            message = f"Rate limit reached {where}, Used {refusal.used}, Requested {refusal.requested}.{again}"
        message += " Visit https://platform.openai.com/account/rate-limits to learn more."
        return error_body(message, kind, "rate_limit_exceeded")


class GroqWire(OpenAIWire):
    """Groq: `-requests` are per day, `-tokens` per minute, tokens per day untold; 413 never fits."""

    _requests = ("rpd", "rpm", "rps")
    _tokens = ("tpm",)

    def refusal(self, call: Call, refusal: Refusal, moment: Moment) -> Reply:
        """429 with retry-after; 413 for what can never fit."""
        headers: dict[str, str] = {}
        if refusal.wait is not None and not refusal.too_large:
            headers["retry-after"] = moment.retry_after(refusal.wait)
        return Reply(413 if refusal.too_large else 429, self._refusal_body(call, refusal, moment), headers)

    def _refusal_body(self, call: Call, refusal: Refusal, moment: Moment) -> dict[str, Any]:
        words = f"{refusal.dimension.words} ({refusal.dimension.name.upper()})"
        kind = "requests" if refusal.dimension.resource in {"requests", "concurrency"} else "tokens"
        where = f"model `{call.model}` in organization `{ORGANIZATION}` service tier `on_demand` on {words}"
        if refusal.too_large:
            message = (
                f"Request too large for {where}: Limit {refusal.limit}, Requested {refusal.requested}, "
                "please reduce your message size and try again."
            )
        else:
            again = "" if refusal.wait is None else f" Please try again in {moment.duration(refusal.wait)}."
            counts = f"Limit {refusal.limit}, Used {refusal.used}, Requested {refusal.requested}."
            message = f"Rate limit reached for {where}: {counts}{again}"
        message += " Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing"
        return {"error": {"message": message, "type": kind, "code": "rate_limit_exceeded"}}


class AzureWire(OpenAIWire):
    """Azure OpenAI: resets are whole seconds, errors have a code and a text only."""

    def refusal(self, call: Call, refusal: Refusal, moment: Moment) -> Reply:
        """429 with both retry headers, for what can never fit as well."""
        reply = super().refusal(call, refusal, moment)
        if refusal.wait is None:
            return reply
        retry = {
            "retry-after": moment.retry_after(refusal.wait),
            "retry-after-ms": moment.retry_after_ms(refusal.wait),
        }
        return Reply(429, reply.body, retry)

    def problem(self, problem: Problem, model: str, message: str | None = None, param: str | None = None) -> Reply:
        """`{"error": {"code", "message"}}`."""
        reply = super().problem(problem, model, message, param)
        if problem == "model_not_found":
            text = "The API deployment for this resource does not exist."
            return Reply(404, {"error": {"code": "DeploymentNotFound", "message": text}})
        error = reply.body["error"]
        return Reply(reply.status, {"error": {"code": error["code"] or str(reply.status), "message": error["message"]}})

    def stream_error(self) -> dict[str, Any]:
        """A rate limit that is only noticed after the 200 has been sent."""
        text = "Your requests to the deployment have exceeded rate limit."
        return {"type": "too_many_requests", "code": "rate_limit_exceeded", "message": text}

    def _reset(self, reading: Reading, moment: Moment) -> str:
        return moment.retry_after(reading.reset)

    def _refusal_body(self, call: Call, refusal: Refusal, moment: Moment) -> dict[str, Any]:
        kind = "call" if refusal.dimension.resource in {"requests", "concurrency"} else "token"
        operation = {"chat": "ChatCompletions_Create", "embeddings": "Embeddings_Create"}.get(
            call.api, "Create_Response"
        )
        seconds = 1 if refusal.wait is None else max(1, math.ceil(moment.real(refusal.wait)))
        message = (
            f"Requests to the {operation} Operation under Azure OpenAI API have exceeded {kind} rate limit of "
            f"your current OpenAI S0 pricing tier. Please retry after {seconds} seconds. Please go here: "
            "https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit."
        )
        return {"error": {"code": "429", "message": message}}


def error_body(message: str, kind: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
