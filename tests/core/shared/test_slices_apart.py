"""Where a unit must be exact at once no slice is taken; where others wait, slices make room."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from agent_rate_limiter import (
    Limit,
    MultiProviderLimiter,
    Price,
    QuotaExhausted,
    Usage,
)
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.core.shared.slicing import LEASE, TPM, Stores, calls, left, limiter, lying

# -- where none is taken ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "lease"),
    [
        pytest.param([TPM, Limit(Resource.CONCURRENCY, 50)], LEASE, id="slots"),
        pytest.param([Limit(Resource.TOKENS, 2_400, "day")], LEASE, id="near its edge"),
        pytest.param([TPM], 1_999, id="an allowance below four calls"),
        pytest.param([Limit(Resource.TOKENS, 100_000, 0.5, strategy="sliding_window")], LEASE, id="a short window"),
    ],
)
def test_no_slice_is_taken(file: Stores, manual_clock: ManualClock, limits: list[Limit], lease: int) -> None:
    store = file()
    one = limiter(store, manual_clock, *limits, lease=lease)
    for _ in range(4):
        calls(one, 1, 500, used=500)
        assert lying(one) == 0
    assert store.runs >= 4


def test_a_slow_start_is_not_sliced(file: Stores, manual_clock: ManualClock) -> None:
    shared = MultiProviderLimiter(store=cast("Any", file()), clock=manual_clock, lease_tokens=LEASE)
    for _ in range(10):
        shared.acquire("openai:gpt-4", input_tokens=500, max_output_tokens=10).settle(Usage(1, 500))
        assert lying(shared) == 0


def test_a_slice_is_no_more_than_a_share_of_half_of_what_is_left(stores: Stores, manual_clock: ManualClock) -> None:
    limit = Limit(Resource.TOKENS, 10_000, "day")
    limiters = [limiter(stores(), manual_clock, limit) for _ in range(4)]
    for one in limiters * 2:
        calls(one, 1, 100, used=100)
        manual_clock.advance(2)  # by now each has heard of the others
    for one in limiters:
        calls(one, 10, 100, used=100)
        found = [piece.tokens for piece in one._calls.engine._slices]
        assert found
        assert max(found) <= 10_000 / (2 * 4)
    manual_clock.advance(1)
    assert left(limiters[0]) == pytest.approx(10_000 - 4 * 1_200, abs=5)


def test_calls_without_tokens_count_their_requests(file: Stores, manual_clock: ManualClock) -> None:
    store = file()
    one = limiter(store, manual_clock, "10000 requests/minute", lease=40)
    for _ in range(100):
        one.acquire().settle()
        assert lying(one) <= 40
    assert store.runs <= 15
    bare = limiter(file(), manual_clock, Limit(Resource.COST, 5.0, "day"), lease=40, price=Price(1, 0))
    for _ in range(50):
        bare.acquire(input_tokens=100).settle(Usage(1, 100))
        assert lying(bare) <= 40


# -- where others wait -----------------------------------------------------------------------------------------


def test_a_head_of_another_process_is_not_delayed(stores: Stores, manual_clock: ManualClock) -> None:
    limit = Limit(Resource.TOKENS, 6_000, 60, burst=10_000)
    one, other = limiter(stores(), manual_clock, limit), limiter(stores(), manual_clock, limit)
    calls(one, 1, 9_000, used=9_000)
    served: list[str] = []

    async def big() -> None:
        (await other.acquire_async(input_tokens=3_000)).settle(Usage(1, 3_000))
        served.append("big")

    async def small() -> None:
        await asyncio.sleep(0.1)
        for _ in range(20):
            (await one.acquire_async(input_tokens=100)).settle(Usage(1, 100))
            served.append("small")

    async def main() -> None:
        await asyncio.gather(big(), small())

    run_virtual(main(), manual_clock)
    assert served.index("big") == 0, "20 s at the rate; small calls, and slices for them, do not overtake it"


def test_urgent_calls_pass_a_head_of_another_process_but_slices_for_them_do_not(
    stores: Stores, manual_clock: ManualClock
) -> None:
    limit = Limit(Resource.TOKENS, 6_000, 60, burst=10_000)
    one, other = limiter(stores(), manual_clock, limit), limiter(stores(), manual_clock, limit)
    calls(one, 1, 7_000, used=7_000)

    async def main() -> None:
        waiting = asyncio.ensure_future(other.acquire_async(input_tokens=8_000))
        await asyncio.sleep(0.1)
        for _ in range(4):
            (await one.acquire_async(input_tokens=100, priority=0)).settle(Usage(1, 100))
            assert lying(one) == 0
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    run_virtual(main(), manual_clock)


def test_who_has_to_wait_gets_what_lies_in_slices(file: Stores, manual_clock: ManualClock) -> None:
    one = limiter(file(), manual_clock, Limit(Resource.TOKENS, 10_000, "day"))
    calls(one, 4, 500, used=500)
    assert lying(one) > 0
    big = one.try_acquire(input_tokens=8_000)
    assert big, "the slice went back in the same step"
    assert lying(one) == 0
    big.cancel()


def test_so_it_does_where_only_the_store_knows_that_it_is_missing(stores: Stores, manual_clock: ManualClock) -> None:
    limit = Limit(Resource.TOKENS, 10_000, "day", strategy="fixed_window")
    one, other = limiter(stores(), manual_clock, limit), limiter(stores(), manual_clock, limit)
    calls(one, 3, 500, used=500)
    calls(other, 1, 1_000, used=1_000)
    free = int(left(other))
    assert 0 < lying(one) <= free, "it is more than a slice has"

    async def main() -> float:
        async with one.reserve(input_tokens=free + 300) as call:
            return float(call.waited)

    assert run_virtual(main(), manual_clock) == 0


def test_who_waits_gets_at_once_what_calls_of_slices_give_back(file: Stores, manual_clock: ManualClock) -> None:
    one = limiter(file(), manual_clock, Limit(Resource.TOKENS, 60_000, "day", strategy="fixed_window"))
    held = calls(one, 20, 1_000)
    manual_clock.advance(2)
    last = next(call for call in reversed(held) if call.id in one._calls.engine._served)

    async def main() -> float:
        asyncio.get_running_loop().call_later(0.3, last.settle, Usage(1, 0))
        async with one.reserve(input_tokens=41_000) as call:
            return float(call.waited)

    assert run_virtual(main(), manual_clock) == pytest.approx(0.3, abs=0.01)


def test_what_lies_with_another_process_is_waited_for(stores: Stores, manual_clock: ManualClock) -> None:
    budget = Limit(Resource.COST, 0.02, "day")
    one, other = (limiter(stores(), manual_clock, budget, price=Price(1, 0)) for _ in range(2))
    calls(one, 4, 500, used=500)
    assert lying(one) > 0
    assert not other.try_acquire(input_tokens=18_000)

    async def main() -> float:
        async with other.reserve(input_tokens=18_000) as call:
            return float(call.waited)

    assert 0 < run_virtual(main(), manual_clock) <= 7.1  # on virtual time nobody tells it
    assert lying(one) == 0


def test_while_somebody_waits_nothing_is_served_from_slices(file: Stores, manual_clock: ManualClock) -> None:
    one = limiter(file(), manual_clock, Limit(Resource.TOKENS, 60_000, "minute", burst=10_000))
    held = calls(one, 8, 1_000)

    async def main() -> list[float]:
        async def call(tokens: int) -> float:
            async with one.reserve(input_tokens=tokens):
                assert lying(one) == 0
                return manual_clock.now()

        return await asyncio.gather(call(5_000), *(call(100) for _ in range(5)))

    moments = run_virtual(main(), manual_clock)
    assert moments == sorted(moments), "in the order of arrival"
    for call in held:
        call.settle(Usage(1, 0))
    assert one.snapshot().waiting == 0


def test_guards_of_a_scope_are_exact(file: Stores, manual_clock: ManualClock) -> None:
    one = limiter(file(), manual_clock)
    with one.scope(run="1", max_calls=20, max_tokens=11_000):
        calls(one, 15, 500, used=500)
        assert lying(one) > 0
        calls(one, 5, 500, used=500)
        with pytest.raises(QuotaExhausted):
            one.acquire(input_tokens=500)
