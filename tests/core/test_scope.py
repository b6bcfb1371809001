"""What surrounds a call: who makes it, and the reservation that an outer layer already holds for it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import pytest

from agent_rate_limiter import (
    EACH,
    BudgetExceeded,
    ConfigError,
    Decision,
    Limit,
    MultiProviderLimiter,
    Price,
    Priority,
    Provider,
    RateLimiter,
    Resource,
    Scope,
    ScopeBudget,
    Usage,
)
from agent_rate_limiter.testing import ManualClock, run_virtual

DOLLAR = Price(1_000, 1_000)  # for a thousand tokens


def rows(limiter: RateLimiter, *by: str) -> dict[tuple[object, ...], object]:
    """Requests by labels."""
    return {tuple(row[label] for label in by): row["requests"] for row in limiter.costs.report(by)}


def call(limiter: RateLimiter, tokens: int = 0) -> None:
    limiter.acquire(input_tokens=tokens).settle(Usage(input_tokens=tokens))


# ---------------------------------------------------------------- labels


def test_scopes_nest_and_the_inner_value_wins(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(clock=manual_clock)
    with limiter.scope(agent="a", run=42):
        call(limiter)
        with limiter.scope(agent="b"):
            call(limiter)
            call(limiter)
        with suppress(ValueError), limiter.scope(agent="c"):
            raise ValueError
        call(limiter)
    call(limiter)
    assert rows(limiter, "agent", "run") == {("a", "42"): 2, ("b", "42"): 2, ("", ""): 1}


def test_a_call_belongs_to_the_scope_that_it_was_admitted_in(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(clock=manual_clock)
    with limiter.scope(agent="a"):
        held = limiter.acquire()
    held.settle()
    assert rows(limiter, "agent") == {("a",): 1}


def test_tasks_are_in_the_scope_they_were_started_in(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(clock=manual_clock)

    async def work(**labels: Any) -> None:
        await asyncio.sleep(1)
        with limiter.scope(**labels):
            (await limiter.acquire_async()).settle()

    async def main() -> None:
        with limiter.scope(agent="a"):
            one = asyncio.create_task(work(step="x"))
        with limiter.scope(agent="b"):
            await asyncio.gather(one, work())

    run_virtual(main(), manual_clock)
    assert rows(limiter, "agent", "step") == {("a", "x"): 1, ("b", ""): 1}


def test_threads_are_in_a_scope_if_they_are_given_it(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(clock=manual_clock)
    with limiter.scope(agent="a"), ThreadPoolExecutor() as threads:
        threads.submit(call, limiter).result()
        threads.submit(copy_context().run, call, limiter).result()
    assert rows(limiter, "agent") == {("",): 1, ("a",): 1}


@pytest.mark.parametrize("value", [None, ""])
def test_a_label_needs_a_value(value: object) -> None:
    with pytest.raises(ConfigError) as refused, RateLimiter().scope(agent="a", run=value):
        pass
    assert str(refused.value) == f"scope label run is {value!r}: give it a value, or leave it out."


@pytest.mark.parametrize("label", ["provider", "model"])
def test_where_calls_went_cannot_be_relabelled(label: str, manual_clock: ManualClock) -> None:
    limiter = RateLimiter(rpm=5, target="p:m", clock=manual_clock)
    labels: dict[str, Any] = {label: "x"}
    with pytest.raises(ConfigError, match=f"^scope label {label} is 'x': "), limiter.scope(**labels):
        call(limiter)


# ---------------------------------------------------------------- priority


def test_a_scope_states_the_priority_of_calls_that_do_not(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(rps=1, clock=manual_clock, ageing=1e6)
    order: list[str] = []

    async def ask(name: str, scopes: list[int | None], own: int | None = None) -> None:
        if scopes:
            with limiter.scope(priority=scopes[0]):
                await ask(name, scopes[1:], own)
        else:
            (await limiter.acquire_async(priority=own)).settle()
            order.append(name)

    async def main() -> None:
        limiter.acquire().settle()
        await asyncio.gather(
            ask("normal", []),
            ask("low", [Priority.LOW]),
            ask("inner wins", [Priority.LOW, 4]),
            ask("outer stays", [3, None]),
            ask("own wins", [Priority.LOW], Priority.HIGH),
            ask("critical", [0]),
        )

    run_virtual(main(), manual_clock)
    assert order == ["critical", "own wins", "outer stays", "inner wins", "normal", "low"]


# ---------------------------------------------------------------- a scope's budget


def test_all_calls_of_a_scope_share_its_budget(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(price=DOLLAR, target="p:m", clock=manual_clock)
    with limiter.scope(run="1", budget=2.00):
        call(limiter, 1_500)
        with limiter.scope(agent="a"), pytest.raises(BudgetExceeded) as refused:
            limiter.acquire(input_tokens=600)
        assert refused.value.retry_after is None
        assert str(refused.value).endswith(
            "$0.60 requested, $0.50 available. It does not reset by itself: raise it, or start a new scope."
        )
        call(limiter, 500)
    call(limiter, 5_000)
    with limiter.scope(run="1", budget=2.00):  # a new one
        call(limiter, 2_000)


def test_a_scopes_budget_is_named_as_money(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(price=DOLLAR, clock=manual_clock)
    with limiter.scope(budget=2.0), pytest.raises(BudgetExceeded, match=r"'scope budget \$2\.00'"):
        limiter.acquire(input_tokens=2_001)


def test_the_outer_budget_binds_inside(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(price=DOLLAR, clock=manual_clock)
    with limiter.scope(budget=1), limiter.scope(budget=5):
        call(limiter, 900)
        refusal = limiter.try_acquire(input_tokens=200)
        assert isinstance(refusal, Decision)
        assert refusal.requested == 0.2
        assert refusal.available == pytest.approx(0.1)


def test_scopes_that_are_over_are_forgotten(manual_clock: ManualClock) -> None:
    """A server that opens one per request must not grow, nor slow down."""
    limiter = RateLimiter(price=DOLLAR, clock=manual_clock)
    for run in range(50):
        with limiter.scope(run=run, budget=1):
            call(limiter, 100)
    assert len(limiter.snapshot().limits) <= 1


def test_a_scope_that_goes_on_in_a_task_keeps_its_budget(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(price=DOLLAR, clock=manual_clock)

    async def later() -> None:
        await asyncio.sleep(60)
        with pytest.raises(BudgetExceeded):
            await limiter.acquire_async(input_tokens=200)

    async def main() -> None:
        with limiter.scope(budget=1):
            call(limiter, 900)
            task = asyncio.create_task(later())
        await task

    run_virtual(main(), manual_clock)


@pytest.mark.parametrize("most", [1_000, 16], ids=["busy routes stay", "limits stay without a route"])
def test_many_scopes_do_not_lose_what_was_used(
    most: int, manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Routes whose limits are all idle are forgotten; of too many busy ones, the limits are kept."""
    monkeypatch.setattr("agent_rate_limiter.calls.routing._ROUTES", 8)
    monkeypatch.setattr("agent_rate_limiter.calls.routing._MOST", most)
    limiter = RateLimiter(Limit(Resource.REQUESTS, 1, "day", scope=Scope(agent=EACH)), clock=manual_clock)

    def admitted(agents: range) -> int:
        count = 0
        for agent in agents:
            with limiter.scope(agent=agent):
                count += bool(limiter.try_acquire())
        return count

    assert [admitted(range(30)), admitted(range(30))] == [30, 0]
    assert len(limiter._calls._router.routes) <= min(30, most)
    manual_clock.advance(86_400)
    admitted(range(30, 60))
    assert len(limiter.snapshot().limits) < 45  # the first thirty are idle by now, and gone


def test_a_scope_does_no_harm_to_another_limiter(manual_clock: ManualClock) -> None:
    one, other = (RateLimiter(price=DOLLAR, clock=manual_clock) for _ in range(2))

    async def main() -> None:
        with one.scope(budget=1):
            held = await one.acquire_async(input_tokens=800)
            asyncio.get_running_loop().call_later(5, held.settle, Usage(input_tokens=100))
            (await other.acquire_async(input_tokens=500)).settle(Usage(input_tokens=100))
            (await one.acquire_async(input_tokens=800)).settle(Usage(input_tokens=800))

    run_virtual(main(), manual_clock)
    assert [limiter.snapshot().in_flight for limiter in (one, other)] == [0, 0]


def test_a_scope_budget_lasts_for_several_blocks(manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter([Provider("p", {"m": {"cost_per_1k": 1}})], clock=manual_clock)
    shared = ScopeBudget(2.00)
    assert repr(shared) == "ScopeBudget(2.0)"
    for _ in range(2):
        with limiter.scope(budget=shared):
            limiter.acquire("p:m", input_tokens=1_000).settle(Usage(input_tokens=1_000))
    with limiter.scope(budget=shared), pytest.raises(BudgetExceeded, match=r"scope budget \$2.00"):
        limiter.acquire("p:m", input_tokens=1)
    with limiter.scope(budget=ScopeBudget(2.00)):
        limiter.acquire("p:m", input_tokens=1_000).cancel()


def test_a_scope_budget_that_is_entered_again_inside_counts_once(manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter([Provider("p", {"m": {"cost_per_1k": 1}})], clock=manual_clock)
    shared = ScopeBudget(2.00)
    with limiter.scope(budget=shared), limiter.scope(budget=shared, agent="inner"):
        limiter.acquire("p:m", input_tokens=1_500).settle(Usage(input_tokens=1_500))
        assert not limiter.try_acquire("p:m", input_tokens=1_000)
        assert [limit.available for limit in limiter.snapshot().limits if "scope" in limit.name] == [0.5]
        limiter.acquire("p:m", input_tokens=500).settle(Usage(input_tokens=500))


def test_a_scope_budget_with_a_key_is_the_same_one_elsewhere(manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter([Provider("p", {"m": {"cost_per_1k": 1}})], clock=manual_clock)
    first, second = ScopeBudget(2.00, key="thread 1"), ScopeBudget(2.00, key="thread 1")
    with limiter.scope(budget=first):
        limiter.acquire("p:m", input_tokens=1_500).settle(Usage(input_tokens=1_500))
    with limiter.scope(budget=second), pytest.raises(BudgetExceeded):
        limiter.acquire("p:m", input_tokens=1_000)


@pytest.mark.parametrize("dollars", [-1, float("inf"), "much"])
def test_a_scope_budget_that_makes_no_sense(dollars: Any) -> None:
    with pytest.raises(ConfigError, match="budget is"):
        ScopeBudget(dollars)
