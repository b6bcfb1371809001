"""A call in several layers is one call; and calls that are made from within another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agent_rate_limiter import (
    Estimate,
    MultiProviderLimiter,
    Provider,
    RateLimiter,
    Reservation,
    ReservationError,
    Target,
    Usage,
)
from agent_rate_limiter.calls.context import current_reservations
from agent_rate_limiter.calls.life import _tell_of_a_task
from agent_rate_limiter.providers import Failure, FailureKind
from agent_rate_limiter.sending import send_async
from agent_rate_limiter.strategies.gate import SLOW_START
from agent_rate_limiter.testing import ManualClock, run_virtual

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
    assert [row["requests"] for row in limiter.costs.report(by=("provider",))] == [1]
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
    assert [row["requests"] for row in limiter.costs.report(by=("provider",))] == [1]
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
    told = (
        "A call to default:default would wait for ever: '1 at once' is held by the call that it is made from. "
        "Settle the outer call first, or raise the concurrency."
    )

    async def main() -> None:
        async with limiter.reserve():
            for _ in range(2):  # as often as one likes
                with pytest.raises(ReservationError) as refused:
                    await limiter.acquire_async(timeout=5)
                assert str(refused.value) == told

    run_virtual(main(), manual_clock)
    with limiter.reserve(), pytest.raises(ReservationError) as refused:
        limiter.acquire(timeout=5)
    assert str(refused.value) == told
    assert limiter.snapshot().in_flight == 0


def test_a_task_that_nobody_awaits_in_the_block_waits_for_its_end(
    manual_clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    _tell_of_a_task.cache_clear()
    limiter = RateLimiter(concurrency=1, clock=manual_clock)

    async def later() -> float:
        async with limiter.reserve() as call:
            return call.waited

    async def main() -> float:
        async with limiter.reserve() as call:
            task = asyncio.create_task(later())
            await asyncio.sleep(7)
            call.settle()
        return await task

    assert run_virtual(main(), manual_clock) == 7
    assert run_virtual(main(), manual_clock) == 7
    (told,) = caplog.messages  # once: should the block await it, here is why nothing goes on
    assert told.startswith("A call to default:default, made by a task that was started within another call, waits")


def test_two_tasks_share_the_call_that_they_were_started_in(manual_clock: ManualClock) -> None:
    """The first takes it over, and ends it; the second waits for that, and not for its own outer call."""
    limiter = RateLimiter(concurrency=1, clock=manual_clock)

    async def inner(_: Reservation | None = None) -> None:
        await asyncio.sleep(1)

    async def one() -> None:
        await send_async(limiter.attempts(limiter.target, Estimate()), inner, lambda _: None)

    @limiter.limit()
    async def step() -> None:
        await asyncio.gather(one(), one(), one())

    begun = manual_clock.now()
    run_virtual(step(), manual_clock)
    assert manual_clock.now() - begun == 3_000
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


@pytest.mark.parametrize("store", ["memory://", "sqlite://"])
def test_a_call_within_a_call_keeps_out_of_a_closed_target(
    manual_clock: ManualClock, store: str, tmp_path: Any
) -> None:
    where = store if store == "memory://" else f"sqlite:///{tmp_path}/limits.db"
    limiter = MultiProviderLimiter([Provider("p", {"m": {"concurrency": 50}})], clock=manual_clock, store=where)

    async def main() -> float:
        async with limiter.reserve("p:m"):
            refused = await limiter.acquire_async("p:m")
            refused.fail(Failure(FailureKind.WAIT, 30, status=429))
            call = await limiter.acquire_async("p:m")
            call.settle()
            return call.waited

    assert run_virtual(main(), manual_clock) == 30
    limiter.close()


def test_a_crowd_within_a_call_starts_slowly_where_nothing_is_known(manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter(clock=manual_clock)
    seen: list[int] = []

    async def one() -> None:
        async with limiter.reserve("p:m") as call:
            seen.append(limiter.snapshot().in_flight - 1)  # the outer one waits
            await asyncio.sleep(1)
            call.settle(Usage())

    async def main() -> None:
        async with limiter.reserve("p:m"):
            await asyncio.gather(*(one() for _ in range(24)))

    run_virtual(main(), manual_clock)
    assert max(seen) == SLOW_START
