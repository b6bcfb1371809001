"""Anthropic's refusals."""

from __future__ import annotations

from typing import Any

from agent_rate_limiter.limits import Resource
from agent_rate_limiter.providers import FailureKind
from tests.core.providers.refusals.case import DATE, Case

WAIT = FailureKind.WAIT
NO_CREDIT = FailureKind.NO_CREDIT
OVERLOADED = FailureKind.OVERLOADED
TOO_LARGE = FailureKind.TOO_LARGE
TRANSIENT = FailureKind.TRANSIENT
FATAL = FailureKind.FATAL
INPUT = Resource.INPUT_TOKENS


def anthropic(error_type: str, message: str, error_code: str | None = None) -> dict[str, Any]:
    details = {} if error_code is None else {"details": {"error_code": error_code}}
    return {"type": "error", "error": {"type": error_type, "message": message, **details}, "request_id": "req_1"}


CASES = [
    Case(
        "anthropic",
        "input tokens per minute",
        429,
        anthropic(
            "rate_limit_error",
            "This request would exceed your organization's rate limit of 50,000 input tokens per minute (org: o).",
        ),
        {"kind": WAIT, "retry_after": 17.0, "resource": INPUT, "period": "minute", "limit": 50_000},
        {"retry-after": "17"},
    ),
    Case(
        "anthropic",
        "ramp limit",
        429,
        anthropic(
            "rate_limit_error",
            "This request would exceed the maximum usage increase rate for input tokens per minute for your "
            "organization. Your current limit is 58,276 input tokens per minute and will increase to 68,276 at the "
            "next minute boundary.",
            "ramp_limit_exceeded",
        ),
        {"kind": WAIT, "retry_after": 60.0, "resource": INPUT, "limit": 58_276, "code": "ramp_limit_exceeded"},
        DATE,
    ),
    *(
        Case(
            "anthropic",
            code,
            429,
            anthropic("rate_limit_error", "Spend limit reached.", code),
            {"kind": NO_CREDIT, "code": code, "retry_after": None},
        )
        for code in ("enforced_spend_limit_reached", "contract_spend_limit_reached")
    ),
    Case(
        "anthropic",
        "credit balance",
        400,
        anthropic("invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
        {"kind": NO_CREDIT, "code": "credit_balance_too_low"},
    ),
    *(
        Case(
            "anthropic",
            f"usage limits {words}",
            400,
            anthropic(
                "invalid_request_error",
                f"You have reached your specified {words}API usage limits. You will regain access on 2026-12-01 at "
                "00:00 UTC.",
            ),
            {"kind": NO_CREDIT, "retry_after": 7 * 86_400 + 2 * 3600 + 33 * 60.0, "code": "usage_limit_reached"},
            DATE,
        )
        for words in ("", "workspace ")
    ),
    Case("anthropic", "billing", 402, anthropic("billing_error", "Payment required."), {"kind": NO_CREDIT}),
    Case(
        "anthropic",
        "long context",
        429,
        anthropic("rate_limit_error", "Extra usage is required for long context requests."),
        {"kind": NO_CREDIT},
    ),
    Case(
        "anthropic",
        "overloaded",
        529,
        anthropic("overloaded_error", "Overloaded"),
        {"kind": OVERLOADED, "code": "overloaded_error", "retry_after": None},
        {"x-should-retry": "true"},
    ),
    Case("anthropic", "too many bytes", 413, anthropic("request_too_large", "…"), {"kind": TOO_LARGE}),
    Case("anthropic", "server error", 500, anthropic("api_error", "Internal server error"), {"kind": TRANSIENT}),
    Case("anthropic", "gateway time-out", 504, anthropic("timeout_error", "…"), {"kind": TRANSIENT}),
    Case("anthropic", "bad key", 401, anthropic("authentication_error", "invalid x-api-key"), {"kind": FATAL}),
    Case("anthropic", "bad request", 400, anthropic("invalid_request_error", "max_tokens: required"), {"kind": FATAL}),
]
