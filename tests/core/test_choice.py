"""Which target serves a call: the order of preference, how long each is waited for, and what is heard of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent_rate_limiter import (
    AcquireTimeout,
    Admitted,
    AllTargetsFailed,
    Budget,
    BudgetExceeded,
    ConfigError,
    Decision,
    Degraded,
    Event,
    FellBack,
    Refused,
    RequestTooLarge,
    Retried,
    Settled,
    Target,
    Usage,
)
from agent_rate_limiter.providers import Failure, FailureKind
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.core.choosing import A, B, C, drain, limiter_estimate, limiter_of
from tests.core.virtual_provider import VirtualProvider


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


# ------------------------------------------------------------------ degrading


def degrading(clock: ManualClock, **options: Any) -> Any:
    models = {"a": {"rpm": 600, "cost_per_1k": 1, "degrade_to": {"target": "b:m", "at": 0.5}}}
    return limiter_of(clock, models=models, fallbacks=None, **options)


@pytest.mark.parametrize("action", ["block", "degrade"])
def test_a_cheaper_target_takes_over_and_gives_back(manual_clock: ManualClock, action: str) -> None:
    limiter = degrading(manual_clock, budgets=[Budget(10, "day", action=action)])
    heard: list[Event] = []
    limiter.events.subscribe(heard.append, Degraded)
    for expected in [A] * 5 + [B] * 3:
        call = limiter.acquire(A, max_output_tokens=1_000)
        assert str(call.target) == expected
        call.settle()
    assert len(heard) == 3
    assert isinstance(heard[0], Degraded)
    assert (heard[0].target, heard[0].served_by) == (A, B)
    assert heard[0].reason == "'budget $10.00/day' runs low"
    manual_clock.advance(86_400)
    assert str(limiter.acquire(A, max_output_tokens=1_000).target) == A


def test_a_day_s_quota_degrades_and_a_minute_s_does_not(manual_clock: ManualClock) -> None:
    entry = {"rpd": 10, "rpm": 4, "degrade_to": "b:m"}
    limiter = limiter_of(manual_clock, models={"a": entry}, fallbacks=None)
    seen = []
    for _ in range(10):
        call = limiter.acquire(A)
        call.settle()
        seen.append(str(call.target))
        manual_clock.advance(60)
    assert seen == [A] * 8 + [B] * 2


# ------------------------------------------------------------------ what is heard


def test_every_step_is_told(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, models={"a": {"rpm": 10}})
    heard: list[Event] = []
    limiter.events.subscribe(heard.append)
    drain(limiter, B, 1)
    with limiter.scope(agent="r"):
        attempts = limiter.attempts(Target("a", "m"), limiter_estimate(), serves=lambda _: True)
        first = attempts.acquire()
        assert attempts.failed(first, Failure(FailureKind.OVERLOADED, status=503, message="busy"))
        second = attempts.acquire()
        second.settle()
    kinds = [type(event) for event in heard]
    assert kinds == [Admitted, Settled, Admitted, Settled, Retried, Admitted, FellBack, Settled]
    retried, fell = heard[4], heard[6]
    assert isinstance(retried, Retried)
    assert (retried.attempt, retried.kind, retried.message, dict(retried.labels)) == (
        1,
        "overloaded",
        "busy",
        {"agent": "r"},
    )
    assert isinstance(fell, FellBack)
    assert (fell.target, fell.served_by, fell.reason) == (A, B, "HTTP 503: busy")
    drain(limiter, A, 9)
    heard.clear()
    with pytest.raises(AcquireTimeout):
        limiter._calls.acquire(Target("a", "m"), limiter_estimate(), None, 0.5)
    assert [type(event) for event in heard] == [Refused]  # it never waited


def test_listeners_never_break_a_call(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock)

    def broken(_: Event) -> None:
        raise RuntimeError("a listener's own")

    stop = limiter.events.subscribe(broken, Admitted)
    limiter.acquire(A).settle()
    assert limiter.events.failures == 1
    stop()
    limiter.acquire(A).settle()
    assert limiter.events.failures == 1
    assert repr(limiter.events) == "<Events: 0 listening>"
    with pytest.raises(ConfigError, match="listener is 3"):
        limiter.events.subscribe(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="kinds hold"):
        limiter.events.subscribe(broken, int)  # type: ignore[arg-type]


# ------------------------------------------------------------------ an outage


@pytest.mark.parametrize("failure", [FailureKind.TRANSIENT, FailureKind.OVERLOADED])
def test_an_outage_with_a_backup_loses_nobody(manual_clock: ManualClock, failure: FailureKind) -> None:
    """The primary is down for twenty seconds: no failed call, three lost there, and traffic is back in ten."""
    limiter = limiter_of(manual_clock, models={"a": {"rpm": 6_000}, "b": {"rpm": 6_000}})
    primary, backup = VirtualProvider(manual_clock, rpm=6_000), VirtualProvider(manual_clock, rpm=6_000)
    start = manual_clock.now()
    down, up = start + 5_000, start + 25_000
    primary.failing = lambda now: Failure(failure, status=503) if down <= now < up else None
    calls: list[tuple[int, str]] = []

    async def agent() -> None:
        while manual_clock.now() < start + 60_000:
            attempts = limiter.attempts(Target("a", "m"), limiter_estimate(), serves=lambda _: True)
            while True:
                call = await attempts.acquire_async()
                await asyncio.sleep(0.05)
                wrong, quotas = (primary if call.provider == "a" else backup).answer()
                call.observe(quotas)
                if wrong is None:
                    call.settle(Usage(1, 1, 1))
                    calls.append((manual_clock.now(), str(call.target)))
                    break
                assert attempts.failed(call, wrong)
            await asyncio.sleep(0.05)

    async def agents() -> None:
        await asyncio.gather(*(agent() for _ in range(3)))

    run_virtual(agents(), manual_clock)
    before_open = [at for at in primary.refused if at < down + 1_000]
    assert len(before_open) <= 3
    assert len(primary.refused) <= 3 + 5  # and one look each 2, 4, 8, … seconds
    back = [at for at, target in calls if target == A and at >= up]
    later = [target for at, target in calls if at >= up + 10_000]
    assert back[0] <= up + 10_000
    assert later.count(A) == len(later)
    assert len(calls) >= 3 * 60 * 9
