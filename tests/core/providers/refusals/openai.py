"""OpenAI's and Azure's refusals. Organizations are made up."""

from __future__ import annotations

from agent_rate_limiter.limits import Resource
from agent_rate_limiter.providers import FailureKind
from tests.core.providers.refusals.case import Case, openai

WAIT = FailureKind.WAIT
PARKED = FailureKind.PARKED
NO_CREDIT = FailureKind.NO_CREDIT
OVERLOADED = FailureKind.OVERLOADED
TOO_LARGE = FailureKind.TOO_LARGE
TRANSIENT = FailureKind.TRANSIENT
FATAL = FailureKind.FATAL
REQUESTS = Resource.REQUESTS
TOKENS = Resource.TOKENS

TPM = "Rate limit reached for gpt-5.6-sol in organization org-a on tokens per min (TPM): "
SPEND = (
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
)


CASES = [
    Case(
        "openai",
        "tokens per minute",
        429,
        openai(
            TPM + "Limit 500000, Used 442231, Requested 249686. Please try again in 23.03s. Visit https://x",
            "rate_limit_exceeded",
            "tokens",
        ),
        {
            "kind": WAIT,
            "retry_after": 23.03,
            "resource": TOKENS,
            "period": "minute",
            "limit": 500_000,
            "used": 442_231,
            "requested": 249_686,
            "code": "rate_limit_exceeded",
        },
    ),
    Case(
        "openai",
        "requests per day, hours away",
        429,
        openai(
            "Rate limit reached for m in organization o on requests per day (RPD): Limit 200, Used 200, Requested 1. "
            "Please try again in 7m12s.",
            "rate_limit_exceeded",
            "requests",
        ),
        {"kind": PARKED, "retry_after": 432.0, "resource": REQUESTS, "period": "day", "limit": 200, "requested": 1},
    ),
    Case(
        "openai",
        "the header tells it finer",
        429,
        openai(TPM + "Limit 10000, Used 8554, Requested 3082. Please try again in 9.816s.", "rate_limit_exceeded"),
        {"kind": WAIT, "retry_after": 9.816, "resource": TOKENS},
        {"retry-after-ms": "9816", "retry-after": "10"},
    ),
    Case(
        "openai",
        "the type alone names the dimension",
        429,
        openai("Rate limit reached.", "rate_limit_exceeded", "requests"),
        {"kind": WAIT, "retry_after": None, "resource": REQUESTS, "period": None},
    ),
    Case(
        "openai",
        "the headers alone name the dimension",
        429,
        openai("Slow.", "rate_limit_exceeded"),
        {"kind": WAIT, "resource": TOKENS},
        {"x-ratelimit-remaining-requests": "12", "x-ratelimit-remaining-tokens": "0"},
    ),
    Case("openai", "nothing said at all", 429, None, {"kind": WAIT, "retry_after": None, "resource": None, "code": ""}),
    Case("openai", "retry-after 0", 429, b"", {"kind": WAIT, "retry_after": 0.0}, {"retry-after": "0"}),
    Case("openai", "retry-after 121", 429, b"", {"kind": WAIT, "retry_after": 121.0}, {"retry-after": "121"}),
    *(
        Case(
            "openai",
            code,
            429,
            openai("You exceeded your current quota…", code, "x"),
            {"kind": NO_CREDIT, "code": code},
        )
        for code in SPEND
    ),
    Case(
        "openai",
        "insufficient_quota as the type only",
        429,
        openai("…", None, "insufficient_quota"),
        {"kind": NO_CREDIT, "code": "insufficient_quota"},
    ),
    Case(
        "openai",
        "request too large",
        429,
        openai(
            "Request too large for gpt-5.6-sol in organization o on tokens per min (TPM): Limit 30000, Requested "
            "32042. The input or output tokens must be reduced in order to run successfully.",
            "rate_limit_exceeded",
            "tokens",
        ),
        {"kind": TOO_LARGE, "resource": TOKENS, "limit": 30_000, "requested": 32_042, "used": None},
    ),
    Case(
        "openai",
        "more requested than the limit, without the words",
        429,
        openai(TPM + "Limit 30000, Used 0, Requested 32042.", "rate_limit_exceeded"),
        {"kind": TOO_LARGE, "limit": 30_000, "requested": 32_042},
    ),
    Case("openai", "overloaded", 503, openai("The engine is currently overloaded"), {"kind": OVERLOADED}),
    Case(
        "openai",
        "slow down",
        503,
        openai("Slow Down", None, "service_unavailable_error"),
        {"kind": OVERLOADED, "code": "slow_down", "retry_after": None},
    ),
    Case(
        "openai",
        "flex without capacity",
        429,
        openai("Resource Unavailable", "resource_unavailable"),
        {"kind": OVERLOADED, "code": "resource_unavailable"},
    ),
    Case("openai", "server error", 500, openai("The server had an error", None, "server_error"), {"kind": TRANSIENT}),
    Case("openai", "bad gateway", 502, b"<html>Bad gateway</html>", {"kind": TRANSIENT, "code": ""}),
    Case("openai", "time-out", 408, None, {"kind": TRANSIENT}),
    Case("openai", "conflict", 409, None, {"kind": TRANSIENT}),
    Case("openai", "retry, it says", 400, None, {"kind": TRANSIENT}, {"x-should-retry": "true"}),
    Case("openai", "do not, it says", 500, None, {"kind": FATAL}, {"x-should-retry": "false"}),
    Case(
        "openai",
        "context overflow",
        400,
        openai("This model's maximum context length is 128000 tokens.", "context_length_exceeded"),
        {"kind": FATAL, "code": "context_length_exceeded"},
    ),
    *(Case("openai", f"{status}", status, None, {"kind": FATAL}) for status in (400, 401, 403, 404, 422)),
    Case(
        "azure",
        "token rate limit",
        429,
        {
            "error": {
                "code": "429",
                "message": "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2026-01-01 "
                "have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 22 seconds.",
            }
        },
        {"kind": WAIT, "retry_after": 22.0, "resource": TOKENS, "limit": None},
    ),
    Case(
        "azure",
        "call rate limit",
        429,
        {
            "error": {
                "code": "429",
                "message": "… have exceeded call rate limit of your current OpenAI S0 pricing tier. "
                "Please retry after 1 second.",
            }
        },
        {"kind": WAIT, "retry_after": 1.0, "resource": REQUESTS},
    ),
    Case(
        "azure",
        "high demand",
        429,
        {"error": {"code": "429", "message": "System is experiencing high demand. Please try again later."}},
        {"kind": OVERLOADED},
    ),
    Case(
        "azure",
        "a dated refusal, the clock of ours an hour behind",
        429,
        {"error": {"code": "429", "message": "Rate limit is exceeded. Try again in 3 seconds."}},
        {"kind": WAIT, "retry_after": 3.0},
    ),
]
