"""The other providers' refusals."""

from __future__ import annotations

from agent_rate_limiter.limits import Resource
from agent_rate_limiter.providers import FailureKind
from tests.core.providers.refusals.case import DATE, Case, openai

WAIT = FailureKind.WAIT
PARKED = FailureKind.PARKED
NO_CREDIT = FailureKind.NO_CREDIT
OVERLOADED = FailureKind.OVERLOADED
TOO_LARGE = FailureKind.TOO_LARGE
TRANSIENT = FailureKind.TRANSIENT
REQUESTS = Resource.REQUESTS
TOKENS = Resource.TOKENS

CASES = [
    Case(
        "groq",
        "tokens per day",
        429,
        openai(
            "Rate limit reached for model `m` in organization `o` service tier `on_demand` on tokens per day (TPD): "
            "Limit 100000, Used 99996, Requested 484. Please try again in 6m54.72s. Need more tokens?",
            "rate_limit_exceeded",
            "tokens",
        ),
        {"kind": PARKED, "retry_after": 414.72, "resource": TOKENS, "period": "day", "limit": 100_000, "used": 99_996},
    ),
    Case(
        "groq",
        "request too large is 413",
        413,
        openai(
            "Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 9000, …",
            "rate_limit_exceeded",
        ),
        {"kind": TOO_LARGE, "limit": 6000, "requested": 9000},
    ),
    Case("groq", "flex capacity", 498, None, {"kind": OVERLOADED, "code": "capacity_exceeded"}),
    Case(
        "mistral",
        "rate limit",
        429,
        {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "param": None, "code": "1300"},
        {"kind": WAIT, "code": "1300"},
    ),
    Case(
        "mistral",
        "capacity",
        429,
        {"object": "error", "message": "Service tier capacity exceeded for this model.", "code": "3505"},
        {"kind": OVERLOADED, "code": "3505"},
    ),
    Case(
        "mistral",
        "a model outside the plan",
        429,
        {"message": "Requests rate limit exceeded"},
        {"kind": NO_CREDIT},
        {"x-ratelimit-limit-req-minute": "0"},
    ),
    Case(
        "xai",
        "requests per second",
        429,
        {
            "code": "resource-exhausted",
            "error": "Too many requests for team t and model grok-4.5. Your team's rate limit is … "
            "Requests per Second (actual/limit): 2/2.",
        },
        {"kind": WAIT, "resource": REQUESTS, "period": "second", "limit": 2, "used": 2, "code": "resource-exhausted"},
    ),
    Case(
        "xai",
        "the same code, but it is gone",
        429,
        {"code": "resource-exhausted", "error": "Free usage quota exceeded."},
        {"kind": NO_CREDIT},
    ),
    Case(
        "cohere",
        "per minute",
        429,
        {"message": "You are past the per minute request limit, please wait and try again later."},
        {"kind": WAIT, "resource": REQUESTS, "period": "minute"},
    ),
    Case(
        "cohere",
        "trial key, per month",
        429,
        {"message": "You are using a Trial key, which is limited to 1000 API calls / month."},
        {"kind": PARKED, "resource": REQUESTS, "period": "month", "limit": 1000},
    ),
    Case(
        "deepseek",
        "too many at once",
        429,
        openai("Rate Limit Reached"),
        {"kind": WAIT, "resource": Resource.CONCURRENCY},
    ),
    Case("deepseek", "no balance", 402, openai("Insufficient Balance"), {"kind": NO_CREDIT}),
    Case("deepseek", "overloaded", 503, openai("Server overloaded"), {"kind": OVERLOADED}),
    Case(
        "openrouter",
        "its own limit, the headers in the body",
        429,
        {
            "error": {
                "code": 429,
                "message": "Rate limit exceeded: free-models-per-min.",
                "metadata": {
                    "headers": {
                        "X-RateLimit-Limit": "20",
                        "X-RateLimit-Remaining": "0",
                        "X-RateLimit-Reset": "1795469280000",
                    }
                },
            }
        },
        {"kind": WAIT, "retry_after": 60.0, "period": "minute", "resource": REQUESTS},
        DATE,
    ),
    Case(
        "openrouter",
        "free models per day",
        429,
        {"error": {"code": 429, "message": "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000."}},
        {"kind": PARKED, "period": "day"},
    ),
    Case(
        "openrouter",
        "the provider behind it",
        429,
        {
            "error": {
                "code": 429,
                "message": "Provider returned error",
                "metadata": {
                    "raw": "m is temporarily rate-limited upstream. Please retry shortly.",
                    "provider_name": "p",
                },
            }
        },
        {
            "kind": WAIT,
            "message": "Provider returned error m is temporarily rate-limited upstream. Please retry shortly.",
        },
    ),
    Case("openrouter", "no credits", 402, openai("Insufficient credits"), {"kind": NO_CREDIT}),
    Case("openrouter", "an error under a 200", 200, {"error": {"code": 502, "message": "…"}}, {"kind": TRANSIENT}),
    Case("together", "above the dynamic rate", 429, openai("Rate limit", None, "rate_limit"), {"kind": WAIT}),
    Case("together", "below the dynamic rate", 503, openai("Overloaded", None, "overloaded"), {"kind": OVERLOADED}),
    Case("fireworks", "ramping too fast", 429, {"error": "rate limit exceeded"}, {"kind": WAIT}),
    Case("fireworks", "suspended", 412, {"error": {"message": "Account a is suspended"}}, {"kind": NO_CREDIT}),
    Case(
        "generic",
        "RFC 9110; the reason phrase names no dimension",
        429,
        b"Too Many Requests",
        {"kind": WAIT, "retry_after": 8.0, "resource": None},
        {"Retry-After": "8"},
    ),
    Case(
        "generic",
        "IETF: Retry-After takes precedence",
        429,
        None,
        {"kind": WAIT, "retry_after": 3.0, "resource": REQUESTS},
        {"Retry-After": "3", "RateLimit": '"default";r=0;t=30'},
    ),
    Case(
        "generic",
        "IETF: a day's policy",
        429,
        None,
        {"kind": PARKED, "retry_after": 900.0, "resource": REQUESTS, "period": "day"},
        {"RateLimit-Policy": '"a";q=9;w=60, "b";q=100;w=86400', "RateLimit": '"a";r=1;t=9, "b";r=0;t=900'},
    ),
    Case(
        "generic",
        "IETF: the reset",
        429,
        None,
        {"kind": WAIT, "retry_after": 30.0},
        {"RateLimit": '"default";r=0;t=30'},
    ),
    Case(
        "generic", "FastAPI", 429, {"detail": "Rate limit exceeded: 5 per minute"}, {"kind": WAIT, "period": "minute"}
    ),
    Case("generic", "a gateway passes it on", 429, openai("…", "insufficient_quota"), {"kind": NO_CREDIT}),
]
