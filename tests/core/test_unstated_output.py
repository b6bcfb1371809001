"""Budgets and calls that state no `max_tokens`: a first crowd of them cannot overrun a budget, and somebody is told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from agent_rate_limiter import (
    BudgetExceeded,
    Decision,
    MultiProviderLimiter,
    Provider,
    Reservation,
    Scope,
    Usage,
)
from agent_rate_limiter.budgets import Budget
from agent_rate_limiter.estimates import UNSTATED_OUTPUT
from agent_rate_limiter.testing import ManualClock

DEAR = {"input_per_1m": 10, "output_per_1m": 100, "rpm": 10_000}
STATE = "Calls to p:m state no max_tokens: "


def limiter_of(clock: ManualClock, **options: Any) -> MultiProviderLimiter:
    return MultiProviderLimiter([Provider("p", {"m": options.pop("model", DEAR)})], clock=clock, **options)


def crowd(limiter: MultiProviderLimiter, **counts: Any) -> list[Reservation]:
    """All the calls that are admitted at once."""
    admitted: list[Reservation] = []
    while isinstance(call := limiter.try_acquire("p:m", **counts), Reservation) and len(admitted) < 500:
        admitted.append(call)
    return admitted


def end(calls: Iterable[Reservation], output_tokens: int) -> None:
    for call in calls:
        call.settle(Usage(input_tokens=100, output_tokens=output_tokens))


def held(limiter: MultiProviderLimiter) -> float:
    """Dollars of the budget that calls in flight hold."""
    return limiter.budgets[0].limit - next(s for s in limiter.snapshot().limits if s.owner == "budget").available


def test_a_first_crowd_cannot_overrun_a_small_budget(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, budget_limit=1)
    calls = crowd(limiter, input_tokens=100)
    assert len(calls) == 8  # an eighth of the budget each, though 4,096 tokens would cost more
    end(calls, 1_000)
    assert limiter.costs.total == pytest.approx(8 * 0.101)


def test_a_large_budget_is_ready_for_answers_as_long_as_most_providers_allow(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, budget_limit=100)
    assert limiter.try_acquire("p:m", input_tokens=100)
    assert held(limiter) == pytest.approx((100 * 10 + UNSTATED_OUTPUT * 100) / 1e6)


def test_the_longest_answer_counts_until_the_usual_is_known(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, budget_limit=1)
    end([limiter.acquire("p:m", input_tokens=100)], 3_000)
    before = held(limiter)
    assert limiter.try_acquire("p:m", input_tokens=100)
    assert held(limiter) - before == pytest.approx(0.301)  # more than an eighth


def test_then_what_is_usual_counts(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, budget_limit=1)
    for _ in range(8):
        end([limiter.acquire("p:m", input_tokens=100)], 15)  # sizes below 16 are kept exactly
    before = held(limiter)
    call = limiter.acquire("p:m", input_tokens=100)
    assert held(limiter) - before == pytest.approx(0.001 + 0.0015)
    call.cancel()
    with limiter.scope(agent="another"):  # begins with what is known of the model
        limiter.acquire("p:m", input_tokens=100)
    assert held(limiter) - before == pytest.approx(0.001 + 0.0015)


def test_calls_that_have_no_output_pay_for_none(manual_clock: ManualClock) -> None:
    """Embeddings: whoever gives one price for both directions means the input."""
    limiter = limiter_of(manual_clock, budget_limit=1, model={"cost_per_1k": 0.01})
    end([limiter.acquire("p:m", input_tokens=100)], 0)
    before = held(limiter)
    assert limiter.try_acquire("p:m", input_tokens=100)
    assert held(limiter) - before == pytest.approx(0.001)


def test_the_smallest_budget_on_the_way_counts(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, budget_limit=100, budgets=[Budget(0.8, scope=Scope(run="each"))])
    with limiter.scope(run="1"):
        assert len(crowd(limiter, input_tokens=100)) == 8


def test_what_the_input_costs_is_reserved_at_least(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, budget_limit=1)
    refused = limiter.try_acquire("p:m", input_tokens=200_000)
    assert isinstance(refused, Decision)
    assert refused.requested == 2
    with pytest.raises(BudgetExceeded):
        limiter.acquire("p:m", input_tokens=200_000)


@pytest.mark.parametrize(
    ("counts", "budget"),
    [
        ({"input_tokens": 100, "max_output_tokens": 10}, {"budget_limit": 1}),
        ({"input_tokens": 100, "output_tokens": 10}, {"budget_limit": 1}),
        ({"requests": 0, "input_tokens": 100}, {"budget_limit": 1}),
        ({"input_tokens": 100}, {}),
        ({"input_tokens": 100}, {"budgets": [Budget(1, action="warn")]}),
        ({"input_tokens": 100}, {"budget_limit": 1, "model": {"input_per_1m": 10, "output_per_1m": 0}}),
    ],
)
def test_nobody_is_told_of_what_is_no_danger(
    manual_clock: ManualClock, caplog: pytest.LogCaptureFixture, counts: Any, budget: dict[str, Any]
) -> None:
    limiter = limiter_of(manual_clock, **budget)
    before = len(limiter.snapshot().limits)
    assert limiter.try_acquire("p:m", **counts)
    assert len(limiter.snapshot().limits) >= before
    assert not caplog.messages


def test_who_only_asks_makes_no_call(manual_clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    limiter = limiter_of(manual_clock, budget_limit=1)
    assert limiter.explain("p:m", input_tokens=100).decision.admitted
    assert limiter.advice("p:m", input_tokens=100).wait == 0
    assert not caplog.messages


def test_it_is_told_once_which_budgets_may_be_overrun(
    manual_clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = limiter_of(manual_clock, budget_limit=100, budgets=[Budget(5, "week")])
    crowd(limiter, input_tokens=100)
    with limiter.scope(agent="another"):
        crowd(limiter, input_tokens=100)
    (said,) = [message for message in caplog.messages if message.startswith(STATE)]
    assert said.startswith(f"{STATE}of 'budget $100.00/day', 'budget $5.00/week' is reserved what such answers usually")
    assert said.endswith("State max_tokens to be sure.")
