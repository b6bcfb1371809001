"""How amounts, moments and spans of time are written in errors."""

from __future__ import annotations

import threading

import pytest

from agent_rate_limiter import (
    RateLimiter,
    Reservation,
    Resource,
    Usage,
)
from agent_rate_limiter.reports.verdict import amount_text, duration_text, moment_text
from agent_rate_limiter.testing import ManualClock

# ---------------------------------------------------------------- the words in them


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.25, "0.25 s"),
        (1, "1 s"),
        (9.999, "10 s"),
        (12.4, "12 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (245, "4 min 5 s"),
        (3_600, "1 h"),
        (12_000, "3 h 20 min"),
        (86_400, "1 d"),
        (2 * 86_400 + 4 * 3_600 + 59, "2 d 4 h"),
        (40 * 86_400, "40 d"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("resource", "units", "text"),
    [
        (Resource.REQUESTS, 1, "1 request"),
        (Resource.TOKENS, 1_234_567, "1,234,567 tokens"),
        (Resource.CONCURRENCY, 0, "0 slots"),
        (Resource.COST, 0, "$0.00"),
        (Resource.COST, 1_250_000_000, "$1.25"),
        (Resource.COST, 1_234_567_500_000_000, "$1,234,567.50"),
        (Resource.COST, 125_000_000, "$0.125"),
        (Resource.COST, 12_345_678, "$0.012346"),
    ],
)
def test_amounts(resource: Resource, units: int, text: str) -> None:
    assert amount_text(resource, units) == text


def test_money_too_little_for_six_digits_is_not_nothing() -> None:
    assert amount_text(Resource.COST, 400) != "$0.00"


def test_moments() -> None:
    assert moment_text(1_795_448_400_999) == "2026-11-23 15:40:00 UTC"


def test_a_wait_beyond_the_calendar_is_still_a_refusal(manual_clock: ManualClock) -> None:
    """A wrong usage report leaves a debt of ten thousand years: say no, and do not break."""
    limiter = RateLimiter(tpm=1, clock=manual_clock)
    limiter.acquire().settle(Usage(input_tokens=10**13))
    assert not limiter.try_acquire(input_tokens=1)


@pytest.mark.parametrize("seconds", [1e10, 5e9])
def test_centuries_are_only_a_long_time(seconds: float) -> None:
    """Longer than a lock can wait at once."""
    limiter = RateLimiter(concurrency=1, lease=seconds)
    held = limiter.acquire()
    outcome: list[object] = []

    def wait() -> None:
        try:
            outcome.append(limiter.acquire(timeout=seconds))
        except OverflowError as error:
            outcome.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(0.03)
    held.settle()
    thread.join(5)
    assert [type(result) for result in outcome] == [Reservation]
