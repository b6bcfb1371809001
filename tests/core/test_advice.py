"""What an agent is told that plans its next calls, and who holds a limit."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from agent_rate_limiter import (
    LimitExceeded,
    MultiProviderLimiter,
    Provider,
    RateLimiter,
    Usage,
)
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.core.reporting import limited_many_ways


@pytest.fixture
def limiter(manual_clock: ManualClock) -> MultiProviderLimiter:
    return limited_many_ways(manual_clock)


# ---------------------------------------------------------------- advice, for agents that plan


def test_advice_when_nothing_binds(limiter: MultiProviderLimiter) -> None:
    with limiter.scope(agent="a", budget=2):
        advice = limiter.advice("p:m", input_tokens=100)
        assert json.loads(json.dumps(advice.to_dict())) == advice.to_dict()
    assert (advice.wait, advice.binding, advice.waiting) == (0, "", 0)
    assert advice.budget_left == 2
    assert str(advice) == (
        "p:m admits such a call at once. $2.00 of $2.00 are left to spend (scope budget $2.00, 0% used)."
    )


def test_advice_on_small_money() -> None:
    limiter = MultiProviderLimiter([Provider("p", {"m": {"cost_per_1k": 1}})])
    with limiter.scope(budget=0.0033):
        assert "$0.0033 of $0.0033 are left to spend" in limiter.advice("p:m").text


def test_advice_names_what_a_call_would_wait_for_and_the_tightest_budget(limiter: MultiProviderLimiter) -> None:
    limiter.acquire("p:m", input_tokens=4_000).settle(Usage(input_tokens=4_000))
    advice = limiter.advice("p:m", input_tokens=3_000)
    assert advice.wait == 10  # 2,000 of 6,000 a minute are left
    assert advice.binding == "6,000 tokens/minute"
    assert (advice.budget, advice.budget_left) == ("budget $10.00/day", 6)
    assert advice.budget_used_share == pytest.approx(0.4)
    assert advice.text.startswith("p:m is refused by '6,000 tokens/minute'")


def test_advice_counts_those_who_wait(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(concurrency=1, clock=manual_clock)

    async def main() -> None:
        held = limiter.acquire()
        waiter = asyncio.create_task(limiter.acquire_async())
        await asyncio.sleep(0)
        advice = limiter.advice()
        assert (advice.wait, advice.binding, advice.waiting) == (None, "1 at once", 1)
        assert (advice.budget, advice.budget_left, advice.budget_used_share) == ("", None, None)
        assert "Waiting already: 1." in advice.text
        held.cancel()
        (await waiter).cancel()

    run_virtual(main(), manual_clock)


@pytest.mark.parametrize(
    ("limit", "amount", "wait"),
    [
        ("60 requests/minute", 60, 0.0),
        ("60 requests/minute", 90, 30.0),
        ("60 requests/minute", 600, 540.0),
        ("100 requests", 101, None),
        ("2 concurrent", 3, None),
    ],
)
def test_a_limits_status_tells_when_so_much_has_come_free(limit: str, amount: int, wait: float | None) -> None:
    (status,) = RateLimiter(limit, clock=ManualClock()).explain().limits
    assert status.wait_for(amount) == wait


# ------------------------------------------------------------------ who holds it


def test_an_explanation_says_who_took_the_limit(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(tpm=1_000, clock=manual_clock)
    for agent, tokens in (("researcher", 700), ("writer", 200)):
        with limiter.scope(agent=agent):
            limiter.acquire(input_tokens=tokens).settle(Usage(1, tokens))
    with limiter.scope(agent="critic"):
        held = limiter.acquire(input_tokens=100)
    explanation = limiter.explain(input_tokens=500)
    assert explanation.holders == (("researcher", 0.7), ("writer", 0.2), ("critic", 0.1))
    assert "\n  taken by: researcher 70%, writer 20%, critic 10%\n" in str(explanation)
    held.settle()
    manual_clock.advance(7_200)
    assert limiter.explain(input_tokens=500).holders == ()


def test_a_budget_s_holders_spent_it(manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter(
        [Provider("p", {"m": {"cost_per_1k": 1}, "n": {}})], budget_limit=1, clock=manual_clock
    )
    for agent, tokens in (("a", 300), ("b", 100), ("c", 50), ("d", 50), ("", 500)):
        labels: dict[str, Any] = {"agent": agent} if agent else {}
        with limiter.scope(**labels):
            limiter.acquire("p:m", input_tokens=tokens).settle(Usage(1, tokens))
    explanation = limiter.explain("p:m", input_tokens=500)
    assert [holder.agent for holder in explanation.holders] == ["", "a", "b", "c", "d"]
    assert "taken by: others 50%, a 30%, b 10%, 2 more 10%" in str(explanation)


def test_a_refusal_says_who_is_in_flight(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(concurrency=4, clock=manual_clock)
    held = []
    for agent in ("a", "a", "a", "b"):
        with limiter.scope(agent=agent):
            held.append(limiter.acquire())
    with pytest.raises(LimitExceeded, match=r"In flight: a 75%, b 25%\.$") as refused:
        limiter.acquire(timeout=0)
    assert refused.value.decision.holders == (("a", 0.75), ("b", 0.25))
    for call in held:
        call.settle()
