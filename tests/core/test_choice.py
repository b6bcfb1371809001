"""Which target serves a call: the order of preference, how long each is waited for, and what is heard of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent_rate_limiter import (
    AcquireTimeout,
    AllTargetsFailed,
    BudgetExceeded,
    ConfigError,
    Decision,
    RequestTooLarge,
    Target,
    Usage,
)
from agent_rate_limiter.providers import Failure, FailureKind
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.core.choosing import A, B, C, drain, limiter_estimate, limiter_of


def served(limiter: Any, clock: ManualClock, target: str = A, **options: Any) -> tuple[str, float]:
    """Where a call went, and how many seconds it took to be admitted."""
    start = clock.now()

    async def call() -> str:
        reservation = await limiter.acquire_async(target, **options)
        reservation.settle()
        return str(reservation.target)

    return run_virtual(call(), clock), (clock.now() - start) / 1000


# ------------------------------------------------------------------ how long each is waited for


def test_the_target_is_waited_for_as_long_as_a_fallback_is_not_needed(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock)
    drain(limiter, A, 60)
    assert served(limiter, manual_clock) == (A, 1.0)  # it refills one a second: within `fallback_after`


def test_a_longer_wait_goes_to_the_first_fallback_that_is_free(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, models={"a": {"rpm": 10}, "b": {"rpm": 10}})
    drain(limiter, A, 10)
    assert served(limiter, manual_clock) == (B, 0.0)
    drain(limiter, B, 9)
    assert served(limiter, manual_clock) == (C, 0.0)


def test_with_a_timeout_the_first_that_admits_in_time_is_taken(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, models={"a": {"rpm": 10}})
    drain(limiter, A, 10)
    assert served(limiter, manual_clock, timeout=7) == (A, 6.0)
    drain(limiter, A, 0)
    assert served(limiter, manual_clock, timeout=3) == (B, 0.0)


def test_where_all_are_full_the_one_that_is_free_first_is_waited_for(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, models={"a": {"rpm": 5}, "b": {"rpm": 10}, "c": {"rpm": 6}})
    for target, calls in ((A, 5), (B, 10), (C, 6)):
        drain(limiter, target, calls)
    assert served(limiter, manual_clock) == (B, 6.0)


def test_fallback_after_is_the_users_to_choose(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, models={"a": {"rpm": 10}}, fallback_after=10)
    drain(limiter, A, 10)
    assert served(limiter, manual_clock) == (A, 6.0)


def test_it_is_decided_anew_when_the_gate_closes_meanwhile(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, models={"a": {"rpm": 10}}, fallback_after=10)
    flying = limiter.acquire(A)
    drain(limiter, A, 9)
    start = manual_clock.now()

    async def scenario() -> str:
        waiting = asyncio.ensure_future(limiter.acquire_async(A))  # six seconds, as far as anybody knows
        await asyncio.sleep(2)
        flying.fail(Failure(FailureKind.WAIT, retry_after=60, status=429))
        reservation = await waiting
        reservation.settle()
        return str(reservation.target)

    assert run_virtual(scenario(), manual_clock) == B
    assert manual_clock.now() - start == 2_000


def test_a_slot_of_which_nobody_knows_when_it_comes_back(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, models={"a": {"concurrency": 1}})
    held = limiter.acquire(A)
    assert served(limiter, manual_clock, timeout=60) == (B, 1.0)
    held.settle()
    assert served(limiter, manual_clock) == (A, 0.0)


def test_what_never_fits_goes_where_it_does(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, models={"a": {"tpm": 100}, "b": {"tpm": 100}, "c": {"tpm": 1_000}})
    assert served(limiter, manual_clock, input_tokens=500) == (C, 0.0)
    with pytest.raises(AllTargetsFailed) as failed:
        limiter.acquire(A, input_tokens=5_000)
    assert {target: type(cause) for target, cause in failed.value.causes.items()} == dict.fromkeys(
        (A, B, C), RequestTooLarge
    )


def test_none_in_time(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock)
    for target in (A, B, C):
        drain(limiter, target, 60)
    start = manual_clock.now()
    with pytest.raises(AllTargetsFailed) as failed:
        limiter.acquire(A, timeout=0.5)
    assert manual_clock.now() == start  # known at once
    assert [type(cause) for cause in failed.value.causes.values()] == [AcquireTimeout] * 3


def test_the_budget_is_checked_at_the_target_that_is_chosen(manual_clock: ManualClock) -> None:
    dear, cheap = {"rpm": 60, "cost_per_1k": 10}, {"rpm": 60, "cost_per_1k": 0.1}
    limiter = limiter_of(manual_clock, models={"a": dear, "b": dear, "c": cheap}, budget_limit=1)
    assert served(limiter, manual_clock, max_output_tokens=1_000) == (C, 0.0)
    with pytest.raises(BudgetExceeded, match="budget"):  # the same one everywhere: that is the error
        limiter.acquire(A, max_output_tokens=100_000)


def test_a_call_names_its_own_fallbacks(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, models={"a": {"rpm": 10}}, fallbacks=None)
    drain(limiter, A, 10)
    assert served(limiter, manual_clock, fallbacks=[C]) == (C, 0.0)
    assert served(limiter, manual_clock) == (A, 6.0)
    with limiter.reserve(A, fallbacks=[B]) as call:
        assert (call.target, call.model, call.provider) == (Target("b", "m"), "m", "b")
    with pytest.raises(ConfigError, match="target is 'd:m'"):
        limiter.acquire(A, fallbacks=["d:m"])


def test_reserve_enters_either_way(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, models={"a": {"rpm": 10}})
    drain(limiter, A, 10)
    with limiter.reserve(A) as call:
        assert str(call.target) == B

    async def enter() -> str:
        async with limiter.reserve(A) as call:
            return str(call.target)

    assert run_virtual(enter(), manual_clock) == B


def test_try_acquire_never_waits(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, models={"a": {"rpm": 10}, "b": {"rpm": 1}, "c": {"rpm": 1}})
    drain(limiter, A, 10)
    call = limiter.try_acquire(A)
    assert call
    assert str(call.target) == B
    drain(limiter, C, 1)
    refused = limiter.try_acquire(A)
    assert isinstance(refused, Decision)
    assert (refused.target, refused.retry_after) == (A, 6.0)  # it frees first
    plain = limiter_of(manual_clock, fallbacks=None).try_acquire(A, fallbacks=[B])
    assert plain.target == Target("a", "m")


# ------------------------------------------------------------------ policies


@pytest.mark.parametrize(("policy", "target"), [("in_order", A), ("cheapest", C), ("least_loaded", B)], ids=str)
def test_policies(manual_clock: ManualClock, policy: str, target: str) -> None:
    models = {
        "a": {"rpm": 60, "cost_per_1k": 3},
        "b": {"rpm": 60, "cost_per_1k": 2},
        "c": {"rpm": 60, "cost_per_1k": 1},
    }
    limiter = limiter_of(manual_clock, models=models, policy=policy)
    for other, calls in ((A, 30), (B, 10), (C, 20)):
        limiter._calls.route(Target.parse(other))
        for _ in range(calls):
            limiter._calls.acquire(Target.parse(other), limiter_estimate(), None, 0).settle()
    assert served(limiter, manual_clock, max_output_tokens=10)[0] == target


def test_the_cheapest_without_a_price_comes_last(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, models={"b": {"rpm": 60, "cost_per_1k": 99}}, policy="cheapest")
    assert served(limiter, manual_clock, max_output_tokens=10)[0] == B


def test_the_fastest_is_the_one_that_answered_fastest_of_late(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, policy="fastest")
    seconds = {A: 3.0, B: 0.5, C: 1.0}
    order = []
    for _ in range(6):
        call = limiter.acquire(A)
        manual_clock.advance(seconds[str(call.target)])
        call.settle(Usage())
        order.append(str(call.target))
    assert order == [A, B, C, B, B, B]  # each is tried once


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "best"}, "policy is 'best': it is one of in_order, cheapest, fastest, least_loaded"),
        ({"fallbacks": [B]}, "fallbacks is .*: give a mapping of a target to a list of targets"),
        ({"fallbacks": {A: B}}, "fallbacks of 'a:m' is 'b:m': give a list of targets"),
        ({"fallbacks": {A: [A]}}, "fallbacks of 'a:m' hold the target itself"),
        ({"fallbacks": {A: ["d:m"]}}, "target is 'd:m'"),
        ({"fallback_after": -1}, "fallback_after is -1: give seconds"),
        ({"max_queue": -1}, "max_queue is -1: give a whole number of at least 0"),
        ({"max_queue": {"low": 3}}, "priority is 'low'"),
    ],
)
def test_bad_options_are_refused(manual_clock: ManualClock, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        limiter_of(manual_clock, **options)
