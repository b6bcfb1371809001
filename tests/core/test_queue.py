"""Who goes next, on virtual time, through the real engine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent_rate_limiter import (
    AcquireTimeout,
    Decision,
    Limit,
    LimiterClosed,
    MultiProviderLimiter,
    RateLimiter,
    RequestTooLarge,
)
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.provider import Provider
from agent_rate_limiter.scopes import Scope
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.core.line import Line


def one_per_second(clock: ManualClock, **options: Any) -> RateLimiter:
    return RateLimiter(Limit(Resource.REQUESTS, 1, "second"), clock=clock, **options)


def tokens(clock: ManualClock, per_second: int, burst: int | None = None) -> RateLimiter:
    return RateLimiter(Limit(Resource.TOKENS, per_second, "second", burst=burst or per_second), clock=clock)


def test_arrival_order_and_pace(manual_clock: ManualClock) -> None:
    line = Line(one_per_second(manual_clock), manual_clock)
    assert line.run(*(line.call(str(number)) for number in range(50))) == [str(number) for number in range(50)]
    assert line.at["49"] == 49


def test_lower_priority_numbers_go_first(manual_clock: ManualClock) -> None:
    line = Line(one_per_second(manual_clock, ageing=1e6), manual_clock)
    calls = [line.call("first"), line.call("low", priority=10), line.call("normal"), line.call("urgent", priority=0)]
    assert line.run(*calls) == ["first", "urgent", "normal", "low"]


def test_an_urgent_newcomer_overtakes_the_head_of_a_lower_class(manual_clock: ManualClock) -> None:
    line = Line(one_per_second(manual_clock, ageing=1e6), manual_clock)
    calls = [line.call("0"), line.call("low 1", priority=9), line.call("low 2", priority=9)]
    assert line.run(*calls, line.call("urgent", after=0.5, priority=1)) == ["0", "urgent", "low 1", "low 2"]


def test_waiting_ages_a_class_upwards_one_call_at_a_time(manual_clock: ManualClock) -> None:
    """Urgent calls arrive as fast as the limit allows; the low ones still progress, once per ten seconds."""
    line = Line(one_per_second(manual_clock, ageing=1.0), manual_clock)
    urgent = [line.call(f"u{n}", after=n * 0.9, priority=0) for n in range(60)]
    low = [line.call(f"low{n}", priority=10) for n in range(3)]
    line.run(*urgent, *low)
    assert 10 <= line.at["low0"] <= 13
    assert 10 <= line.at["low1"] - line.at["low0"] <= 13
    in_first_minute = [name for name in line.served if line.at[name] < 60]
    assert sum(name.startswith("low") for name in in_first_minute) == 3


def test_fair_share_among_agents_by_tokens(manual_clock: ManualClock) -> None:
    """One agent's 1,000 queued calls delay another agent's single call by no more than one call."""
    line = Line(tokens(manual_clock, 20), manual_clock)
    many = [line.call(f"a{n}", agent="busy", input_tokens=20) for n in range(1_000)]
    line.run(*many, line.call("single", after=10.5, agent="other", input_tokens=20))
    assert line.at["single"] <= 12  # next but one second: the head goes first, then it


def test_two_agents_get_equal_tokens_though_their_calls_differ(manual_clock: ManualClock) -> None:
    line = Line(tokens(manual_clock, 100), manual_clock)
    small = [line.call(f"s{n}", agent="small", input_tokens=10) for n in range(200)]
    large = [line.call(f"l{n}", agent="large", input_tokens=50) for n in range(40)]
    line.run(*large, *small)
    half = [name for name in line.served if line.at[name] <= 10]
    spent = {"s": 0, "l": 0}
    for name in half:
        spent[name[0]] += 10 if name[0] == "s" else 50
    assert abs(spent["s"] - spent["l"]) <= 100


def test_a_large_request_is_not_starved_by_endless_small_ones(manual_clock: ManualClock) -> None:
    limiter = tokens(manual_clock, 100, burst=500)
    limiter.acquire(input_tokens=500).settle()  # empty: alone it takes five seconds
    line = Line(limiter, manual_clock)

    async def loop(number: int) -> None:
        while "large" not in line.served:
            await line.call(f"small {number}", input_tokens=20)

    line.run(*(loop(n) for n in range(10)), line.call("large", after=0.1, input_tokens=500))
    assert line.at["large"] <= 2 * 5 + 0.1


def test_endless_new_agents_do_not_starve_an_old_one(manual_clock: ManualClock) -> None:
    line = Line(one_per_second(manual_clock), manual_clock)
    old = [line.call(f"old{n}", agent="old") for n in range(3)]
    fresh = [line.call(f"new{n}", after=n * 0.9, agent=f"new{n}") for n in range(60)]
    line.run(*old, *fresh)
    assert line.at["old2"] < 15


def test_a_deadline_is_refused_at_once_when_it_cannot_be_met(manual_clock: ManualClock) -> None:
    limiter = one_per_second(manual_clock)
    limiter.acquire()
    before = manual_clock.now()
    with pytest.raises(AcquireTimeout) as refused:
        limiter.acquire(timeout=0.5)
    assert manual_clock.now() == before
    assert refused.value.retry_after == 1.0
    assert isinstance(refused.value, TimeoutError)


def test_the_queue_ahead_counts_in_the_prediction(manual_clock: ManualClock) -> None:
    limiter = one_per_second(manual_clock)
    line = Line(limiter, manual_clock)
    refused: list[tuple[float, float | None]] = []

    async def late() -> None:
        await asyncio.sleep(0.5)
        try:
            await limiter.acquire_async(timeout=3)
        except AcquireTimeout as error:
            refused.append(((manual_clock.now() - line.start) / 1000, error.retry_after))

    line.run(*(line.call(str(n)) for n in range(6)), late())
    assert refused == [(0.5, 5.5)]


def test_a_wait_that_turns_out_too_long_ends_at_its_deadline(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(concurrency=1, clock=manual_clock)
    line = Line(limiter, manual_clock)
    ended: list[float] = []

    async def impatient() -> None:
        await asyncio.sleep(0.1)
        with pytest.raises(AcquireTimeout, match="1 slot requested, 0 slots available"):
            await limiter.acquire_async(timeout=2)
        ended.append((manual_clock.now() - line.start) / 1000)

    assert line.run(line.call("long", hold=10), impatient(), line.call("next", after=1)) == ["long", "next"]
    assert ended == [2.1]
    assert line.at["next"] == 10


def test_a_request_that_never_fits_is_refused_though_others_wait(manual_clock: ManualClock) -> None:
    limiter = tokens(manual_clock, 10)
    line = Line(limiter, manual_clock)

    async def too_large() -> None:
        with pytest.raises(RequestTooLarge):
            await limiter.acquire_async(input_tokens=11)

    line.run(*(line.call(str(n), input_tokens=10) for n in range(3)), too_large())


def test_a_cancelled_wait_leaves_no_trace(manual_clock: ManualClock) -> None:
    limiter = one_per_second(manual_clock)
    line = Line(limiter, manual_clock)

    async def cancelled() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(limiter.acquire_async(), 1.5)

    line.run(line.call("0"), line.call("1"), cancelled(), line.call("2"))
    assert line.at == {"0": 0, "1": 1, "2": 2}
    assert limiter.snapshot().waiting == 0


def test_a_head_that_gives_up_lets_the_next_one_in_at_once(manual_clock: ManualClock) -> None:
    limiter = tokens(manual_clock, 10, burst=100)
    limiter.acquire(input_tokens=100).settle()
    line = Line(limiter, manual_clock)

    async def gives_up() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(limiter.acquire_async(input_tokens=100), 3)

    line.run(gives_up(), line.call("small", after=0.1, input_tokens=10))
    assert line.at["small"] == 3


def test_refunds_wake_whoever_waits_for_them(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(Limit(Resource.TOKENS, 100, "day"), clock=manual_clock)
    line = Line(limiter, manual_clock)

    async def cancels_after_a_second() -> None:
        reservation = await limiter.acquire_async(input_tokens=100)
        await asyncio.sleep(1)
        reservation.cancel()

    line.run(cancels_after_a_second(), line.call("next", after=0.1, input_tokens=100))
    assert line.at["next"] == 1


def test_one_models_queue_does_not_hold_up_another(manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter(
        [Provider("p", {"slow": {"rpm": 1}, "fast": {"rpm": 600}}, limits=["1000 requests/minute"])], clock=manual_clock
    )
    served: list[tuple[str, float]] = []
    start = manual_clock.now()

    async def call(target: str) -> None:
        async with limiter.reserve(target):
            served.append((target, (manual_clock.now() - start) / 1000))

    async def main() -> None:
        await asyncio.gather(*(call("p:slow") for _ in range(3)), *(call("p:fast") for _ in range(5)))

    run_virtual(main(), manual_clock)
    assert [at for target, at in served if target == "p:fast"] == [0] * 5
    assert [at for target, at in served if target == "p:slow"] == [0, 60, 120]


def test_a_waiter_moves_on_to_the_limit_that_binds_it_next(manual_clock: ManualClock) -> None:
    """Bound first by its model, then by what all models share; and it is served before those who came later."""
    limiter = MultiProviderLimiter(
        [
            Provider(
                "p",
                {"a": {"limits": [Limit(Resource.REQUESTS, 1, 2)]}, "b": {}},
                limits=[Limit(Resource.TOKENS, 10, "second", burst=100)],
            )
        ],
        clock=manual_clock,
    )
    served: list[str] = []

    async def call(name: str, target: str, size: int, after: float) -> None:
        await asyncio.sleep(after)
        async with limiter.reserve(target, input_tokens=size):
            served.append(name)

    async def main() -> None:
        await asyncio.gather(
            call("a1", "p:a", 50, 0),
            call("a2", "p:a", 50, 0.1),  # waits 2 s for its model, then for tokens
            call("b1", "p:b", 50, 0.2),  # takes the shared tokens meanwhile
            call("b2", "p:b", 50, 0.3),
            call("b3", "p:b", 50, 2.5),
        )

    run_virtual(main(), manual_clock)
    assert sorted(served) == ["a1", "a2", "b1", "b2", "b3"]
    assert served.index("a2") < served.index("b3")
    assert limiter.snapshot().waiting == 0


def test_per_agent_limits_wait_apart_but_share_what_is_common(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(
        [Limit(Resource.CONCURRENCY, 1, scope=Scope(agent="each")), Limit(Resource.REQUESTS, 2, "second", burst=1)],
        clock=manual_clock,
    )
    line = Line(limiter, manual_clock)
    line.run(
        line.call("a1", agent="a", hold=10),
        line.call("a2", agent="a", after=0.1),
        line.call("b1", agent="b", after=0.2),
        line.call("c1", agent="c", after=0.3),
    )
    assert line.at == {"a1": 0, "b1": 0.5, "c1": 1, "a2": 10}


def test_closing_sends_everybody_away(manual_clock: ManualClock) -> None:
    limiter = one_per_second(manual_clock)
    limiter.acquire()

    async def main() -> None:
        waiting = asyncio.ensure_future(limiter.acquire_async())
        await asyncio.sleep(0)
        limiter.close()
        with pytest.raises(LimiterClosed, match="closed"):
            await waiting

    run_virtual(main(), manual_clock)
    with pytest.raises(LimiterClosed):
        limiter.acquire()


def test_try_acquire_never_overtakes(manual_clock: ManualClock) -> None:
    limiter = tokens(manual_clock, 10, burst=100)
    limiter.acquire(input_tokens=50).settle()

    async def main() -> None:
        waiting = asyncio.ensure_future(limiter.acquire_async(input_tokens=100))
        await asyncio.sleep(0)
        refused = limiter.try_acquire(input_tokens=10)
        assert isinstance(refused, Decision)
        assert refused.retry_after == 6.0  # 5 s for the one ahead, 1 s for itself
        assert limiter.try_acquire(input_tokens=10, priority=0)
        waiting.cancel()

    run_virtual(main(), manual_clock)
