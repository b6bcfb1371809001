"""Times as providers write them."""

from __future__ import annotations

import pytest

from agent_rate_limiter.providers.durations import epoch, seconds
from agent_rate_limiter.providers.headers import retry_after, wait

NOW = 1_795_469_220.0  # 2026-11-23 21:27:00 UTC
DATE = {"date": "Mon, 23 Nov 2026 21:27:00 GMT"}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("6m0s", 360.0),  # OpenAI: Go durations
        ("12ms", 0.012),
        ("1h2m", 3720.0),
        ("2m52.8s", 172.8),  # Groq
        ("547ms", 0.547),
        ("6m54.72s", 414.72),
        ("1h0m0.5s", 3600.5),
        ("250µs", 0.00025),
        ("250us", 0.00025),
        ("45.837906927s", 45.837906927),  # Gemini: protobuf durations
        ("65205s", 65205.0),
        ("1d2h", 93600.0),
        ("60", 60.0),  # Azure: bare seconds
        (" 0.5 ", 0.5),
        (22, 22.0),
        (1.5, 1.5),
        ("0", 0.0),
        ("-3", 0.0),
        ("", None),
        ("soon", None),
        ("6m0", None),
        ("s", None),
        ("1e3", None),
        ("nan", None),
        ("inf", None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
        ("9" * 400, None),
        ("99999999999", None),
        (True, None),
        (None, None),
        ([], None),
    ],
)
def test_lengths_of_time(told: object, expected: float | None) -> None:
    assert seconds(told) == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("2026-11-23T21:27:00Z", NOW),  # Anthropic: RFC 3339
        ("2026-11-23T21:27:00.250Z", NOW + 0.25),
        ("2026-11-23T21:27:00.123456789Z", NOW + 0.123456789),
        ("2026-11-23T22:27:00+01:00", NOW),
        ("2026-11-23 13:27:00-0800", NOW),
        ("2026-11-23T21:27:00", NOW),
        ("2026-12-31T23:59:60Z", 1_798_761_600.0),  # a leap second
        ("Mon, 23 Nov 2026 21:27:00 GMT", NOW),  # HTTP-dates, all three forms of RFC 9110
        ("Monday, 23-Nov-26 21:27:00 GMT", NOW),
        ("Mon Nov 23 21:27:00 2026", NOW),
        ("1795469220", NOW),  # epoch seconds
        ("1795469220500", NOW + 0.5),  # epoch milliseconds: OpenRouter
        (1_795_469_220_500, NOW + 0.5),
        ("59", None),
        ("2026-13-23T21:27:00Z", None),
        ("2026-11-23", None),
        ("Mon, 99 Nov 2026 21:27:00 GMT", None),
        ("x" * 10_000, None),
        ("", None),
        (None, None),
    ],
)
def test_moments(told: object, expected: float | None) -> None:
    assert epoch(told) == (expected if expected is None else pytest.approx(expected, abs=1e-6))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("30", 30.0),
        ("6m0s", 360.0),
        ("1795469250", 30.0),
        ("1795469250000", 30.0),
        ("2026-11-23T21:27:30Z", 30.0),
        ("Mon, 23 Nov 2026 21:27:30 GMT", 30.0),
        ("2026-11-23T21:26:00Z", 0.0),  # passed
        ("2030-01-01T00:00:00Z", None),  # nonsense
    ],
)
@pytest.mark.parametrize("skew", [0.0, -3600.0, 7200.0])
def test_a_wait_in_any_form_is_measured_on_the_servers_clock(told: str, expected: float | None, skew: float) -> None:
    assert wait(told, DATE, NOW + skew) == expected


def test_without_a_date_header_our_own_clock_has_to_do() -> None:
    assert wait("2026-11-23T21:27:30Z", {}, NOW + 10) == pytest.approx(20.0)
    assert wait("2026-11-23T21:27:30Z", {"date": "yesterday"}, NOW + 10) == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "121"}, 121.0),  # past the OpenAI SDK's cliff
        ({"retry-after": "Mon, 23 Nov 2026 21:27:08 GMT"}, 8.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "later"}, None),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),  # OpenAI, Azure: the finer one wins
        ({"retry-after-ms": "nan", "retry-after": "2"}, 2.0),
        ({"x-ms-retry-after-ms": "250"}, 0.25),
        ({"x-amz-retry-after": "750"}, 0.75),  # botocore: milliseconds
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after(headers | DATE, NOW + 999) == expected
