"""The quotas that headers state."""

from __future__ import annotations

from typing import Any

import pytest

from agent_rate_limiter.limits import Resource
from agent_rate_limiter.providers import Quota, dialect

NOW = 1_795_469_220.0  # 2026-11-23 21:27:00 UTC
DATE = "Mon, 23 Nov 2026 21:27:00 GMT"
REQUESTS, TOKENS = Resource.REQUESTS, Resource.TOKENS
INPUT, OUTPUT = Resource.INPUT_TOKENS, Resource.OUTPUT_TOKENS


def _anthropic(**told: tuple[int, int]) -> dict[str, str]:
    headers = {"date": DATE}
    for name, (limit, remaining) in told.items():
        prefix = f"anthropic-{name.replace('_', '-')}"
        headers |= {f"{prefix}-limit": str(limit), f"{prefix}-remaining": str(remaining)}
        headers[f"{prefix}-reset"] = "2026-11-23T21:27:30Z"
    return headers


def _openai(what: str, limit: object, remaining: object, reset: object) -> dict[str, str]:
    told = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"x-ratelimit-{part}-{what}": str(value) for part, value in told.items() if value is not None}


CASES: list[tuple[str, str, dict[str, str], list[Quota]]] = [
    (
        "openai: Go durations; the reset tells the window",
        "openai",
        _openai("requests", 5000, 4999, "12ms") | _openai("tokens", 2_000_000, 1_500_000, "15s"),
        [Quota(REQUESTS, "minute", 5000, 4999, 0.012), Quota(TOKENS, "minute", 2_000_000, 1_500_000, 15.0)],
    ),
    (
        "openai: requests per day on low tiers",
        "openai",
        _openai("requests", 10_000, 9_999, "8.64s"),
        [Quota(REQUESTS, "day", 10_000, 9_999, 8.64)],
    ),
    (
        "openai: half of a request refilled already",
        "openai",
        _openai("requests", 500, 499, "60ms"),
        [Quota(REQUESTS, "minute", 500, 499, 0.06)],
    ),
    (
        "openai: full, so that nothing tells the window",
        "openai",
        _openai("requests", 500, 500, "0s"),
        [Quota(REQUESTS, None, 500, 500, 0.0)],
    ),
    (
        "openai: the project's own limit",
        "openai",
        _openai("tokens", 30_000, 29_000, "2s") | _openai("project-tokens", 10_000, 9_000, "2h24m0s"),
        [
            Quota(TOKENS, "minute", 30_000, 29_000, 2.0),
            Quota(TOKENS, "day", 10_000, 9_000, 8640.0, pool="project"),
        ],
    ),
    (
        "openai: a window that is none of its own",
        "openai",
        _openai("requests", 10_000, 9_000, "6m0s"),
        [Quota(REQUESTS, None, 10_000, 9_000, 360.0)],
    ),
    (
        "azure: bare seconds",
        "azure",
        _openai("requests", 300, 299, "10") | _openai("tokens", 50_000, 49_000, 60),
        [Quota(REQUESTS, "minute", 300, 299, 10.0), Quota(TOKENS, "minute", 50_000, 49_000, 60.0)],
    ),
    ("azure: -1/-1/0 says nothing", "azure", _openai("tokens", -1, -1, 0), []),
    (
        "azure: the misspelled header",
        "azure",
        _openai("tokens", 50_000, 49_000, None) | {"x-rate-limit-reset-tokens": "42"},
        [Quota(TOKENS, "minute", 50_000, 49_000, 42.0)],
    ),
    (
        "azure: only what remains, and overdrawn",
        "azure",
        _openai("tokens", None, -27_689, None),
        [Quota(TOKENS, "minute", None, -27_689, None)],
    ),
    (
        "anthropic: absolute resets, tokens rounded; the total says nothing new",
        "anthropic",
        _anthropic(
            ratelimit_requests=(1000, 999),
            ratelimit_input_tokens=(2_000_000, 1_998_000),
            ratelimit_output_tokens=(400_000, 400_000),
            ratelimit_tokens=(2_400_000, 2_398_000),
        ),
        [
            Quota(REQUESTS, "minute", 1000, 999, 30.0),
            Quota(INPUT, "minute", 2_000_000, 1_998_000, 30.0, granularity=1000),
            Quota(OUTPUT, "minute", 400_000, 400_000, 30.0, granularity=1000),
        ],
    ),
    (
        "anthropic: a workspace's own limit",
        "anthropic",
        _anthropic(ratelimit_input_tokens=(2_000_000, 9_000), ratelimit_tokens=(50_000, 10_000)),
        [
            Quota(INPUT, "minute", 2_000_000, 9_000, 30.0, granularity=1000),
            Quota(TOKENS, "minute", 50_000, 10_000, 30.0, granularity=1000),
        ],
    ),
    (
        "anthropic: priority tier",
        "anthropic",
        _anthropic(priority_input_tokens=(10_000, 9_000), priority_output_tokens=(5_000, 4_000)),
        [
            Quota(INPUT, "minute", 10_000, 9_000, 30.0, granularity=1000, pool="priority"),
            Quota(OUTPUT, "minute", 5_000, 4_000, 30.0, granularity=1000, pool="priority"),
        ],
    ),
    ("gemini: none", "gemini", {"server-timing": "gfet4t7; dur=1523"}, []),
    ("bedrock: none", "bedrock", {"x-amzn-requestid": "x"}, []),
    (
        "groq: requests are per day, tokens per minute",
        "groq",
        _openai("requests", 1000, 998, "2m52.8s") | _openai("tokens", 8000, 7927, "547ms"),
        [Quota(REQUESTS, "day", 1000, 998, 172.8), Quota(TOKENS, "minute", 8000, 7927, 0.547)],
    ),
    (
        "mistral: per minute",
        "mistral",
        {
            "x-ratelimit-limit-req-minute": "60",
            "x-ratelimit-remaining-req-minute": "59",
            "x-ratelimit-limit-tokens-minute": "500000",
            "x-ratelimit-remaining-tokens-minute": "499000",
            "x-ratelimit-tokens-query-cost": "1000",
        },
        [Quota(REQUESTS, "minute", 60, 59), Quota(TOKENS, "minute", 500_000, 499_000)],
    ),
    (
        "mistral: the older names",
        "mistral",
        {
            "x-ratelimitbysize-limit-minute": "500000",
            "x-ratelimitbysize-remaining-minute": "499000",
            "x-ratelimitbysize-limit-month": "1000000000",
            "x-ratelimitbysize-remaining-month": "999999000",
        },
        [Quota(TOKENS, "minute", 500_000, 499_000), Quota(TOKENS, "month", 1_000_000_000, 999_999_000)],
    ),
    (
        "mistral: a model outside the plan",
        "mistral",
        {"x-ratelimit-limit-req-minute": "0", "x-ratelimit-remaining-req-minute": "0"},
        [Quota(REQUESTS, "minute", 0, 0)],
    ),
    (
        "openrouter: epoch milliseconds",
        "openrouter",
        {"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795469280000", "Date": DATE},
        [Quota(REQUESTS, None, 20, 0, 60.0)],
    ),
    (
        "together",
        "together",
        {
            "x-ratelimit-limit": "10",
            "x-ratelimit-remaining": "9",
            "x-ratelimit-reset": "1",
            "x-tokenlimit-limit": "3000",
            "x-tokenlimit-remaining": "2900",
        },
        [Quota(REQUESTS, None, 10, 9, 1.0), Quota(TOKENS, None, 3000, 2900)],
    ),
    (
        "fireworks: tokens per second",
        "fireworks",
        {
            "x-ratelimit-limit-tokens-prompt": "60000",
            "x-ratelimit-remaining-tokens-prompt": "59000",
            "x-ratelimit-limit-tokens-cache-adjusted-prompt": "15000",
            "x-ratelimit-remaining-tokens-cache-adjusted-prompt": "14000",
            "x-ratelimit-limit-tokens-generated": "600",
            "x-ratelimit-remaining-tokens-generated": "500",
        },
        [
            Quota(INPUT, "second", 60_000, 59_000),
            Quota(INPUT, "second", 15_000, 14_000, pool="uncached"),
            Quota(OUTPUT, "second", 600, 500),
        ],
    ),
    (
        "xai: OpenAI's names, were it to send any",
        "xai",
        _openai("tokens", 50_000_000, 49_000_000, None),
        [Quota(TOKENS, "minute", 50_000_000, 49_000_000)],
    ),
    (
        "IETF draft -11: structured, two policies",
        "generic",
        {
            "RateLimit-Policy": '"burst";q=100;w=60,"daily";q=1000;w=86400;pk=:cHsdsRa894==:',
            "RateLimit": '"burst";r=50;t=30, "daily";r=900',
        },
        [Quota(REQUESTS, "minute", 100, 50, 30.0), Quota(REQUESTS, "day", 1000, 900)],
    ),
    (
        "IETF draft -11: without a policy",
        "generic",
        {"RateLimit": '"default";r=50;t=30'},
        [Quota(REQUESTS, None, None, 50, 30.0)],
    ),
    (
        "IETF draft -11: quota units; bytes are none of ours",
        "generic",
        {"RateLimit-Policy": '"a";q=10;qu="concurrent-requests", "b, c";q=65535;qu="content-bytes";w=10'},
        [Quota(Resource.CONCURRENCY, None, 10)],
    ),
    (
        "IETF draft -08: l instead of q",
        "generic",
        {"RateLimit-Policy": "permin;l=50;w=90", "RateLimit": "permin;r=20;t=23"},
        [Quota(REQUESTS, 90.0, 50, 20, 23.0)],
    ),
    (
        "IETF draft -07: combined",
        "generic",
        {"RateLimit": "limit=100, remaining=50, reset=5", "RateLimit-Policy": "100;w=60"},
        [Quota(REQUESTS, "minute", 100, 50, 5.0)],
    ),
    (
        "IETF drafts to -05: the triple, with its policy",
        "generic",
        {"RateLimit-Limit": "100, 100;w=3600, 10;w=1", "RateLimit-Remaining": "50", "RateLimit-Reset": "50"},
        [Quota(REQUESTS, "hour", 100, 50, 50.0)],
    ),
    (
        "IETF draft -06: the triple, the policy apart",
        "generic",
        {
            "RateLimit-Limit": "10",
            "RateLimit-Remaining": "4",
            "RateLimit-Reset": "4",
            "RateLimit-Policy": "10;w=1, 50;w=60",
        },
        [Quota(REQUESTS, "second", 10, 4, 4.0)],
    ),
    *(
        (
            f"bare X-RateLimit: reset as {reset}",
            "generic",
            {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset, "Date": DATE},
            [Quota(REQUESTS, None, 60, 0, 30.0)],
        )
        for reset in ("30", "30s", "1795469250", "1795469250000", "2026-11-23T21:27:30Z", "30.0")
    ),
    (
        "generic: OpenAI's names",
        "generic",
        _openai("requests", 60, 59, "1s"),
        [Quota(REQUESTS, None, 60, 59, 1.0)],
    ),
    ("rubbish", "openai", _openai("requests", "many", "", "soon") | {"retry-after": "x"}, []),
]


@pytest.mark.parametrize(("kind", "headers", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
@pytest.mark.parametrize("skew", [0.0, 500.0])
def test_quotas(kind: str, headers: dict[str, str], expected: list[Quota], skew: float) -> None:
    assert dialect(kind).quotas(headers, NOW + skew) == expected


class _Pairs:
    """Headers as some libraries give them: pairs, bytes."""

    def __init__(self, pairs: list[tuple[Any, Any]]) -> None:
        self._pairs = pairs

    def items(self) -> list[tuple[Any, Any]]:
        return self._pairs


@pytest.mark.parametrize(
    "headers",
    [
        _Pairs([(b"X-RateLimit-Remaining-Tokens", b"7")]),
        [("x-ratelimit-remaining-tokens", "7")],
        {"X-RATELIMIT-REMAINING-TOKENS": 7},
    ],
)
def test_headers_of_any_library(headers: object) -> None:
    assert dialect("azure").quotas(headers, NOW) == [Quota(TOKENS, "minute", None, 7)]
