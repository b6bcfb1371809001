"""What refusals mean."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from agent_rate_limiter.limits import Resource
from agent_rate_limiter.providers import FailureKind, dialect
from agent_rate_limiter.providers.told import SENTENCES
from tests.core.providers.refusals.case import DATE, NOW, Case
from tests.core.providers.refusals.tables import CASES

_IDS = [f"{case.kind}: {case.name}" for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=_IDS)
def test_every_refusal_means_the_right_thing(case: Case) -> None:
    failure = dialect(case.kind).failure(case.status, case.headers, case.body, NOW)
    told = {name: getattr(failure, name) for name in case.expected}
    assert told == pytest.approx(case.expected)
    assert failure.status == case.status
    assert failure.sent


@pytest.mark.parametrize("case", CASES, ids=_IDS)
def test_text_bytes_and_parsed_bodies_mean_the_same(case: Case) -> None:
    if isinstance(case.body, dict):
        speaker, text = dialect(case.kind), json.dumps(case.body)
        parsed = speaker.failure(case.status, case.headers, case.body, NOW)
        assert speaker.failure(case.status, case.headers, text, NOW) == parsed
        assert speaker.failure(case.status, case.headers, text.encode(), NOW) == parsed


@pytest.mark.parametrize(
    ("kind", "event", "expected"),
    [
        (
            "azure",  # a 200 with retry-after and negative remaining, then this
            {"type": "error", "code": "rate_limit_exceeded", "message": "Too Many Requests", "param": None},
            FailureKind.WAIT,
        ),
        ("openai", {"error": {"code": "server_error", "message": "…"}}, FailureKind.TRANSIENT),
        ("openai", {"error": {"code": "invalid_prompt", "message": "…"}}, FailureKind.FATAL),
        ("openai", {"error": {"code": "image_parse_error", "message": "…"}}, FailureKind.FATAL),
        ("openai", {"error": {"code": "bio_policy", "message": "…"}}, FailureKind.FATAL),
        ("openai", {"error": {"code": "insufficient_quota", "message": "…"}}, FailureKind.NO_CREDIT),
        ("anthropic", {"error": {"type": "overloaded_error", "message": "Overloaded"}}, FailureKind.OVERLOADED),
        ("anthropic", {"error": {"type": "rate_limit_error", "message": "…"}}, FailureKind.WAIT),
        ("anthropic", {"error": {"type": "api_error", "message": "…"}}, FailureKind.TRANSIENT),
        ("gemini", {"error": {"code": 503, "status": "UNAVAILABLE"}}, FailureKind.OVERLOADED),
        ("bedrock", {"__type": "throttlingException", "message": "…"}, FailureKind.WAIT),
        ("openrouter", {"error": {"code": 429, "message": "…"}}, FailureKind.WAIT),
        ("generic", {}, FailureKind.TRANSIENT),
    ],
)
@pytest.mark.parametrize("status", [200, None])
def test_an_error_without_a_status_of_its_own(
    kind: str, event: dict[str, Any], expected: FailureKind, status: int | None
) -> None:
    assert dialect(kind).failure(status, {}, event, NOW).kind is expected


def test_the_bucket_formula_explains_what_openai_and_groq_tell() -> None:
    """used + requested - limit, at limit per window: so the told delay is until the call fits, not until full."""
    checked = 0
    for case in CASES:
        failure = dialect(case.kind).failure(case.status, case.headers, case.body, NOW)
        if case.kind in {"openai", "groq"} and failure.used and failure.limit and failure.retry_after:
            if failure.kind not in {FailureKind.WAIT, FailureKind.PARKED}:
                continue
            window = {"minute": 60, "day": 86_400}[failure.period or ""]
            deficit = failure.used + (failure.requested or 0) - failure.limit
            assert failure.retry_after == pytest.approx(deficit / failure.limit * window, rel=1e-3)
            checked += 1
    assert checked == 4


@pytest.mark.parametrize(("example", "pattern"), SENTENCES)
def test_every_pattern_of_sentences_reads_its_own_example(example: str, pattern: str) -> None:
    found = re.search(pattern, example, re.IGNORECASE)
    assert found is not None
    assert any(found.groupdict().values())


@pytest.mark.parametrize(
    ("moment", "hours"),
    [
        ("Mon, 23 Nov 2026 21:27:00 GMT", 10.55),  # standard time: midnight is 08:00 UTC
        ("Wed, 01 Jul 2026 06:30:00 GMT", 0.5),  # daylight saving time: 07:00 UTC
        ("Sun, 08 Mar 2026 08:30:00 GMT", 22.5),  # the day that is 23 hours long
        ("Sun, 01 Nov 2026 07:30:00 GMT", 24.5),  # the day that is 25 hours long
    ],
)
def test_geminis_day_ends_at_midnight_in_california(moment: str, hours: float) -> None:
    body = {"error": {"details": [{"violations": [{"quotaId": "GenerateRequestsPerDay"}]}]}}
    failure = dialect("gemini").failure(429, {"Date": moment}, body, NOW)
    assert failure.retry_after == pytest.approx(hours * 3600)
    assert failure.resource is Resource.REQUESTS


PER_DAY = {"error": {"details": [{"violations": [{"quotaId": "GenerateRequestsPerDay"}]}]}}


def test_geminis_day_without_a_time_zone_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(key: str) -> None:
        raise KeyError(key)

    monkeypatch.setattr("zoneinfo.ZoneInfo", absent)
    failure = dialect("gemini").failure(429, DATE, PER_DAY, NOW)
    assert failure.retry_after == pytest.approx(10.55 * 3600)


def test_geminis_day_at_a_time_that_is_none() -> None:
    assert dialect("gemini").failure(429, {}, PER_DAY, 1e18).retry_after == 86_400


@pytest.mark.parametrize(
    ("told", "delay"),
    [
        ("Please try again in 9.816s.", 9.816),
        ("Please try again in 450ms.", 0.45),
        ("Please try again in 11m0.528s. Need more?", 660.528),
        ("Please retry after 22 seconds.", 22.0),
        ("Please retry after 1 second.", 1.0),
        ("retry in 2 minutes, 5 seconds", 125.0),
        ("Your quota will reset after 5h59m59s.", 21_599.0),
        ("try again in 1 day 2 hours", 93_600.0),
        ("Please wait 10 secs", 10.0),
        ("will regain access on 2026-11-24 at 00:00 UTC.", 9180.0),
        ("please wait before trying again. You have 5 attempts", None),
        ("Too many tokens, please wait before trying again.", None),
        ("try again in 3 months", None),
    ],
)
def test_delays_in_sentences(told: str, delay: float | None) -> None:
    failure = dialect("generic").failure(429, DATE, {"message": told}, NOW)
    assert failure.retry_after == pytest.approx(delay)


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcDEF1234567890abcDEF",
        "sk-ant-api03-abcdef_1234567890",
        "gsk_abcdefghij1234567890",
        "xai-abcdefghij1234567890",
        "AIzaSyA1234567890abcdefghijklmnop",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc",
    ],
)
def test_no_secret_in_a_message(secret: str) -> None:
    body = {"error": {"message": f"Incorrect API key provided: {secret}. Bearer {secret}", "code": "invalid_api_key"}}
    failure = dialect("openai").failure(401, {}, body, NOW)
    assert secret[:12] not in failure.message
    assert failure.message.startswith("Incorrect API key provided: ***")


def test_messages_are_short() -> None:
    assert len(dialect("openai").failure(500, {}, "x y " * 10_000, NOW).message) <= 300
