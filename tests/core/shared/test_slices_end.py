"""Where limits change or the store is lost, and at the end, slices end."""

from __future__ import annotations

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
    RateLimiter,
    StoreUnavailable,
    Usage,
)
from agent_rate_limiter.engine import sliced, slices
from agent_rate_limiter.engine.port import SharedStore
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.providers.model import Failure, FailureKind, Quota
from agent_rate_limiter.stores import open_store
from agent_rate_limiter.testing import ManualClock
from tests.contract.opened import SHARED
from tests.core.shared.fragile import Fragile
from tests.core.shared.slicing import DAY, LEASE, TPM, Stores, calls, left, limiter, lying

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


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
def test_a_child_has_no_part_in_its_parents_slices(tmp_path: Path, manual_clock: ManualClock) -> None:
    one = limiter(SHARED["sqlite"](tmp_path), manual_clock, DAY)
    calls(one, 5, 500)
    child = os.fork()
    if child == 0:
        os._exit(0 if not one._calls.engine._slices and not lying(one) and one.try_acquire(input_tokens=5) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert lying(one) > 0
    one.close()


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
