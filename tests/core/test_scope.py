"""What surrounds a call: who makes it, and the reservation that an outer layer already holds for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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
    Reservation,
    ReservationError,
    Resource,
    Scope,
    ScopeBudget,
    Target,
    Usage,
)
from agent_rate_limiter.calls.context import current_reservations
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


def test_many_scopes_do_not_lose_what_was_used(manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only routes whose limits are all idle are forgotten."""
    monkeypatch.setattr("agent_rate_limiter.calls.routing._ROUTES", 8)
    limiter = RateLimiter(Limit(Resource.REQUESTS, 1, "day", scope=Scope(agent=EACH)), clock=manual_clock)

    def admitted(agents: range) -> int:
        count = 0
        for agent in agents:
            with limiter.scope(agent=agent):
                count += bool(limiter.try_acquire())
        return count

    assert [admitted(range(30)), admitted(range(30))] == [30, 0]
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


# ---------------------------------------------------------------- one call is counted once


def claimed(limiter: RateLimiter) -> Reservation | None:
    return limiter.claim(limiter.target)


def test_an_inner_layer_takes_over_the_call_once(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(rpm=10, tpm=1_000, clock=manual_clock)

    @limiter.limit(input_tokens=100)
    def ask() -> dict[str, Any]:
        inner = claimed(limiter)
        assert inner is not None
        inner.settle(Usage(input_tokens=50))
        assert claimed(limiter) is None  # the next layer's call is another one
        return {"usage": {"prompt_tokens": 99, "completion_tokens": 0}}

    ask()
    assert rows(limiter, "provider") == {("default",): 1}
    assert [status.available for status in limiter.snapshot().limits] == [950, 9]


def test_the_outer_layer_may_settle_again_what_the_inner_one_has(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(tpm=1_000, clock=manual_clock)
    ends: list[Callable[[Reservation], None]] = [
        lambda outer: outer.settle(Usage(input_tokens=99)),
        lambda outer: outer.cancel(),
        lambda outer: outer.fail(ConnectionRefusedError()),
    ]
    for end in ends:
        with limiter.reserve(input_tokens=100) as outer:
            inner = claimed(limiter)
            assert inner is not None
            inner.settle(Usage(input_tokens=50))
            end(outer)
            assert (outer.usage, outer.cost) == (inner.usage, inner.cost)
    assert limiter.snapshot().limits[0].available == 850


def test_whoever_claims_a_call_settles_it_also_after_the_outer_block(manual_clock: ManualClock) -> None:
    """As a stream does, that is returned by a decorated function and read afterwards."""
    limiter = RateLimiter(tpm=1_000, concurrency=1, clock=manual_clock)
    with limiter.reserve(input_tokens=100):
        inner = claimed(limiter)
    assert inner is not None
    assert limiter.snapshot().in_flight == 1
    inner.settle(Usage(input_tokens=50))
    assert rows(limiter, "provider") == {("default",): 1}
    assert {status.resource: status.available for status in limiter.snapshot().limits}["tokens"] == 950


def test_what_cannot_be_claimed(manual_clock: ManualClock) -> None:
    providers = [Provider("p", {"a": {"rpm": 9}, "b": {"rpm": 9}})]
    limiter, other = (MultiProviderLimiter(providers, clock=manual_clock) for _ in range(2))
    a, b = Target("p", "a"), Target("p", "b")
    assert limiter.claim(a) is None
    with limiter.reserve(a) as outer, limiter.reserve(b) as inner:
        assert other.claim(a) is None
        for reservation in (outer, inner):
            claimed = limiter.claim(reservation.target)
            assert claimed is not None
            assert claimed.id == reservation.id
            assert repr(reservation).endswith("claimed>")
            claimed.cancel()
    assert limiter.claim(a) is None
    with limiter.reserve(a) as outer:
        outer.settle()
        assert limiter.claim(a) is None
        with pytest.raises(ReservationError):  # nobody inside has settled it: twice is still once too often
            outer.settle()


@pytest.mark.parametrize("end", ["settle", "cancel", "abandon", "fail", "drop"])
def test_three_layers_are_one_call_and_all_see_its_end(manual_clock: ManualClock, end: str) -> None:
    limiter = RateLimiter(tpm=1_000, concurrency=2, clock=manual_clock)
    ends: dict[str, Callable[[Reservation], None]] = {
        "settle": lambda call: call.settle(Usage(input_tokens=50)),
        "cancel": lambda call: call.cancel(),
        "abandon": lambda call: call.abandon(Usage(input_tokens=150)),
        "fail": lambda call: call.fail(ConnectionRefusedError()),
        "drop": lambda call: None,
    }
    charged = {"settle": 50, "cancel": 0, "abandon": 150, "fail": 0, "drop": 100}
    with limiter.reserve(input_tokens=100) as outer:
        middle = claimed(limiter)
        assert middle is not None
        with middle.offered():
            inner = claimed(limiter)
            assert inner is not None
            assert claimed(limiter) is None
            with inner.offered():  # the same slot, found three times, is held once
                limiter.acquire(timeout=0).cancel()
        assert (outer.claimed, middle.claimed, inner.claimed) == (True, True, False)
        ends[end](inner)
        usage = inner.usage
        del inner
        if end != "drop":
            assert outer.usage == middle.usage == usage
    assert limiter.snapshot().in_flight == 0
    left = {status.resource: status.available for status in limiter.snapshot().limits}
    assert left == {"tokens": 1_000 - charged[end], "concurrency": 2}


def test_an_offer_lasts_until_it_is_withdrawn_or_the_call_has_ended(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(rpm=10, clock=manual_clock)
    first, second = limiter.acquire(), limiter.acquire()
    assert claimed(limiter) is None
    first.offer()
    inner = claimed(limiter)
    assert inner is not None
    inner.settle()
    second.offer()
    assert second in current_reservations()
    assert first not in current_reservations()  # it is not kept for ever
    second.withdraw()
    assert second not in current_reservations()
    second.settle()


# ---------------------------------------------------------------- a call within a call


def test_waiting_for_oneself_is_refused(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(concurrency=1, clock=manual_clock)

    async def inner() -> None:
        await limiter.acquire_async(timeout=5)

    for attempt in (limiter.acquire, lambda: run_virtual(inner(), manual_clock)):
        with limiter.reserve(), pytest.raises(ReservationError) as refused:
            attempt()
        assert str(refused.value) == (
            "A call to default:default would wait for ever: '1 at once' is held by the call that it is made from. "
            "Settle the outer call first, or raise the concurrency."
        )
    assert limiter.snapshot().in_flight == 0


def test_a_call_within_a_call_waits_for_others(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(concurrency=2, clock=manual_clock)

    async def main() -> float:
        stranger = limiter.acquire()
        asyncio.get_running_loop().call_later(5, stranger.settle)
        async with limiter.reserve(), limiter.reserve() as inner:
            return inner.waited

    assert run_virtual(main(), manual_clock) == 5
    with limiter.reserve() as outer:
        outer.settle()  # it is no longer in the way
        with limiter.reserve(), limiter.reserve():
            pass
