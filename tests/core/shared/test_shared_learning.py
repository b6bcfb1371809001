"""What one process hears from a provider, or spends, all of them know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agent_rate_limiter import (
    BudgetExceeded,
    MultiProviderLimiter,
    Provider,
    Usage,
)
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.providers.model import Failure, FailureKind, Quota
from agent_rate_limiter.testing import ManualClock


def providers(stores: Callable[[], Any], clock: ManualClock, **options: Any) -> MultiProviderLimiter:
    models = {"gpt": {"rpm": 60, "tpm": 10_000, "input_per_1m": 1_000, "output_per_1m": 0}}
    return MultiProviderLimiter([Provider("openai", models)], store=stores(), clock=clock, **options)


def test_a_refusal_that_one_process_sees_closes_the_gate_for_all(
    stores: Callable[[], Any], manual_clock: ManualClock
) -> None:
    one, other = providers(stores, manual_clock), providers(stores, manual_clock)
    assert other.try_acquire("openai:gpt").settle() is None  # type: ignore[union-attr]
    one.acquire("openai:gpt").fail(Failure(FailureKind.WAIT, retry_after=30))
    refusal = other.try_acquire("openai:gpt")
    assert not refusal
    assert "openai:gpt is closed: its provider refused calls" in refusal.reason
    assert refusal.retry_after == 30
    manual_clock.advance(30)
    assert other.try_acquire("openai:gpt")
    assert not one.try_acquire("openai:gpt"), "it opens call by call, for all of them together"


def test_limits_that_headers_lower_bind_every_process(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    one, other = providers(stores, manual_clock), providers(stores, manual_clock)
    assert other.try_acquire("openai:gpt").settle() is None  # type: ignore[union-attr]
    call = one.acquire("openai:gpt")
    call.observe([Quota(Resource.REQUESTS, "minute", limit=10, remaining=3)])
    call.settle()
    assert [bool(other.try_acquire("openai:gpt")) for _ in range(4)] == [True, True, True, False]
    names = {limit.name for limit in other.snapshot().limits}
    assert "10 requests/minute (lowered from 60)" in names


def test_limits_that_one_process_learns_the_others_know(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    one, other = (MultiProviderLimiter(store=stores(), clock=manual_clock) for _ in range(2))
    assert other.try_acquire("openai:new").settle() is None  # type: ignore[union-attr]
    call = one.acquire("openai:new")
    call.observe([Quota(Resource.REQUESTS, "minute", limit=10, remaining=1)])
    call.settle()
    assert [bool(other.try_acquire("openai:new")) for _ in range(3)] == [True, True, False]
    assert any(limit.name == "10 requests/minute (learned)" for limit in other.snapshot().limits)


def test_one_budget_for_all(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    alerts: list[str] = []
    one, other = (
        providers(stores, manual_clock, budget_limit=1, on_alert=lambda alert: alerts.append(str(alert)))
        for _ in range(2)
    )
    one.acquire("openai:gpt", input_tokens=500).settle(Usage(input_tokens=500))  # $0.5
    held = other.acquire("openai:gpt", input_tokens=400)
    with pytest.raises(BudgetExceeded):
        other.acquire("openai:gpt", input_tokens=200, timeout=0)
    held.settle(Usage(input_tokens=400))
    with pytest.raises(BudgetExceeded):
        one.acquire("openai:gpt", input_tokens=200)
    assert one.alerts.flush(5)
    assert other.alerts.flush(5)
    assert sum("$0.90 of $1.00 is used, past 80%" in alert for alert in alerts) == 1, "told once by all of them"
    assert sum("it is exhausted" in alert for alert in alerts) == 1


def test_what_was_spent_without_the_store_is_told_when_it_is_back(
    stores: Callable[[], Any], manual_clock: ManualClock
) -> None:
    alerts: list[str] = []
    store = stores()
    options: Any = {"on_store_error": "fail_open", "on_alert": lambda alert: alerts.append(str(alert))}
    one = providers(lambda: store, manual_clock, budget_limit=1, **options)
    one.acquire("openai:gpt", input_tokens=100).settle(Usage(input_tokens=100))
    store.lost = True
    one.acquire("openai:gpt", input_tokens=800).settle(Usage(input_tokens=800))
    assert one.alerts.flush(5)
    assert not alerts
    store.lost = False
    manual_clock.advance(10)
    one.acquire("openai:gpt", input_tokens=50).settle(Usage(input_tokens=50))
    assert one.alerts.flush(5)
    assert len(alerts) == 1, alerts
    assert "$0.95 of $1.00 is used, past 80%" in alerts[0]


def test_scopes_of_different_processes_are_different(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    one, other = providers(stores, manual_clock), providers(stores, manual_clock)
    with one.scope(budget=0.5):
        one.acquire("openai:gpt", input_tokens=400).settle(Usage(input_tokens=400))
    with other.scope(budget=0.5):
        assert other.try_acquire("openai:gpt", input_tokens=400)
