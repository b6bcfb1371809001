"""One target's limiter: every way in, every way out, and that what was taken comes back."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import pickle
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from agent_rate_limiter import (
    AcquireTimeout,
    Decision,
    Estimate,
    Limit,
    Price,
    RateLimiter,
    RequestTooLarge,
    Reservation,
    ReservationError,
    Resource,
    Target,
    Usage,
)
from agent_rate_limiter.testing import ManualClock, run_virtual

SIZE = Estimate(input_tokens=60, max_output_tokens=40)


def free(limiter: RateLimiter) -> Mapping[str, float]:
    """What every limit has left, by resource; the gate, seen while it is closed, is no limit of the user's."""
    return {status.resource: status.available for status in limiter.snapshot().limits if status.name != "gate"}


@pytest.fixture
def limiter(manual_clock: ManualClock) -> RateLimiter:
    return RateLimiter(rpm=10, tpm=1_000, concurrency=2, price=Price(10_000, 10_000), clock=manual_clock)


Left = Mapping[str, float]
FULL: Left = {"requests": 10, "tokens": 1_000, "concurrency": 2}
TAKEN: Left = {"requests": 9, "tokens": 900, "concurrency": 1}
CHARGED: Left = {"requests": 9, "tokens": 900, "concurrency": 2}
SETTLED: Left = {"requests": 9, "tokens": 930, "concurrency": 2}
USED = Usage(input_tokens=60, output_tokens=10)


# ---------------------------------------------------------------- ways in


def test_limits_are_objects_texts_or_shorthands() -> None:
    limiter = RateLimiter(["40 requests/week", Limit(Resource.TOKENS, 5, "day")], rpm=3)
    assert [str(limit) for limit in limiter.limits] == ["40 requests/week", "5 tokens/day", "3 requests/minute"]
    assert RateLimiter("40 requests/week").limits == RateLimiter(Limit.parse("40 requests/week")).limits
    assert RateLimiter().limits == ()


def ways_in(limiter: RateLimiter) -> dict[str, Callable[[], Reservation | Decision]]:
    """All of them, for the same call."""
    target = limiter.target
    return {
        "acquire": lambda: limiter.acquire(SIZE),
        "acquire, counts": lambda: limiter.acquire(input_tokens=60, max_output_tokens=40),
        "acquire_async": lambda: asyncio.run(limiter.acquire_async(SIZE)),
        "acquire_async, counts": lambda: asyncio.run(limiter.acquire_async(input_tokens=60, max_output_tokens=40)),
        "try_acquire": lambda: limiter.try_acquire(SIZE),
        "try_acquire, counts": lambda: limiter.try_acquire(input_tokens=60, output_tokens=40),
        "reserve": lambda: limiter.reserve(SIZE).__enter__(),
        "reserve, counts": lambda: limiter.reserve(input_tokens=60, output_tokens=40).__enter__(),
        "reserve, async": lambda: asyncio.run(limiter.reserve(SIZE).__aenter__()),
        "attempts": lambda: limiter.attempts(target, SIZE).acquire(),
        "attempts, async": lambda: asyncio.run(limiter.attempts(target, SIZE).acquire_async()),
    }


@pytest.mark.parametrize("way", list(ways_in(RateLimiter())))
def test_every_way_in_takes_from_every_limit(limiter: RateLimiter, way: str) -> None:
    call = ways_in(limiter)[way]()
    assert isinstance(call, Reservation)
    assert free(limiter) == TAKEN
    assert (call.target, call.provider, call.model) == (Target("default", "default"), "default", "default")
    assert (call.done, call.usage, call.cost, call.waited) == (False, None, None, 0)
    assert call.estimate.input_tokens == 60


def test_one_target_serves_all(limiter: RateLimiter) -> None:
    assert limiter.target_for("openai", "gpt-4") == limiter.target == Target("default", "default")


def test_estimate_and_counts_exclude_each_other(limiter: RateLimiter) -> None:
    with pytest.raises(ValueError, match=r"^input_tokens is given beside an Estimate: put it into the Estimate\.$"):
        limiter.acquire(SIZE, input_tokens=5)


@pytest.mark.parametrize("way", list(ways_in(RateLimiter())))
def test_every_way_in_says_no(manual_clock: ManualClock, way: str) -> None:
    limiter = RateLimiter(tpm=99, clock=manual_clock)
    if way.startswith("try"):
        assert not ways_in(limiter)[way]()
    else:
        with pytest.raises(RequestTooLarge, match=r"^default:default is refused by '99 tokens/minute': 100 tokens "):
            ways_in(limiter)[way]()
    assert free(limiter) == {"tokens": 99}


# ---------------------------------------------------------------- ways out


def end_with_error(call: Reservation, error: BaseException) -> None:
    with pytest.raises(type(error)), call:
        raise error


async def in_block(call: Reservation) -> None:
    async with call:
        pass


WAYS_OUT: dict[str, tuple[Callable[[Reservation], object], Left]] = {
    "settle": (lambda call: call.settle(USED), SETTLED),
    "settle with nothing": (lambda call: call.settle(), CHARGED),
    "settle with a dict": (
        lambda call: call.settle({"usage": {"prompt_tokens": 60, "completion_tokens": 10}}),
        SETTLED,
    ),
    "settle with more": (lambda call: call.settle(Usage(input_tokens=1_500)), {**CHARGED, "tokens": -500}),
    "settle with a guess below": (lambda call: call.settle(Usage(input_tokens=5, exact=False)), CHARGED),
    "settle with a guess above": (
        lambda call: call.settle(Usage(input_tokens=200, exact=False)),
        {**CHARGED, "tokens": 800},
    ),
    "settle with 2 requests": (lambda call: call.settle(Usage(2, 60, 10)), {**SETTLED, "requests": 8}),
    "cancel": (lambda call: call.cancel(), FULL),
    "abandon": (lambda call: call.abandon(), CHARGED),
    "abandon, knowing what was used": (lambda call: call.abandon(USED), SETTLED),
    "leave the block": (lambda call: call.__enter__().__exit__(None, None, None), CHARGED),
    "leave the block, async": (lambda call: asyncio.run(in_block(call)), CHARGED),
    "a user's error": (lambda call: end_with_error(call, ValueError("no")), CHARGED),
    "an interrupt": (lambda call: end_with_error(call, KeyboardInterrupt()), CHARGED),
    "perhaps sent": (lambda call: end_with_error(call, TimeoutError("read")), CHARGED),
    "never sent": (lambda call: end_with_error(call, ConnectionRefusedError("no server")), FULL),
}


@pytest.mark.parametrize("way", list(WAYS_OUT))
def test_every_way_out(limiter: RateLimiter, way: str) -> None:
    end, expected = WAYS_OUT[way]
    call = limiter.acquire(SIZE)
    end(call)
    assert free(limiter) == expected
    assert call.done
    assert limiter.snapshot().in_flight == 0


def test_a_provider_that_refuses_has_counted_a_request_and_no_tokens(limiter: RateLimiter) -> None:
    error = RuntimeError("no such model")
    error.response = SimpleNamespace(status_code=400, headers={})  # type: ignore[attr-defined]
    end_with_error(limiter.acquire(SIZE), error)
    assert free(limiter) == {"requests": 9, "tokens": 1_000, "concurrency": 2}
    assert limiter.costs.report(()).to_dicts()[0]["requests"] == 1


def test_a_call_can_be_settled_in_its_block_once(limiter: RateLimiter) -> None:
    with limiter.reserve(SIZE) as call:
        call.settle(USED)
    with pytest.raises(ValueError, match="after"), limiter.reserve(SIZE) as call:  # noqa: PT012 - two steps make the case
        call.settle(USED)
        raise ValueError("after")
    assert free(limiter) == {"requests": 8, "tokens": 860, "concurrency": 2}


def test_a_dropped_call_is_charged_and_its_slot_comes_back(limiter: RateLimiter) -> None:
    limiter.acquire(SIZE)
    gc.collect()
    assert free(limiter) == CHARGED
    assert limiter.snapshot().in_flight == 0


def test_a_dropped_slot_goes_to_whoever_waits(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(concurrency=1, clock=manual_clock)

    async def main() -> None:
        holder: list[Reservation] = [limiter.acquire()]
        waiter = asyncio.create_task(limiter.acquire_async())
        await asyncio.sleep(0)
        assert limiter.snapshot().waiting == 1
        holder.clear()
        (await waiter).settle()

    run_virtual(main(), manual_clock)


def test_a_lost_call_gives_its_slot_back_when_its_lease_ends(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(concurrency=1, clock=manual_clock, lease=30)

    async def main() -> float:
        lost = await limiter.acquire_async()
        call = await limiter.acquire_async()
        call.settle()
        assert not lost.done  # its caller may still come back
        return call.waited

    assert run_virtual(main(), manual_clock) == 30


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (lambda call: call.settle(USED), SETTLED),
        (lambda call: call.settle(Usage(input_tokens=300)), {**CHARGED, "tokens": 700}),
        (lambda call: call.settle(), CHARGED),
        (lambda call: call.cancel(), FULL),
    ],
)
def test_settling_after_the_lease_corrects_what_was_charged(
    manual_clock: ManualClock, end: Callable[[Reservation], None], expected: Left
) -> None:
    limiter = RateLimiter(
        [Limit(Resource.REQUESTS, 10, "day", strategy="fixed_window"), Limit(Resource.TOKENS, 1_000)],
        concurrency=2,
        clock=manual_clock,
        lease=30,
    )
    lost = limiter.acquire(SIZE)
    manual_clock.advance(31)
    other = limiter.acquire(Estimate(0))
    assert free(limiter) == {**CHARGED, "concurrency": 1}
    end(lost)
    other.cancel()
    assert free(limiter) == expected
    with pytest.raises(ReservationError):
        lost.settle()


# ---------------------------------------------------------------- once


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("settle", "settle", "Cannot settle reservation 1 for a:m: it was settled with 100 tokens before."),
        ("settle", "cancel", "Cannot cancel reservation 1 for a:m: it was settled with 100 tokens before."),
        ("cancel", "settle", "Cannot settle reservation 1 for a:m: it was cancelled before."),
        ("cancel", "cancel", "Cannot cancel reservation 1 for a:m: it was cancelled before."),
        ("cancel", "fail", "Cannot fail reservation 1 for a:m: it was cancelled before."),
    ],
)
def test_a_call_ends_once(first: str, second: str, message: str, manual_clock: ManualClock) -> None:
    limiter = RateLimiter(tpm=1_000, target="a:m", clock=manual_clock)
    call = limiter.acquire(SIZE)
    getattr(call, first)()
    before = free(limiter)
    with pytest.raises(ReservationError) as refused:
        call.fail(ConnectionRefusedError()) if second == "fail" else getattr(call, second)()
    assert str(refused.value) == f"{message} End each once."
    assert free(limiter) == before


@pytest.mark.parametrize("twin", [pickle.dumps, copy.copy, copy.deepcopy], ids=lambda twin: str(twin.__name__))
def test_a_reservation_cannot_be_doubled(limiter: RateLimiter, twin: Callable[[Any], Any]) -> None:
    with pytest.raises(ReservationError) as refused:
        twin(limiter.acquire())
    assert str(refused.value) == ("A Reservation cannot be pickled or copied: settle it in the process that made it.")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_pending_call_is_entered_once(limiter: RateLimiter, asynchronous: bool) -> None:
    pending = limiter.reserve()

    async def enter() -> None:
        async with pending:
            pass

    with pending:
        pass
    with pytest.raises(ReservationError) as refused:
        asyncio.run(enter()) if asynchronous else pending.__enter__()
    assert str(refused.value) == (
        "This reserve() for default:default was entered before. Call reserve() anew for each call."
    )


def test_two_tasks_cannot_enter_the_same_pending_call(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(rps=1, clock=manual_clock)
    pending = limiter.reserve()

    async def enter() -> None:
        async with pending:
            await asyncio.sleep(5)

    async def main() -> tuple[object, object]:
        limiter.acquire().settle()  # so that both have to wait
        return await asyncio.gather(enter(), enter(), return_exceptions=True)

    first, second = run_virtual(main(), manual_clock)
    assert first is None
    assert isinstance(second, ReservationError)
    assert "was entered before" in str(second)
    assert limiter.costs.report(()).to_dicts()[0]["requests"] == 2


def test_a_pending_call_that_was_refused_can_be_tried_again(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(rpm=1, clock=manual_clock)
    limiter.acquire().settle()
    pending = limiter.reserve(timeout=1)
    with pytest.raises(AcquireTimeout):
        pending.__enter__()
    manual_clock.advance(60)
    with pending as call:
        assert call.id == 2


# ---------------------------------------------------------------- what settles a call


def test_a_response_without_usage_is_charged_the_estimate_and_logged(
    limiter: RateLimiter, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="agent_rate_limiter"):
        limiter.acquire(SIZE).settle("some text")
    assert caplog.messages == [
        "default:default: no usage found in the str given; the estimate is charged. Pass a Usage(...) to settle()."
    ]
    assert free(limiter) == CHARGED


def test_usage_and_cost_are_kept(limiter: RateLimiter) -> None:
    call = limiter.acquire(SIZE)
    call.settle(USED)
    assert (call.usage, call.cost) == (USED, 0.7)
    call = limiter.acquire(SIZE)
    call.cancel()
    call.abandon()  # comes too late to matter
    assert (call.usage, call.cost) == (None, 0.0)
    call = limiter.acquire(SIZE)
    call.settle()
    assert call.usage == Usage(input_tokens=60, output_tokens=40, exact=False)


def test_a_price_in_the_estimate_is_charged_when_nothing_else_is_known() -> None:
    limiter = RateLimiter("$5/day")
    call = limiter.acquire(Estimate(cost=0.5))
    call.settle()
    assert free(limiter) == {"cost": 4.5}
    assert (call.cost, limiter.costs.total) == (0.5, 0.5)
