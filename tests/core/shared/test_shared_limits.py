"""Several limiters draw on one store, on virtual time: who is admitted, in which order, and what is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agent_rate_limiter import (
    AcquireTimeout,
    Limit,
    LimiterClosed,
    RateLimiter,
    RequestTooLarge,
    Reservation,
    ReservationError,
    Scope,
    Usage,
)
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.core.shared.fragile import tokens_left

Make = Callable[..., RateLimiter]


def test_two_processes_draw_on_one_limit(limiter: Make) -> None:
    one, other = limiter("3 requests/minute"), limiter("3 requests/minute")
    for each in (one, other, one):
        assert each.try_acquire()
    refusal = other.try_acquire()
    assert not refusal
    assert "3 requests/minute" in refusal.reason
    assert refusal.retry_after == 20


def test_calls_wait_in_order_across_processes(limiter: Make, manual_clock: ManualClock) -> None:
    limiters = [limiter(Limit(Resource.REQUESTS, 1, per=1)) for _ in range(3)]
    limiters[0].acquire().settle()
    order: list[tuple[int, int]] = []

    async def call(place: int) -> None:
        (await limiters[place].acquire_async()).settle()
        order.append((place, manual_clock.now()))

    async def main() -> None:
        await asyncio.gather(*(call(place) for _ in range(2) for place in range(3)))

    start = manual_clock.now()
    run_virtual(main(), manual_clock)
    assert [place for place, _ in order] == [0, 1, 2, 0, 1, 2]
    assert [at - start for _, at in order] == pytest.approx([1_000, 2_000, 3_000, 4_000, 5_000, 6_000], abs=20)


def test_an_urgent_call_of_another_process_goes_first(limiter: Make, manual_clock: ManualClock) -> None:
    one, other = limiter(Limit(Resource.REQUESTS, 1, per=1)), limiter(Limit(Resource.REQUESTS, 1, per=1))
    one.acquire().settle()
    order: list[str] = []

    async def call(who: RateLimiter, name: str, priority: int, after: float) -> None:
        await asyncio.sleep(after)
        (await who.acquire_async(priority=priority)).settle()
        order.append(name)

    async def main() -> None:
        await asyncio.gather(call(one, "calm", 5, 0), call(other, "urgent", 0, 0.1))

    run_virtual(main(), manual_clock)
    assert order == ["urgent", "calm"]


def test_a_big_call_is_not_starved_by_another_process(limiter: Make, manual_clock: ManualClock) -> None:
    one, other = limiter(Limit(Resource.TOKENS, 100, per=10)), limiter(Limit(Resource.TOKENS, 100, per=10))
    one.acquire(input_tokens=100).settle(Usage(input_tokens=100))
    served: list[str] = []

    async def big() -> None:
        (await one.acquire_async(input_tokens=80)).settle(Usage(input_tokens=80))
        served.append("big")

    async def small() -> None:
        await asyncio.sleep(0.1)
        for _ in range(10):
            (await other.acquire_async(input_tokens=10)).settle(Usage(input_tokens=10))
            served.append("small")

    async def main() -> None:
        await asyncio.gather(big(), small())

    run_virtual(main(), manual_clock)
    assert served.index("big") <= 1


def test_a_slot_that_one_frees_another_takes(limiter: Make, manual_clock: ManualClock) -> None:
    one, other = limiter(concurrency=1), limiter(concurrency=1)
    held = one.acquire()

    async def main() -> float:
        asyncio.get_running_loop().call_later(3, held.settle)
        async with other.reserve() as call:
            return call.waited

    assert run_virtual(main(), manual_clock) == pytest.approx(3, abs=1)


def test_a_refund_is_worth_waiting_for(limiter: Make, manual_clock: ManualClock) -> None:
    one, other = limiter(Limit(Resource.TOKENS, 100, per="hour")), limiter(Limit(Resource.TOKENS, 100, per="hour"))
    held = one.acquire(input_tokens=100)

    async def main() -> float:
        asyncio.get_running_loop().call_later(2, held.cancel)
        async with other.reserve(input_tokens=50) as call:
            return call.waited

    assert run_virtual(main(), manual_clock) <= 7.1


def test_a_deadline_ends_the_wait_and_leaves_no_trace(limiter: Make, manual_clock: ManualClock) -> None:
    one, other = limiter(concurrency=1), limiter(concurrency=1)
    held = one.acquire()

    async def main() -> None:
        with pytest.raises(AcquireTimeout):
            await other.acquire_async(timeout=2)

    run_virtual(main(), manual_clock)
    assert other.snapshot().waiting == 0
    held.settle()
    assert one.try_acquire()


def test_a_cancelled_wait_leaves_no_trace(limiter: Make, manual_clock: ManualClock) -> None:
    one, other = limiter(Limit(Resource.REQUESTS, 2, per="minute")), limiter(Limit(Resource.REQUESTS, 2, per="minute"))
    one.acquire().settle()
    one.acquire().settle()

    async def main() -> None:
        waiting = asyncio.ensure_future(other.acquire_async())
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    run_virtual(main(), manual_clock)
    manual_clock.advance(29)
    assert one.try_acquire(), "nobody stands in line any more"


def test_what_never_fits_is_refused_at_once(limiter: Make) -> None:
    with pytest.raises(RequestTooLarge, match="never holds more than 100 tokens"):
        limiter(tpm=100).acquire(input_tokens=101)


def test_a_reservation_is_settled_once(limiter: Make) -> None:
    one = limiter(rpm=2)
    call = one.acquire()
    call.settle()
    with pytest.raises(ReservationError):
        call.settle()
    with pytest.raises(ReservationError):
        one._calls.engine.settle(call._hold, [1, 1])


def test_a_lost_call_is_charged_and_may_still_come_back(limiter: Make, manual_clock: ManualClock) -> None:
    one = limiter(tpm=100, concurrency=1, lease=5)
    call = one.acquire(input_tokens=60)
    manual_clock.advance(5)
    assert one.try_acquire(input_tokens=10), "its slot is free"
    call.settle(Usage(input_tokens=10))
    assert tokens_left(one) == 100 - 10 - 10 + 8, "corrected to what it used; five seconds have refilled eight"


def test_a_dropped_reservation_frees_its_slot(limiter: Make) -> None:
    one = limiter(concurrency=1)
    call: Reservation | None = one.acquire()
    del call
    assert one.try_acquire()


def test_a_closed_limiter_sends_everybody_away(limiter: Make, manual_clock: ManualClock) -> None:
    one = limiter(concurrency=1)
    held = one.acquire()

    async def main() -> None:
        waiting = asyncio.ensure_future(one.acquire_async())
        await asyncio.sleep(0.1)
        one.close()
        with pytest.raises(LimiterClosed):
            await waiting

    run_virtual(main(), manual_clock)
    with pytest.raises(LimiterClosed):
        one.acquire()
    held.settle()


def test_each_agent_has_a_row_of_its_own(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    store = stores()
    one = RateLimiter(
        Limit(Resource.REQUESTS, 1, per="minute", scope=Scope(agent="each")), store=store, clock=manual_clock
    )
    for agent in ("a", "b"):
        with one.scope(agent=agent):
            assert one.try_acquire()
            assert not one.try_acquire()
