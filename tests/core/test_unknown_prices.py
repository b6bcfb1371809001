"""A model without a price is never a silent $0."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from agent_rate_limiter import ConfigError, Limit, MultiProviderLimiter, Price, Provider, RateLimiter, Resource, Usage
from agent_rate_limiter.testing import ManualClock

SENT = Usage(input_tokens=1_000, output_tokens=100)


def limiter(clock: ManualClock, **options: Any) -> MultiProviderLimiter:
    models: dict[str, Any] = {"known": {"rpm": 100, "cost_per_1k": 0.01}, "own": {"rpm": 100}}
    return MultiProviderLimiter([Provider("p", models)], clock=clock, **options)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "has no price" in record.getMessage()]


def test_it_warns_once_for_each_target(manual_clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    calls = limiter(manual_clock)
    for agent in "ab":
        with calls.scope(agent=agent):
            for model in ("known", "own", "own"):
                calls.acquire(f"p:{model}").settle(SENT)
    (warning,) = warnings(caplog)
    assert warning == (
        "p:own has no price, neither yours nor in the price table: its calls are booked at $0, marked 'unpriced'. "
        "To change that, give it input_per_1m and output_per_1m (or cost_per_1k), or set on_unknown_price to 'block' "
        "or 'zero'."
    )
    assert caplog.records[0].levelno == logging.WARNING


def test_it_says_which_budgets_do_not_bind(manual_clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    calls = limiter(manual_clock, budget_limit=5)
    calls.try_acquire("p:own")  # before anything is sent
    assert "marked 'unpriced', and do not count against 'budget $5.00/day'." in warnings(caplog)[0]


def test_a_budget_that_comes_later_is_told_of_too(manual_clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    calls = limiter(manual_clock)
    calls.acquire("p:own").settle(SENT)
    with calls.scope(budget=2.0):
        calls.acquire("p:own").settle(SENT)
    assert [("against" in warning) for warning in warnings(caplog)] == [False, True]


@pytest.mark.parametrize("usage", [Usage(cost=0.25), Usage(input_tokens=10, cost=0.25)])
def test_a_cost_that_the_provider_states_needs_no_price(
    manual_clock: ManualClock, caplog: pytest.LogCaptureFixture, usage: Usage
) -> None:
    calls = limiter(manual_clock)
    calls.acquire("p:own").settle(usage)
    assert calls.costs.total == 0.25
    assert not warnings(caplog)


def test_block_refuses_before_anything_is_sent(manual_clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    calls = limiter(manual_clock, on_unknown_price="block")
    with pytest.raises(ConfigError):
        calls.acquire("p:own")
    with pytest.raises(ConfigError) as refused:  # and again
        calls.acquire("p:own")
    assert str(refused.value) == (
        "p:own has no price, neither yours nor in the price table: give it input_per_1m and output_per_1m (or "
        "cost_per_1k), or set on_unknown_price to 'warn' or 'zero'. It was not sent."
    )
    calls.acquire("p:known").settle(SENT)
    assert calls.snapshot().in_flight == 0
    assert not caplog.records


def test_zero_says_nothing(manual_clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    calls = limiter(manual_clock, on_unknown_price="zero", budget_limit=5)
    calls.acquire("p:own").settle(SENT)
    assert calls.costs.total == 0
    assert not caplog.records


@pytest.mark.parametrize("make", [MultiProviderLimiter, RateLimiter])
def test_nothing_else_can_be_asked_for(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"on_unknown_price is 'ignore': give 'warn', 'block' or 'zero'"):
        make(on_unknown_price="ignore")


def test_nothing_configured_takes_prices_from_the_table(
    manual_clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    calls = MultiProviderLimiter(clock=manual_clock, budget_limit=0.05)
    calls.acquire("openai:gpt-4", max_output_tokens=500).settle(Usage(input_tokens=100, output_tokens=500))
    assert calls.costs.total == 0.033  # $30 and $60 per million
    refusal = calls.try_acquire("openai:gpt-4", max_output_tokens=500)
    assert not refusal
    assert "budget" in str(refusal)
    assert not warnings(caplog)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        (Provider("mine", {"gpt-4": {}}, kind="openai"), "mine:gpt-4"),
        (Provider("mine", {"gpt-4": {}}, base_url="https://eu.api.openai.com/v1"), "mine:gpt-4"),
        (Provider("openai", {"*": {}}), "openai:gpt-4"),
    ],
)
def test_whose_price_list_it_is_on(manual_clock: ManualClock, provider: Provider, model: str) -> None:
    calls = MultiProviderLimiter([provider], clock=manual_clock)
    calls.acquire(model).settle(Usage(input_tokens=1_000))
    assert calls.costs.total == 0.03


def test_the_users_price_wins_over_the_table(manual_clock: ManualClock) -> None:
    models = {"gpt-4": {"input_per_1m": 1, "output_per_1m": 1}}
    calls = MultiProviderLimiter([Provider("openai", models)], clock=manual_clock)
    calls.acquire("openai:gpt-4").settle(Usage(input_tokens=1_000))
    assert calls.costs.total == 0.001


def test_a_price_that_changes_in_between(caplog: pytest.LogCaptureFixture) -> None:
    """DeepSeek is cheaper from 16:30 to 00:30 UTC: a call counts when it was admitted."""
    clock = ManualClock(1_795_192_199_999)  # a millisecond before 16:30
    calls = MultiProviderLimiter(clock=clock)
    before = calls.acquire("deepseek:deepseek-chat")
    clock.advance(1)
    before.settle(Usage(input_tokens=10_000))
    assert calls.costs.total == 0.0027
    calls.acquire("deepseek:deepseek-chat").settle(Usage(input_tokens=10_000))
    assert calls.costs.total == pytest.approx(0.0027 + 0.00135)


def test_one_models_limiter(manual_clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    """Without a target there is no price to miss; with a limit on cost there is."""
    RateLimiter(rpm=5, clock=manual_clock).acquire().settle(SENT)
    assert not warnings(caplog)
    priced = RateLimiter(target="openai:gpt-4", clock=manual_clock)
    priced.acquire().settle(SENT)
    assert priced.costs.total == pytest.approx(0.036)
    RateLimiter(Limit(Resource.COST, 5, "day"), price=Price(1, 1), clock=manual_clock).acquire()
    assert not warnings(caplog)
    RateLimiter(Limit(Resource.COST, 5, "day"), clock=manual_clock).acquire()
    assert "default:default has no price" in warnings(caplog)[0]


def test_a_call_that_is_dropped_is_priced_when_the_books_are_read(manual_clock: ManualClock) -> None:
    calls = MultiProviderLimiter(clock=manual_clock)
    calls.acquire("openai:gpt-4", input_tokens=1_000)  # nobody keeps it
    assert calls.costs.total == 0.03
