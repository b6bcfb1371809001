"""A store that is lost and found: what each policy admits meanwhile, and what is owed afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_rate_limiter import (
    ConfigError,
    Limit,
    RateLimiter,
    StoreUnavailable,
    Usage,
)
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.core.shared.fragile import tokens_left


def test_a_lost_store_refuses_calls_unless_told_otherwise(
    stores: Callable[[], Any], manual_clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = stores()
    one = RateLimiter(rpm=2, store=store, clock=manual_clock)
    held = one.acquire()
    store.lost = True
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="The store is gone"):
            one.acquire()
    held.settle()
    assert "Until it is back, calls are refused (on_store_error='fail_closed')" in caplog.text
    store.lost = False
    manual_clock.advance(10)
    assert "The store is back after " in caplog.text
    assert one.try_acquire()
    assert one.snapshot().in_flight == 0


def test_waiting_calls_are_told_of_the_loss(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    store = stores()
    one = RateLimiter(concurrency=1, store=store, clock=manual_clock)
    held = one.acquire()

    async def main() -> None:
        waiting = [asyncio.ensure_future(one.acquire_async()) for _ in range(3)]
        await asyncio.sleep(0.1)
        store.lost = True
        for found in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(found, StoreUnavailable)

    run_virtual(main(), manual_clock)
    held.settle()


def test_open_without_the_store_and_charged_afterwards(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    store = stores()
    one = RateLimiter(tpm=100, store=store, clock=manual_clock, on_store_error="fail_open")
    store.lost = True
    calls = [one.acquire(input_tokens=60) for _ in range(3)]
    for call in calls:
        call.settle(Usage(input_tokens=30))
    store.lost = False
    manual_clock.advance(1)
    assert tokens_left(one) <= 12, "what they used was charged when the store was back"


def test_a_share_without_the_store(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    store = stores()
    one, other = (
        RateLimiter(rpm=10, concurrency=4, store=each, clock=manual_clock, on_store_error="local")
        for each in (store, stores())
    )
    other.acquire().settle()
    one.acquire().settle()
    store.lost = True
    admitted = [one.try_acquire() for _ in range(5)]
    assert [bool(call) for call in admitted] == [True, True, False, False, False], "half of four slots"
    for call in admitted[:2]:
        call.settle()  # type: ignore[union-attr]
    admitted = [one.try_acquire() for _ in range(5)]
    assert [bool(call) for call in admitted] == [True, True, False, False, False], "and half of ten requests, less two"


def test_what_was_used_without_the_store_is_owed_less_what_was_refilled(
    stores: Callable[[], Any], manual_clock: ManualClock
) -> None:
    store = stores()
    one = RateLimiter(Limit(Resource.REQUESTS, 10, per=10), store=store, clock=manual_clock, on_store_error="local")
    one.acquire().settle()
    store.lost = True
    for _ in range(30):  # as fast as its share allows
        manual_clock.advance(1)
        one.acquire(timeout=5).settle()
    store.lost = False
    manual_clock.advance(5)
    assert one.snapshot().limits[0].available >= 9
    one.acquire().settle()


def test_calls_wait_for_their_share(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    store = stores()
    one = RateLimiter(concurrency=1, store=store, clock=manual_clock, on_store_error="local")

    async def call() -> None:
        async with one.reserve():
            await asyncio.sleep(1)

    async def main() -> None:
        await call()
        store.lost = True
        await asyncio.gather(*(call() for _ in range(3)))

    start = manual_clock.now()
    run_virtual(main(), manual_clock)
    assert (manual_clock.now() - start) / 1000 == pytest.approx(4, abs=0.1)


def test_a_call_in_doubt_is_given_back(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    store = stores()
    one = RateLimiter(concurrency=1, store=store, clock=manual_clock)
    store.deaf = True
    with pytest.raises(StoreUnavailable):
        one.acquire()
    store.deaf = False
    manual_clock.advance(20)
    assert one.try_acquire(), "the slot that was taken unheard is free again"


def test_a_snapshot_says_where_the_limits_live_and_is_fresh(
    stores: Callable[[], Any], manual_clock: ManualClock
) -> None:
    store = stores()
    one, other = (RateLimiter(rpm=10, store=each, clock=manual_clock) for each in (store, stores()))
    one.acquire().settle()
    other.acquire().settle()
    assert one.snapshot().limits[0].available == 8
    assert one.snapshot().store.startswith(("sqlite:///", "redis://"))
    assert "8 free" in str(one.explain())
    store.lost = True
    with pytest.raises(StoreUnavailable):
        one.acquire()
    assert one.snapshot().store.endswith("(lost: The store is gone.)")
    assert "on sqlite" in str(one.snapshot()) or "on redis" in str(one.snapshot())


@pytest.mark.parametrize("policy", ["fail_open", "local"])
def test_who_goes_on_without_the_store_does_so_from_the_beginning(
    policy: str, tmp_path: Path, manual_clock: ManualClock
) -> None:
    """The limits and the books are in a directory that somebody has yet to make."""
    folder = tmp_path / "later"
    limiter = RateLimiter(tpm=100, store=f"sqlite:///{folder}/agents.db", on_store_error=policy, clock=manual_clock)
    with limiter.reserve(input_tokens=30) as call:
        call.settle(Usage(input_tokens=20))
    folder.mkdir()
    manual_clock.advance(10)
    with limiter.reserve(input_tokens=30) as call:
        call.settle(Usage(input_tokens=5))
    assert {row["input_tokens"] for row in limiter.costs.rows()} == {5, 20}
    assert tokens_left(limiter) == 91  # 16 of the 20 have been refilled
    limiter.close()


def test_who_needs_the_store_or_named_the_books_is_told_when_he_begins(tmp_path: Path) -> None:
    nowhere = f"sqlite:///{tmp_path}/nowhere/agents.db"
    with pytest.raises(StoreUnavailable, match="Make its directory"):
        RateLimiter(rpm=1, store=nowhere)
    with pytest.raises(StoreUnavailable, match="Make its directory"):
        RateLimiter(rpm=1, on_store_error="fail_open", ledger=nowhere)


def test_policies_are_checked() -> None:
    with pytest.raises(ConfigError, match="on_store_error is 'ignore': it is one of fail_closed, fail_open, local"):
        RateLimiter(rpm=1, on_store_error="ignore")
