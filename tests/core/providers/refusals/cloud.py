"""The refusals of Google and AWS."""

from __future__ import annotations

from typing import Any

from agent_rate_limiter.limits import Resource
from agent_rate_limiter.providers import FailureKind
from tests.core.providers.refusals.case import DATE, TO_MIDNIGHT, Case

WAIT = FailureKind.WAIT
PARKED = FailureKind.PARKED
NO_CREDIT = FailureKind.NO_CREDIT
OVERLOADED = FailureKind.OVERLOADED
TRANSIENT = FailureKind.TRANSIENT
FATAL = FailureKind.FATAL
REQUESTS = Resource.REQUESTS
TOKENS = Resource.TOKENS
INPUT = Resource.INPUT_TOKENS


def gemini(
    message: str, *details: dict[str, Any], code: int = 429, status: str = "RESOURCE_EXHAUSTED"
) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def violation(quota_id: str, value: str | None = None, metric: str = "") -> dict[str, Any]:
    told = {"quotaMetric": metric, "quotaId": quota_id, "quotaValue": value}
    return {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{name: text for name, text in told.items() if text}],
    }


def retry_info(delay: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


HELP = {"@type": "type.googleapis.com/google.rpc.Help", "links": [{"url": "https://ai.google.dev"}]}
GEMINI_429 = "You exceeded your current quota, please check your plan and billing details."

CASES = [
    Case(
        "gemini",
        "requests per minute",
        429,
        gemini(
            GEMINI_429,
            HELP,
            retry_info("45.837906927s"),
            violation("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "15"),
        ),
        {"kind": WAIT, "retry_after": 45.837906927, "resource": REQUESTS, "period": "minute", "limit": 15},
    ),
    Case(
        "gemini",
        "input tokens per minute, in a list, as text",
        429,
        '[{"error": {"code": 429, "message": "Quota exceeded, limit: 250000\\nPlease retry in 12.5s.", "status": '
        '"RESOURCE_EXHAUSTED", "details": [{"violations": [{"quotaId": '
        '"GenerateContentInputTokensPerModelPerMinute-FreeTier"}]}]}}]',
        {"kind": WAIT, "retry_after": 12.5, "resource": INPUT, "period": "minute", "limit": 250_000},
    ),
    *(
        Case(
            "gemini",
            f"requests per day, retryDelay {delay}",
            429,
            gemini(GEMINI_429, retry_info(delay), violation("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "20")),
            {"kind": PARKED, "retry_after": TO_MIDNIGHT, "resource": REQUESTS, "period": "day", "limit": 20},
            DATE,
        )
        for delay in ("38s", "65205s")
    ),
    Case(
        "gemini",
        "a day and a minute, the day binds",
        429,
        gemini(
            GEMINI_429,
            violation("GenerateRequestsPerDayPerProjectPerModel", "20"),
            violation("GenerateRequestsPerMinutePerProjectPerModel", "15"),
        ),
        {"kind": PARKED, "period": "day", "limit": 20},
        DATE,
    ),
    Case(
        "gemini",
        "limit 0: not in the free tier",
        429,
        gemini(
            GEMINI_429 + " * Quota exceeded for metric: generativelanguage.googleapis.com/"
            "generate_content_free_tier_requests, limit: 0, model: gemini-3.1-pro",
            violation("GenerateRequestsPerDayPerProjectPerModel-FreeTier"),
        ),
        {"kind": NO_CREDIT, "limit": 0},
    ),
    Case(
        "gemini",
        "reset told in the metadata",
        429,
        gemini(
            "You have exhausted your capacity.",
            {"reason": "QUOTA_EXHAUSTED", "metadata": {"quotaResetDelay": "5h59m59.9s"}},
        ),
        {"kind": WAIT, "retry_after": 21_599.9, "code": "quota_exhausted"},
    ),
    Case(
        "gemini",
        "overloaded",
        503,
        gemini("The model is overloaded.", code=503, status="UNAVAILABLE"),
        {"kind": OVERLOADED},
    ),
    Case(
        "gemini",
        "no capacity",
        429,
        gemini("No capacity available", {"reason": "MODEL_CAPACITY_EXHAUSTED"}),
        {"kind": OVERLOADED},
    ),
    Case("gemini", "internal", 500, gemini("Internal", code=500, status="INTERNAL"), {"kind": TRANSIENT}),
    Case("gemini", "bad key", 400, gemini("API key not valid", code=400, status="INVALID_ARGUMENT"), {"kind": FATAL}),
    Case(
        "vertex",
        "pool shortage",
        429,
        gemini("Resource exhausted, please try again later."),
        {"kind": WAIT, "retry_after": None, "resource": None, "code": "resource_exhausted"},
    ),
    Case(
        "bedrock",
        "too many tokens: no context overflow",
        429,
        {"message": "Too many tokens, please wait before trying again."},
        {"kind": WAIT, "resource": TOKENS, "period": None, "code": "throttlingexception"},
        {"x-amzn-ErrorType": "ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/"},
    ),
    Case(
        "bedrock",
        "too many tokens per day",
        429,
        {"__type": "ThrottlingException", "message": "Too many tokens per day, please wait before trying again."},
        {"kind": PARKED, "resource": TOKENS, "period": "day"},
    ),
    Case(
        "bedrock",
        "too many requests",
        429,
        {"__type": "com.amazon#ThrottlingException", "message": "Too many requests, please wait before trying again."},
        {"kind": WAIT, "resource": REQUESTS, "retry_after": 0.5},
        {"x-amz-retry-after": "500"},
    ),
    *(
        Case("bedrock", code, status, {"__type": code, "Message": "…"}, {"kind": kind, "code": code.lower()})
        for code, status, kind in (
            ("ServiceQuotaExceededException", 400, NO_CREDIT),
            ("ServiceUnavailableException", 503, OVERLOADED),
            ("ModelNotReadyException", 429, OVERLOADED),
            ("ModelTimeoutException", 408, TRANSIENT),
            ("ModelErrorException", 424, TRANSIENT),
            ("InternalServerException", 500, TRANSIENT),
            ("ValidationException", 400, FATAL),
            ("AccessDeniedException", 403, FATAL),
        )
    ),
]
