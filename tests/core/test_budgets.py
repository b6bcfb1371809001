"""Budgets hold, wait for what calls in flight may give back, start anew with the calendar, and tell in time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from agent_rate_limiter import (
    EACH,
    Budget,
    BudgetExceeded,
    ConfigError,
    Decision,
    Estimate,
    MultiProviderLimiter,
    Provider,
    Reservation,
    Resource,
    Scope,
    Usage,
)
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.core.spending import DAY, hold, left, make_limiter, spend

# ---------------------------------------------------------------- it holds


def test_what_a_call_could_cost_is_held_until_it_is_known(manual_clock: ManualClock) -> None:
    limiter = make_limiter(manual_clock, budget_limit=1)
    call = limiter.acquire("p:m", input_tokens=100, output_tokens=50, max_output_tokens=300)
    assert left(limiter)[""] == pytest.approx(0.6)
    call.settle(Usage(input_tokens=100, output_tokens=10))
    assert left(limiter)[""] == pytest.approx(0.89)
    call = limiter.acquire("p:m", input_tokens=100)
    call.cancel()
    assert left(limiter)[""] == pytest.approx(0.89)


def test_refused_at_once_when_nothing_can_come_back(manual_clock: ManualClock) -> None:
    limiter = make_limiter(manual_clock, budget_limit=1)
    spend(limiter, 0.75)
    with pytest.raises(BudgetExceeded) as refused:
        hold(limiter, 0.5)
    assert str(refused.value) == (
        "p:m is refused by 'budget $1.00/day': $0.50 requested, $0.25 available. It frees in 1 d, at "
        "2026-01-02 00:00:00 UTC: wait that long (timeout), raise the budget, or take a cheaper model."
    )
    with pytest.raises(BudgetExceeded) as refused:
        limiter.acquire("p:m", input_tokens=1_001)
    assert str(refused.value) == (
        "p:m is refused by 'budget $1.00/day': $1.001 requested, but it never holds more than $1.00. "
        "Lower max_tokens, take a cheaper model, or raise the budget."
    )


@pytest.mark.parametrize(
    ("end", "refused"),
    [
        (lambda call: call.settle(Usage(cost=0.25)), None),
        (lambda call: call.cancel(), None),
        (lambda call: call.settle(Usage(cost=0.75)), r"\$0.50 requested, \$0.25 available"),
    ],
    ids=["cheaper", "cancelled", "dear"],
)
def test_a_call_waits_while_calls_in_flight_may_give_money_back(
    end: Callable[[Reservation], None], refused: str | None, manual_clock: ManualClock
) -> None:
    limiter = make_limiter(manual_clock, budget_limit=1)

    async def main() -> Reservation:
        call = hold(limiter, 0.75)
        waiting = asyncio.create_task(limiter.acquire_async("p:m", Estimate(cost=0.5)))
        await asyncio.sleep(30)
        assert limiter.snapshot().waiting == 1
        end(call)
        return await waiting

    if refused is None:
        assert run_virtual(main(), manual_clock).waited == 30
    else:
        with pytest.raises(BudgetExceeded, match=refused):
            run_virtual(main(), manual_clock)


@pytest.mark.parametrize("rolling", [False, True])
def test_a_call_waits_for_that_until_its_deadline(rolling: bool, manual_clock: ManualClock) -> None:
    limiter = make_limiter(manual_clock, budgets=[Budget(1, rolling=rolling)])
    call = hold(limiter, 0.75)
    start = manual_clock.now()
    with pytest.raises(BudgetExceeded, match=r"\$0.50 requested, \$0.25 available"):
        run_virtual(limiter.acquire_async("p:m", Estimate(cost=0.5), timeout=10), manual_clock)
    assert manual_clock.now() - start == 10_000
    call.cancel()
    assert hold(limiter, 1)


@pytest.mark.parametrize("store", ["memory://", "sqlite:///limits.db"])
def test_who_goes_on_waiting_for_money_holds_up_nobody_behind_it(
    store: str, manual_clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three wait for two slots; the second of them then has to wait for the budget, and the third still comes next."""
    monkeypatch.chdir(tmp_path)
    model = {"limits": ["3 concurrent"], "cost_per_1k": 1.0}
    limiter = MultiProviderLimiter([Provider("p", {"m": model})], clock=manual_clock, budget_limit=1, store=store)

    async def call(cost: float) -> float:
        reservation = await limiter.acquire_async("p:m", Estimate(cost=cost))
        await asyncio.sleep(1)
        reservation.settle(Usage(cost=0.01))
        return round(reservation.waited)

    async def main() -> list[float]:
        *slots, money = [await limiter.acquire_async("p:m", Estimate(cost=cost)) for cost in (0.01, 0.01, 0.75)]
        waiting = [asyncio.create_task(call(cost)) for cost in (0.1, 0.5, 0.1)]
        await asyncio.sleep(5)
        for slot in slots:
            slot.settle(Usage(cost=0.01))
        await asyncio.sleep(5)
        money.settle(Usage(cost=0.01))
        return list(await asyncio.gather(*waiting))

    assert run_virtual(main(), manual_clock) == [5, 10, 10]


@pytest.mark.parametrize("gives_back", [0.75, 0.25])
def test_threads_wait_for_that_as_tasks_do(gives_back: float, manual_clock: ManualClock) -> None:
    limiter = make_limiter(manual_clock, budget_limit=1)
    call = hold(limiter, 0.75)
    outcomes: list[object] = []

    def ask() -> None:
        try:
            outcomes.append(limiter.acquire("p:m", Estimate(cost=0.5)))
        except BudgetExceeded as error:
            outcomes.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    while limiter.snapshot().waiting < 2:
        time.sleep(0.001)
    call.settle(Usage(cost=0.75 - gives_back))
    if gives_back == 0.75:  # room for both
        for thread in threads:
            thread.join(5)
        assert all(isinstance(outcome, Reservation) for outcome in outcomes)
    else:  # for one; the other waits for what that may give back
        while not outcomes:
            time.sleep(0.001)
        assert limiter.snapshot().waiting == 1
        (first,) = outcomes
        assert isinstance(first, Reservation)
        first.settle(Usage(cost=0.5))
        for thread in threads:
            thread.join(5)
        assert isinstance(outcomes[1], BudgetExceeded)


def test_a_call_that_may_wait_longer_waits_for_the_next_day(manual_clock: ManualClock) -> None:
    limiter = make_limiter(manual_clock, budget_limit=1)
    spend(limiter, 1)
    call = run_virtual(limiter.acquire_async("p:m", Estimate(cost=1), timeout=2 * DAY), manual_clock)
    assert call.waited == DAY


@pytest.mark.parametrize(
    ("options", "now", "begins"),
    [
        ({"budget_period": "day"}, "2026-03-15 23:00", "2026-03-16 00:00"),
        ({"budget_period": "week"}, "2026-03-11 12:00", "2026-03-16 00:00"),
        ({"budget_period": "month"}, "2026-02-11 12:00", "2026-03-01 00:00"),
        ({"budget_period": "hour"}, "2026-02-11 12:20", "2026-02-11 13:00"),
        ({"budget_period": 600}, "2026-02-11 12:21", "2026-02-11 12:30"),
        ({"timezone": "America/Los_Angeles"}, "2026-11-23 22:00", "2026-11-24 08:00"),
        ({"timezone": "America/Los_Angeles"}, "2026-07-01 22:00", "2026-07-02 07:00"),
    ],
)
def test_a_budget_starts_anew_with_the_calendar(options: dict[str, Any], now: str, begins: str) -> None:
    clock = ManualClock(epoch_ms(now))
    limiter = make_limiter(clock, budget_limit=1, **options)
    spend(limiter, 1)
    clock.advance_to(epoch_ms(begins) - 1)
    decision = limiter.try_acquire("p:m", Estimate(cost=1))
    assert isinstance(decision, Decision)
    assert (decision.retry_after, decision.available_at) == (0.001, epoch_ms(begins) / 1000)
    clock.advance(0.001)
    assert limiter.try_acquire("p:m", Estimate(cost=1))


def epoch_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp() * 1000)


@pytest.mark.parametrize(("per", "hours"), [("day", 24), ("week", 7 * 24), ("month", 30 * 24), (7_200, 2)])
def test_a_rolling_budget_frees_each_dollar_a_period_after_it_was_spent(per: Any, hours: int) -> None:
    clock = ManualClock(epoch_ms("2026-03-08 12:00"))
    limiter = make_limiter(clock, budgets=[Budget(1, per, rolling=True, timezone="America/Los_Angeles")])
    period = hours * 3_600
    spend(limiter, 0.6)
    clock.advance(period / 2)
    spend(limiter, 0.4)
    late = period / 60
    for after, room in ((period / 2 - 1, 0), (1 + late, 0.6), (period / 2 - late - 1, 0.6), (1 + late, 1)):
        clock.advance(after)
        assert left(limiter) == {"": pytest.approx(room)}


def test_a_call_waits_while_calls_in_flight_may_give_money_back_to_a_rolling_budget(manual_clock: ManualClock) -> None:
    limiter = make_limiter(manual_clock, budgets=[Budget(1, rolling=True)])

    async def main() -> Reservation:
        first, second = hold(limiter, 0.5), hold(limiter, 0.4)
        waiting = asyncio.create_task(limiter.acquire_async("p:m", Estimate(cost=0.5)))
        await asyncio.sleep(30)
        first.settle(Usage(cost=0.45))  # not enough yet, but the other may still give some back
        await asyncio.sleep(30)
        second.settle(Usage(cost=0.05))
        reservation = await waiting
        with pytest.raises(BudgetExceeded, match="It frees in 1 d"):
            await limiter.acquire_async("p:m", Estimate(cost=0.6))
        return reservation

    assert run_virtual(main(), manual_clock).waited == 60


def test_what_is_spent_stays_when_a_budget_is_raised_named_or_begun_anew() -> None:
    """A store finds a budget again by its period and scope, not by its amount."""

    def keys(*budgets: Budget, **options: Any) -> set[str]:
        limiter = make_limiter(ManualClock(), budgets=budgets, **options)
        spend(limiter, 0.1, agent="a")
        buckets = limiter._calls.engine.store.buckets()
        return {bucket.key for bucket in buckets if bucket.limit.resource is Resource.COST}

    each = Scope(agent=EACH)
    assert keys(budget_limit=1) == keys(Budget(200)) == {"budget|day"}
    assert keys(Budget(1, "month", scope=each, timezone="Asia/Tokyo")) == {"budget|month Asia/Tokyo|agent=each|agent=a"}
    assert keys(Budget(1, rolling=True, timezone="Asia/Tokyo"), Budget(1, None)) == {
        "budget|rolling day",
        "budget|total",
    }
    assert keys(Budget(1, name="research")) == keys(Budget(2, name="research")) == {"budget|research"}
    assert keys(Budget(1, action="warn"), Budget(2)) == {"budget|day", "budget|day #2"}


def test_a_total_never_starts_anew(manual_clock: ManualClock) -> None:
    limiter = make_limiter(manual_clock, budget_limit=1, budget_period="total")
    spend(limiter, 1)
    manual_clock.advance(400 * DAY)
    with pytest.raises(BudgetExceeded, match="It does not reset by itself"):
        hold(limiter, 0.5)


def test_every_budget_on_the_way_binds(manual_clock: ManualClock) -> None:
    budgets = [Budget(3, scope=Scope(agent=EACH)), Budget(1, "week", scope=Scope(agent="a"))]
    limiter = make_limiter(manual_clock, budget_limit=5, budgets=budgets)
    spend(limiter, 1, agent="a")
    spend(limiter, 2, agent="b")
    for agent, dollars, binding in (("a", 0.5, "$1.00/week"), ("b", 1.5, "$3.00/day"), ("c", 2.5, "$5.00/day")):
        with limiter.scope(agent=agent), pytest.raises(BudgetExceeded) as refused:
            hold(limiter, dollars)
        assert f"'budget {binding}'" in str(refused.value)


@pytest.mark.parametrize("other", [Budget(1), Budget(1, timezone="America/Los_Angeles")], ids=["equal", "like-named"])
def test_two_budgets_of_one_name_both_count_right(other: Budget, manual_clock: ManualClock) -> None:
    """Or are refused, as limits are that no message could tell apart."""
    try:
        limiter = make_limiter(manual_clock, budget_limit=1, budgets=[other])
    except ConfigError:
        return
    call = hold(limiter, 0.5)
    call.settle(Usage(cost=0.25))
    assert {status.available for status in limiter.snapshot().limits if status.resource == "cost"} == {0.75}


def test_a_refusal_tells_the_time_where_the_budget_lives(manual_clock: ManualClock) -> None:
    """As its alerts do: a budget of New York starts anew at midnight there."""
    limiter = MultiProviderLimiter(
        [Provider("p", {"m": {"cost_per_1k": 1}})], budget_limit=1, timezone="America/New_York", clock=manual_clock
    )
    limiter.acquire("p:m", input_tokens=900, max_output_tokens=100).settle(Usage(input_tokens=1_000))
    refused = limiter.try_acquire("p:m", input_tokens=1, max_output_tokens=1)
    assert isinstance(refused, Decision)
    assert "It frees in 5 h, at 2026-01-01 00:00:00 EST: " in refused.reason
