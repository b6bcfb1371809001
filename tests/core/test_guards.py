"""Runaway guards of a scope, and queues that are full."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent_rate_limiter import (
    ConfigError,
    LimitExceeded,
    MultiProviderLimiter,
    Provider,
    QueueFull,
    QuotaExhausted,
    RateLimiter,
    Usage,
)
from agent_rate_limiter.testing import ManualClock, run_virtual


@pytest.fixture
def limiter(manual_clock: ManualClock) -> RateLimiter:
    return RateLimiter(rpm=600, clock=manual_clock)


# ------------------------------------------------------------------ guards


def test_a_run_makes_so_many_calls(limiter: RateLimiter) -> None:
    with limiter.scope(run="42", max_calls=3):
        for _ in range(3):
            limiter.acquire().settle()
        with pytest.raises(QuotaExhausted, match=r"'max_calls 3'.*It does not reset by itself"):
            limiter.acquire()
    limiter.acquire().settle()


def test_a_run_uses_so_many_tokens(limiter: RateLimiter) -> None:
    with limiter.scope(max_tokens=1_000):
        limiter.acquire(input_tokens=600, max_output_tokens=100).settle(Usage(1, 600, 50))
        with limiter.scope(agent="inner"), pytest.raises(QuotaExhausted, match="'max_tokens 1,000'"):
            limiter.acquire(input_tokens=400)  # nested scopes draw on it too
        limiter.acquire(input_tokens=350).settle()


def test_what_may_come_back_is_waited_for(limiter: RateLimiter, manual_clock: ManualClock) -> None:
    async def main() -> None:
        with limiter.scope(max_tokens=1_000):
            held = await limiter.acquire_async(input_tokens=900)
            asyncio.get_running_loop().call_later(5, held.settle, Usage(1, 100))
            (await limiter.acquire_async(input_tokens=800)).settle()

    start = manual_clock.now()
    run_virtual(main(), manual_clock)
    assert manual_clock.now() - start == 5_000


def test_an_agent_takes_so_many_steps(limiter: RateLimiter) -> None:
    limiter.step()  # nobody counts outside
    with limiter.scope(run="42", max_steps=5):
        for _ in range(2):
            limiter.step()
        with limiter.scope(agent="writer", max_steps=2):
            limiter.step()
            limiter.step()
            with pytest.raises(QuotaExhausted, match=r"max_steps 2 are taken \(run=42,agent=writer\): end the agent"):
                limiter.step()
        limiter.step()  # the refusal above took none
        with pytest.raises(QuotaExhausted, match="max_steps 5 are taken"):
            limiter.step()


@pytest.mark.parametrize("field", ["max_calls", "max_tokens", "max_steps"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "5"])
def test_bad_guards_are_refused(limiter: RateLimiter, field: str, value: Any) -> None:
    options: dict[str, Any] = {field: value}
    with (
        pytest.raises(ConfigError, match=f"{field} is {value!r}: give a whole number of at least 1"),
        limiter.scope(**options),
    ):
        pass


# ------------------------------------------------------------------ full queues


def queue_up(limiter: Any, *priorities: int) -> list[str]:
    """Let calls of these priorities come in that order to a limit that is used up; what became of each."""
    outcomes = [""] * len(priorities)

    async def call(place: int, priority: int) -> None:
        try:
            (await limiter.acquire_async(priority=priority)).settle()
        except LimitExceeded as error:
            outcomes[place] = type(error).__name__
        else:
            outcomes[place] = "served"

    async def main() -> None:
        tasks = []
        for place, priority in enumerate(priorities):
            tasks.append(asyncio.ensure_future(call(place, priority)))
            await asyncio.sleep(0.001)
        await asyncio.gather(*tasks)

    run_virtual(main(), limiter._calls.engine.clock)
    assert limiter.snapshot().waiting == limiter.snapshot().in_flight == 0
    return outcomes


def full(clock: ManualClock, max_queue: Any) -> RateLimiter:
    limiter = RateLimiter("1 requests/second", max_queue=max_queue, clock=clock)
    limiter.acquire().settle()
    return limiter


def test_newcomers_to_a_full_queue_are_refused(manual_clock: ManualClock) -> None:
    assert queue_up(full(manual_clock, 2), 5, 5, 5, 5) == ["served", "served", "QueueFull", "QueueFull"]


def test_the_least_urgent_is_sent_away_first(manual_clock: ManualClock) -> None:
    limiter = full(manual_clock, 3)
    assert queue_up(limiter, 5, 10, 10, 1, 5, 10) == [
        "served",
        "QueueFull",
        "QueueFull",
        "served",
        "served",
        "QueueFull",
    ]


def test_each_priority_has_a_bound_of_its_own(manual_clock: ManualClock) -> None:
    limiter = full(manual_clock, {10: 1})
    assert queue_up(limiter, 10, 10, 5, 5, 5) == ["served", "QueueFull", "served", "served", "served"]


def test_no_queue_at_all(manual_clock: ManualClock) -> None:
    limiter = full(manual_clock, 0)
    with pytest.raises(QueueFull, match="is refused: none may wait for '1 requests/second'"):
        limiter.acquire()
    manual_clock.advance(1)
    limiter.acquire().settle()


def test_the_refusal_says_what_to_do(manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter([Provider("p", {"m": {"rps": 1}})], max_queue=1, clock=manual_clock)
    limiter.acquire("p:m").settle()

    async def main() -> None:
        waiting = asyncio.ensure_future(limiter.acquire_async("p:m"))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as refused:
            await limiter.acquire_async("p:m")
        assert str(refused.value) == (
            "p:m is refused: 1 call waits for '1 requests/second' already, as many as max_queue allows. "
            "It frees in 2 s, at 2026-01-01 00:00:02 UTC: wait that long (timeout), or use a fallback."
        )
        assert refused.value.retry_after == 2.0
        (await waiting).settle()

    run_virtual(main(), manual_clock)


# ------------------------------------------------------------------ priorities under overload


def latencies(clock: ManualClock, *, crowd: bool) -> tuple[list[float], int]:
    """Urgent calls at the limit's own rate for two minutes, alone or with as many of low priority beside them."""
    limiter = RateLimiter("10 requests/second", clock=clock)
    urgent: list[float] = []
    low = 0

    async def call(priority: int) -> None:
        nonlocal low
        reservation = await limiter.acquire_async(priority=priority)
        if priority == 0:
            urgent.append(reservation.waited)
        else:
            low += 1
        reservation.settle()

    async def main() -> None:
        for _ in range(10):
            limiter.acquire().settle()  # the burst is gone
        tasks: list[asyncio.Future[None]] = []
        for _ in range(120):  # in bursts, as agents make them
            tasks += [asyncio.ensure_future(call(0)) for _ in range(9)]
            tasks += [asyncio.ensure_future(call(10)) for _ in range(11 if crowd else 0)]
            await asyncio.sleep(1)
        urgent_done = len(urgent)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert urgent_done >= 1_000

    run_virtual(main(), clock)
    return urgent, low


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def test_the_urgent_hardly_notice_the_crowd_and_the_crowd_gets_on(manual_clock: ManualClock) -> None:
    """Two priority classes at twice the load: p99 of the urgent at most twice what it is alone."""
    alone, _ = latencies(manual_clock, crowd=False)
    beside, low = latencies(ManualClock(), crowd=True)
    assert p99(beside) <= 2 * p99(alone)
    assert low >= 60  # of the low, all that the urgent leave
