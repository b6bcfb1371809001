"""What providers state in their answers, and what the limiter makes of it; all on virtual time."""

from __future__ import annotations

import asyncio

import pytest

from agent_rate_limiter import (
    Decision,
    Resource,
    Usage,
)
from agent_rate_limiter.providers import Quota
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.core.learning import GPT, admitted, available, known, unknown

# ---------------------------------------------------------------- nobody configured anything


def test_limits_are_learned_from_headers(manual_clock: ManualClock) -> None:
    limiter = unknown(manual_clock)
    call = admitted(limiter.try_acquire(GPT))
    call.observe([Quota(Resource.TOKENS, "minute", 10_000, 9_000), Quota(Resource.REQUESTS, None, 500, 499, 0.12)])
    call.settle(Usage(1, 900, 100))
    limits = {limit.name: (limit.owner, limit.available) for limit in limiter.snapshot().limits}
    assert limits == {
        "10,000 tokens/minute (learned)": ("openai:gpt-4", 9_000),
        "500 requests/minute (learned)": ("openai:gpt-4", 499),
    }
    refused = limiter.try_acquire(GPT, input_tokens=9_001)
    assert isinstance(refused, Decision)
    assert refused.limit is not None
    assert refused.limit.name == "10,000 tokens/minute (learned)"


def test_those_who_wait_already_come_under_what_is_learned(manual_clock: ManualClock) -> None:
    limiter = unknown(manual_clock)
    start = manual_clock.now()
    began: list[float] = []

    async def call() -> None:
        async with limiter.reserve(GPT) as reservation:
            began.append((manual_clock.now() - start) / 1000)
            await asyncio.sleep(0.1)
            reservation.observe([Quota(Resource.REQUESTS, "minute", 60, 0)])
            reservation.settle(Usage())

    async def main() -> None:
        await asyncio.gather(*(call() for _ in range(6)))

    run_virtual(main(), manual_clock)
    assert began[:3] == [0, 0, 0]
    assert began[3] >= 1
    assert began[5] - began[4] >= 0.9


@pytest.mark.parametrize(
    ("quota", "name"),
    [
        (Quota(Resource.REQUESTS, "day", 1_000, 998, 172.8), "1,000 requests/day"),
        (Quota(Resource.REQUESTS, None, 1_000, 998, 172.8), "1,000 requests/day"),  # (limit-left)/limit of a day
        (Quota(Resource.TOKENS, None, 8_000, 7_927, 0.547), "8,000 tokens/minute"),
        (Quota(Resource.TOKENS, None, 8_000, 8_000, 0), "8,000 tokens/minute"),
        (Quota(Resource.TOKENS, 10.0, 8_000, 8_000), "8,000 tokens/10 s"),
    ],
)
def test_the_period_is_told_or_computed(manual_clock: ManualClock, quota: Quota, name: str) -> None:
    limiter = unknown(manual_clock)
    admitted(limiter.try_acquire(GPT)).observe([quota])
    names = [limit.name for limit in limiter.snapshot().limits if limit.resource != "concurrency"]
    assert names == [f"{name} (learned)"]


# ---------------------------------------------------------------- limits that are configured


def test_headers_tighten_but_never_loosen_what_is_configured(manual_clock: ManualClock) -> None:
    limiter = known(manual_clock, rpm=100)
    call = admitted(limiter.try_acquire(GPT))
    call.observe([Quota(Resource.REQUESTS, "minute", 500, 499)])
    assert available(limiter) == 99
    call.observe([Quota(Resource.REQUESTS, "minute", 100, 40)])
    assert available(limiter) == 40


def test_calls_in_flight_are_not_counted_twice(manual_clock: ManualClock) -> None:
    limiter = known(manual_clock, tpm=1_000)
    first = admitted(limiter.try_acquire(GPT, input_tokens=100))
    manual_clock.advance(0.001)
    later = admitted(limiter.try_acquire(GPT, input_tokens=300))
    first.observe([Quota(Resource.TOKENS, "minute", 1_000, 900)])  # the provider has not seen the second yet
    assert available(limiter, "tokens") == 600
    later.observe([Quota(Resource.TOKENS, "minute", 1_000, 500)])  # somebody else used 100
    assert available(limiter, "tokens") == 500


@pytest.mark.parametrize(("stated", "left"), [(700, 700), (760, 750), (800, 750), (900, 800), (1_000, 900)])
def test_a_learned_limit_is_corrected_only_by_what_is_certain(
    manual_clock: ManualClock, stated: int, left: int
) -> None:
    """Calls in flight may be counted in what is stated, or not: between the two, what is known is kept."""
    limiter = unknown(manual_clock)
    first = admitted(limiter.try_acquire(GPT))
    first.observe([Quota(Resource.TOKENS, "minute", 1_000, 850)])
    manual_clock.advance(0.001)
    answered, other = (admitted(limiter.try_acquire(GPT, input_tokens=tokens)) for tokens in (0, 100))
    assert available(limiter, "tokens") == 750
    answered.observe([Quota(Resource.TOKENS, "minute", 1_000, stated)])
    assert available(limiter, "tokens") == left
    other.settle(Usage(1, 100))


def test_answers_out_of_order_do_not_undo_newer_ones(manual_clock: ManualClock) -> None:
    limiter = known(manual_clock, rpm=100)
    older = admitted(limiter.try_acquire(GPT))
    manual_clock.advance(0.01)
    newer = admitted(limiter.try_acquire(GPT))
    newer.observe([Quota(Resource.REQUESTS, "minute", 100, 80)])
    older.observe([Quota(Resource.REQUESTS, "minute", 100, 10)])
    assert available(limiter) == 80


@pytest.mark.parametrize(
    ("quota", "left"),
    [
        (Quota(Resource.TOKENS, "minute", 10_000, 9_000, granularity=1_000), 9_900),  # rounded: up to 9,999 are left
        (Quota(Resource.TOKENS, "minute", 10_000, -27_689), -27_689),  # overdrawn, as Azure tells
        (Quota(Resource.TOKENS, "minute", -1, None), 9_900),  # unknown, as Azure tells
        (Quota(Resource.TOKENS, "minute", 0, 0), 9_900),  # not in the plan: the call would have failed
        (Quota(Resource.TOKENS, "minute", None, 5_000), 5_000),
        (Quota(Resource.TOKENS, "day", None, 5_000), 9_900),  # about another limit
        (Quota(Resource.TOKENS, "minute", 10_000, 50, pool="priority"), 9_900),
        (Quota(Resource.CONCURRENCY, None, 1, 0), 9_900),
    ],
)
def test_odd_quotas(manual_clock: ManualClock, quota: Quota, left: int) -> None:
    limiter = known(manual_clock, tpm=10_000)
    admitted(limiter.try_acquire(GPT, input_tokens=100)).observe([quota])
    assert available(limiter, "tokens") == left


def test_a_lowered_limit_is_followed_and_back(manual_clock: ManualClock) -> None:
    limiter = known(manual_clock, rpm=100)
    call = admitted(limiter.try_acquire(GPT))
    call.observe([Quota(Resource.REQUESTS, "minute", 50, 49)])
    (limit,) = limiter.snapshot().limits
    assert limit.name == "50 requests/minute (lowered from 100)"
    assert limit.amount == 50
    call.observe([Quota(Resource.REQUESTS, "minute", 200, 199)])
    (limit,) = limiter.snapshot().limits
    assert (limit.name, limit.amount) == ("100 requests/minute", 100)


def test_a_learned_limit_follows_the_provider_up_and_down(manual_clock: ManualClock) -> None:
    limiter = unknown(manual_clock)
    for amount in (100, 50, 400):
        call = admitted(limiter.try_acquire(GPT))
        call.observe([Quota(Resource.REQUESTS, "minute", amount, amount - 1)])
        assert available(limiter) == amount - 1
        call.settle(Usage())
        manual_clock.advance(0.001)
