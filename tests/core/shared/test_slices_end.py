"""Where a unit must be exact at once no slice is taken, and where limits change or others wait, slices end."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any, cast

import pytest

from agent_rate_limiter import (
    Budget,
    ConfigError,
    Limit,
    LimiterClosed,
    MultiProviderLimiter,
    Price,
    Provider,
    QuotaExhausted,
    RateLimiter,
    StoreUnavailable,
    Usage,
)
from agent_rate_limiter.engine import sliced, slices
from agent_rate_limiter.engine.port import SharedStore
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.providers.model import Failure, FailureKind, Quota
from agent_rate_limiter.stores import open_store
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.contract.opened import SHARED
from tests.core.shared.fragile import Fragile
from tests.core.shared.slicing import DAY, LEASE, TPM, Stores, calls, left, limiter, lying

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


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


# -- where limits change ---------------------------------------------------------------------------------------


def refused(after: float) -> Failure:
    return Failure(FailureKind.WAIT, status=429, retry_after=after)


def test_a_refusal_ends_slices_at_once_and_those_of_others_with_their_next_step(
    stores: Stores, manual_clock: ManualClock
) -> None:
    one, other = limiter(stores(), manual_clock), limiter(stores(), manual_clock)
    held = [calls(each, 4, 500)[-1] for each in (one, other)]
    assert lying(one) > 0
    assert lying(other) > 0
    held[0].fail(refused(30))
    assert lying(one) == 0
    assert not one.try_acquire(input_tokens=500)
    manual_clock.advance(1)
    assert lying(other) == 0
    assert not other.try_acquire(input_tokens=500)
    manual_clock.advance(30)
    assert other.try_acquire(input_tokens=500)


def test_a_refusal_that_closes_no_gate_ends_slices_as_well(file: Stores, manual_clock: ManualClock) -> None:
    one = limiter(file(), manual_clock)
    held = calls(one, 4, 500)
    told = {"resource": Resource.TOKENS, "period": "minute", "requested": 500}
    held[-1].fail(Failure(FailureKind.WAIT, status=429, retry_after=0.02, **cast("Any", told)))
    assert lying(one) == 0
    assert not one.try_acquire(input_tokens=1_000), "the limit has no more than the refused call needs by then"


def test_the_slice_of_another_process_ends_when_it_hears_of_a_closed_gate(
    file: Stores, manual_clock: ManualClock
) -> None:
    one, other = limiter(file(), manual_clock), limiter(file(), manual_clock)
    held = [calls(each, 4, 500)[-1] for each in (one, other)]
    held[0].fail(refused(30))
    assert not other.try_acquire(input_tokens=100_000), "more than a slice: the store is asked"
    assert lying(other) == 0
    assert not other.try_acquire(input_tokens=500)


def test_a_limit_that_was_lowered_ends_slices(file: Stores, manual_clock: ManualClock) -> None:
    one, other = limiter(file(), manual_clock), limiter(file(), manual_clock)
    calls(one, 4, 500)
    (held, *_) = calls(other, 4, 500)
    held.observe([Quota(Resource.TOKENS, "minute", 300_000, 250_000)])
    assert "lowered" in str(other.explain())
    assert lying(other) == 0
    assert lying(one) > 0
    calls(one, 1, 40_000)
    assert lying(one) == 0


def test_headers_are_heard_now_and_then_where_calls_are_served_from_slices(
    file: Stores, manual_clock: ManualClock
) -> None:
    store = file()
    one = limiter(store, manual_clock, "60000 requests/minute")
    for _ in range(200):
        call = one.acquire()
        call.observe([Quota(Resource.REQUESTS, "minute", 60_000, 55_000)])
        call.settle()
        manual_clock.advance(0.005)
    assert store.runs <= 60
    assert left(one, "requests") <= 55_000 + 1_000


def test_alerts_look_once_a_second(file: Stores, manual_clock: ManualClock) -> None:
    told: list[float] = []
    store = file()
    shared = MultiProviderLimiter(
        [Provider("p", {"m": {"input_per_1m": 1, "output_per_1m": 0, "rpm": 10**6}})],
        budgets=[Budget(1.0, thresholds=(0.5, 0.9))],
        on_alert=lambda alert: told.append(alert.threshold),
        store=cast("Any", store),
        clock=manual_clock,
        ledger="memory://",
        lease_tokens=100_000,
    )
    for _ in range(120):
        shared.acquire("p:m", input_tokens=5_000, max_output_tokens=1).settle(Usage(1, 5_000))
    manual_clock.advance(1)
    assert shared.alerts.flush()
    assert told == [0.5]
    assert store.runs <= 40
    long = shared.acquire("p:m", input_tokens=350_000, max_output_tokens=1)
    manual_clock.advance(30)
    long.settle(Usage(1, 350_000))
    manual_clock.advance(1)
    assert shared.alerts.flush()
    assert told == [0.5, 0.9], "though nobody calls any more"


@pytest.mark.parametrize("strategy", ["fixed_window", "sliding_window"])
def test_windows_are_exact(file: Stores, manual_clock: ManualClock, strategy: Any) -> None:
    """A slice ends with the window, or the part of it, that it was taken in."""
    limit = Limit(Resource.TOKENS, 60_000, "minute", strategy=strategy)
    one = limiter(file(), manual_clock, limit)
    manual_clock.advance(59.9 if strategy == "fixed_window" else 0.9)
    calls(one, 4, 100)
    (piece,) = one._calls.engine._slices
    assert piece.until - piece.taken_at == 100
    manual_clock.jump(0.1)
    calls(one, 1, 100)
    assert piece.live is False


# -- the store, and the end ------------------------------------------------------------------------------------


def test_while_the_store_is_lost_a_slice_serves_until_it_is_over(stores: Stores, manual_clock: ManualClock) -> None:
    store = stores()
    one = limiter(store, manual_clock, DAY)
    calls(one, 4, 500)
    store.lost = True
    calls(one, 1, 500, used=100)
    manual_clock.advance(1)
    with pytest.raises(StoreUnavailable):
        one.acquire(input_tokens=500)
    store.lost = False
    manual_clock.advance(5)
    calls(one, 1, 500, used=500)
    manual_clock.advance(2)
    assert left(one) == 2_000_000 - 4 * 500 - 100 - 500


@pytest.mark.parametrize("name", [name for name in SHARED if name != "sqlite"])  # its answers are never lost
def test_a_slice_whose_answer_was_lost_goes_back(name: str, tmp_path: Path, manual_clock: ManualClock) -> None:
    store = Fragile(cast("SharedStore", open_store(SHARED[name](tmp_path))))
    one = limiter(store, manual_clock, DAY)
    calls(one, 1, 500, used=500)
    store.deaf = True
    with pytest.raises(StoreUnavailable):
        one.acquire(input_tokens=500)
    assert lying(one) == 0
    store.deaf = False
    manual_clock.advance(5)
    assert left(one) == 2_000_000 - 500


def test_a_slice_that_was_never_sent_for_is_forgotten(file: Stores, manual_clock: ManualClock) -> None:
    store = file()
    one = limiter(store, manual_clock, DAY, on_store_error="fail_open")
    calls(one, 1, 500, used=500)
    store.lost = True
    calls(one, 3, 500, used=500)
    assert lying(one) == 0
    store.lost = False
    manual_clock.advance(5)
    assert left(one) == 2_000_000 - 4 * 500


def test_closing_gives_everything_back(stores: Stores, manual_clock: ManualClock) -> None:
    one, other = limiter(stores(), manual_clock, DAY), limiter(stores(), manual_clock, DAY)
    held = calls(one, 5, 500)
    assert lying(one) > 0
    one.close()
    assert left(other) == 2_000_000 - 2_500
    with pytest.raises(LimiterClosed):
        one.acquire(input_tokens=500)
    for call in held:
        call.settle(Usage(1, 100))
    manual_clock.advance(1)
    assert left(other) == 2_000_000 - 500


def test_a_slice_that_comes_after_the_end_goes_back(file: Stores, manual_clock: ManualClock) -> None:
    store = file()
    one, other = limiter(store, manual_clock, DAY), limiter(file(), manual_clock, DAY)
    calls(one, 1, 500, used=500)
    original = store.store.run

    def closes_meanwhile(batch: Any, now: Any) -> Any:
        answer = original(batch, now)
        store.store.run = original
        one._calls.engine.let_go()
        return answer

    store.store.run = closes_meanwhile
    calls(one, 1, 500, used=500)
    assert lying(one) == 0
    assert left(other) == 2_000_000 - 1_000


def test_a_dead_process_is_charged_its_slice(stores: Stores, manual_clock: ManualClock) -> None:
    budget = Limit(Resource.COST, 1.0, "day")
    store = stores()
    dead, other = (limiter(each, manual_clock, budget, price=Price(1, 0)) for each in (store, stores()))
    calls(dead, 4, 500, used=500)
    found = dead._calls.engine._slices
    single, taken = 4 - sum(piece.served for piece in found), sum(piece.calls for piece in found)
    store.lost = True  # for it alone, and for ever
    manual_clock.advance(11)
    assert other.try_acquire(input_tokens=100)
    assert left(other, "cost") == pytest.approx(1 - ((single + taken) * 500 + 100) / 1e6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_has_no_part_in_its_parents_slices(tmp_path: Path) -> None:
    limiter = RateLimiter([DAY], store=SHARED["sqlite"](tmp_path), lease_tokens=LEASE, ledger="memory://")
    calls(limiter, 5, 500)
    child = os.fork()
    if child == 0:
        engine = cast("Any", limiter._calls.engine)
        os._exit(0 if not engine._slices and not engine._lying and limiter.try_acquire(input_tokens=5) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert lying(limiter) > 0
    limiter.close()


@pytest.mark.parametrize("name", SHARED)
def test_on_a_real_clock_a_thread_gives_back_what_is_not_used(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "LASTS", 100)
    monkeypatch.setattr(slices, "_SHORTEST", 1)
    monkeypatch.setattr(sliced, "LASTS", 100)
    uri = SHARED[name](tmp_path)
    one, other = (RateLimiter([DAY], store=uri, lease_tokens=LEASE, ledger="memory://") for _ in range(2))
    calls(one, 5, 500, used=500)
    patience = time.monotonic() + 10
    while left(other) != 2_000_000 - 2_500:
        assert time.monotonic() < patience
        time.sleep(0.01)


# -- what makes no sense ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "20k", 10**10])
def test_an_allowance_is_a_whole_number_of_tokens(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"lease_tokens is .*: give tokens as a whole number above 0"):
        RateLimiter([TPM], store=SHARED["sqlite"](tmp_path), lease_tokens=value)


@pytest.mark.parametrize("make", [RateLimiter, MultiProviderLimiter])
def test_an_allowance_needs_a_store_that_is_shared(make: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"lease_tokens is 500, but these limits are not shared.* give store='redis://"
    ):
        make(lease_tokens=500)


def test_files_may_state_it(tmp_path: Path) -> None:
    written = {"store": SHARED["sqlite"](tmp_path), "lease_tokens": "20K", "providers": []}
    shared = MultiProviderLimiter.from_config(written)
    assert cast("Any", shared)._calls.engine._allowance == 20_000
    with pytest.raises(ConfigError, match="lease_tokens: is 0: give a finite number above 0"):
        MultiProviderLimiter.from_config({**written, "lease_tokens": 0})
