"""Errors that providers answer with, by name: status and body as their docs and captured answers have them.

Sources: provider docs and public issues, Nov 2026. `{model}` in a text is replaced by the call's model.
A name that several providers would word differently (`rate_limit`, `request_too_large`, `overloaded`, …) is
worded by the dialect instead and is not listed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from agent_rate_limiter.testing.simulated import anthropic, gemini, openai
from agent_rate_limiter.testing.simulated.calls import Call, Reply
from agent_rate_limiter.testing.simulated.options import DIMENSIONS

_QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more information on "
    "this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
)
_SLOW = (
    "Slow down. Your request rate increased faster than the service can safely handle. Please reduce your "
    "request rate to its original level, keep it steady for at least 15 minutes, then increase it gradually."
)
_HIGH_DEMAND = (
    "The system is currently experiencing high demand and cannot process your request. Your request exceeds "
    "the maximum usage size allowed during peak load. Please retry after 20 seconds. For improved latency "
    "reliability, consider switching to Provisioned Throughput."
)
_CREDIT = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade."
_USAGE = "You have reached your specified {}API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."
_RAMP = (
    "This request would exceed your organization's maximum usage increase rate for input tokens per minute "
    "(org: org-simulated, model: {model}). Your current limit is 58,276 and will increase to 68,276 at the "
    "next minute boundary."
)


def _openai(code: str) -> Reply:
    """Billing errors share one type; only the code tells them apart."""
    return Reply(429, openai.error_body(_QUOTA, "insufficient_quota", code))


def _anthropic(status: int, kind: str, message: str, code: str | None = None) -> Reply:
    return Reply(status, anthropic.error_body(kind, message, {"error_code": code} if code else None))


def _mistral(kind: str, message: str, code: str) -> Reply:
    return Reply(429, {"object": "error", "message": message, "type": kind, "param": None, "code": code})


def _bedrock(status: int, kind: str, message: str) -> Reply:
    return Reply(status, {"message": message}, {"x-amzn-errortype": kind})


_REPLIES: dict[str, Reply] = {
    # Wait and retry.
    "ramp_limit_exceeded": _anthropic(429, "rate_limit_error", _RAMP, "ramp_limit_exceeded"),
    "vertex_exhausted": Reply(
        429, gemini.error_body(429, "Resource exhausted, please try again later.", "RESOURCE_EXHAUSTED")
    ),
    "bedrock_throttling": _bedrock(429, "ThrottlingException", "Too many tokens, please wait before trying again."),
    "mistral_rate_limited": _mistral("rate_limited", "Rate limit exceeded", "1300"),
    "mistral_capacity": _mistral(
        "service_tier_capacity_exceeded", "Service tier capacity exceeded for this model.", "3505"
    ),
    "xai_rate_limited": Reply(
        429,
        {
            "code": "resource-exhausted",
            "error": "Too many requests for team simulated and model {model}. "
            "Your team's rate limit is: Requests per Second (actual/limit): 2/2.",
        },
    ),
    "cohere_rate_limited": Reply(
        429, {"message": "You are past the per minute request limit, please wait and try again later."}
    ),
    # Stop: quota or credit is gone.
    "insufficient_quota": _openai("insufficient_quota"),
    "credit_balance_exhausted": _openai("credit_balance_exhausted"),
    "organization_spend_limit_exceeded": _openai("organization_spend_limit_exceeded"),
    "project_spend_limit_exceeded": _openai("project_spend_limit_exceeded"),
    "organization_usage_limit_exceeded": _openai("organization_usage_limit_exceeded"),
    "enforced_spend_limit_reached": _anthropic(
        429,
        "rate_limit_error",
        "Your organization has reached the monthly API usage threshold of its tier.",
        "enforced_spend_limit_reached",
    ),
    "contract_spend_limit_reached": _anthropic(
        429,
        "rate_limit_error",
        "Your organization has reached the spend limit of its contract.",
        "contract_spend_limit_reached",
    ),
    "credit_balance_too_low": _anthropic(400, "invalid_request_error", _CREDIT),
    "usage_limit_reached": _anthropic(400, "invalid_request_error", _USAGE.format("")),
    "workspace_usage_limit_reached": _anthropic(400, "invalid_request_error", _USAGE.format("workspace ")),
    "billing_error": _anthropic(402, "billing_error", "Your account has a billing problem."),
    "openrouter_no_credits": Reply(
        402,
        {
            "error": {
                "code": 402,
                "message": "Insufficient credits. Add more using https://openrouter.ai/credits",
            }
        },
    ),
    "deepseek_no_balance": Reply(
        402, openai.error_body("Insufficient Balance", "unknown_error", "invalid_request_error")
    ),
    "xai_free_quota": Reply(429, {"code": "resource-exhausted", "error": "Free usage quota exceeded."}),
    "bedrock_quota_exceeded": _bedrock(
        400, "ServiceQuotaExceededException", "Your request exceeds the service quota for your account."
    ),
    # Overloaded, so fall back or shed load.
    "slow_down": Reply(503, openai.error_body(_SLOW, "service_unavailable_error", "slow_down")),
    "slow_down_429": Reply(429, openai.error_body(_SLOW, "rate_limit_error", "slow_down")),
    "resource_unavailable": Reply(
        429, openai.error_body("Resource Unavailable", "resource_unavailable", "resource_unavailable")
    ),
    "high_demand": Reply(429, {"error": {"code": "429", "message": _HIGH_DEMAND}}, {"retry-after": "20"}),
    "bedrock_not_ready": _bedrock(
        429, "ModelNotReadyException", "The model is not ready for inference, please try again."
    ),
    "bedrock_unavailable": _bedrock(503, "ServiceUnavailableException", "Service Unavailable"),
    # A proxy on the way.
    "bad_gateway": Reply(502, "<html><head><title>502 Bad Gateway</title></head></html>"),
    "gateway_timeout": Reply(504, "<html><head><title>504 Gateway Time-out</title></head></html>"),
}
_COMPUTED: dict[str, Callable[[Call], Reply]] = {
    # Gemini: a daily quota whose delay may be far shorter than the day that it takes; a model not in the plan
    "daily_quota": lambda call: Reply(429, gemini.exhausted(call, DIMENSIONS["rpd"], 20, 38.0)),
    "limit_zero": lambda call: Reply(429, gemini.exhausted(call, DIMENSIONS["rpm"], 0, 11.665902715)),
}
NAMES = (*_REPLIES, *_COMPUTED)


def named(name: str, call: Call) -> Reply:
    """The answer of this name to a call."""
    if name in _COMPUTED:
        return _COMPUTED[name](call)
    reply = _REPLIES[name]
    return Reply(reply.status, _fill(reply.body, call.model), reply.headers)


def _fill(body: Any, model: str) -> Any:
    """The model's name into every text; these bodies hold no lists."""
    if isinstance(body, str):
        return body.replace("{model}", model)
    if isinstance(body, Mapping):
        return {key: _fill(value, model) for key, value in cast("Mapping[str, Any]", body).items()}
    return body
