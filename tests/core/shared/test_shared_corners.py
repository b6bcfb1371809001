"""What happens to shared limits in moments that are rare: a wait that ends as its answer comes, a fork while others
wait, an answer that comes after the call was decided without it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from agent_rate_limiter import Estimate, MultiProviderLimiter, Provider, RateLimiter, StoreUnavailable
from agent_rate_limiter.engine.port import SharedStore
from agent_rate_limiter.providers.model import Failure, FailureKind
from agent_rate_limiter.stores import open_store
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.contract.servers import until
from tests.core.shared.test_one_connection import FORKS, in_child

Stores = Callable[[], Any]


def test_a_call_that_was_cancelled_as_it_was_admitted_gives_its_slot_back(
    stores: Stores, manual_clock: ManualClock
) -> None:
    one = RateLimiter(concurrency=1, store=stores(), clock=manual_clock)

    async def main() -> None:
        held = await one.acquire_async()
        waiting = asyncio.ensure_future(one.acquire_async())
        await asyncio.sleep(0.1)
        held.settle()
        assert one.snapshot().in_flight == 1, "it has been admitted, and does not know it yet"
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    run_virtual(main(), manual_clock)
    assert one.snapshot().in_flight == 0
    assert one.try_acquire()


def test_an_answer_that_comes_after_the_call_was_decided_without_it_changes_nothing(
    stores: Stores, manual_clock: ManualClock
) -> None:
    store = stores()
    one, other = (
        RateLimiter("2 requests/day", store=each, clock=manual_clock, on_store_error="fail_open")
        for each in (store, stores())
    )
    for _ in range(2):
        other.acquire().settle()
    store.lost = True
    call = one.acquire()
    store.lost = False
    manual_clock.advance(10)  # now the store hears what was asked, and refuses it
    one.try_acquire(requests=0)
    assert one.snapshot().in_flight == 1
    call.settle()
    one.try_acquire(requests=0)
    assert one.snapshot().limits[0].available == -1, "and it was sent"
    assert one.snapshot().in_flight == 0


def test_a_tracked_call_that_was_not_sent_is_told_to_nobody(stores: Stores, manual_clock: ManualClock) -> None:
    store = stores()
    one = RateLimiter(rpm=5, store=store, clock=manual_clock)
    one.acquire().settle()
    before = store.runs
    one.track(one.target, Estimate()).cancel()
    assert store.runs == before
    assert one.snapshot().in_flight == 0


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), StoreUnavailable("It is gone.")])
def test_a_look_at_the_store_that_fails_is_not_the_last(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    class Clumsy:
        look_every = 20

        def __init__(self, store: SharedStore) -> None:
            self.store = store
            self.looks = 0

        def changed(self) -> Any:
            self.looks += 1
            if self.looks == 1:
                raise error
            return self.store.changed()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

    store = Clumsy(cast("SharedStore", open_store(f"sqlite:///{tmp_path / 'limits.db'}")))
    one = RateLimiter(concurrency=1, store=cast("Any", store), ledger="memory://")
    held = one.acquire()

    async def main() -> None:
        waiting = asyncio.ensure_future(one.acquire_async(timeout=20))
        await asyncio.to_thread(until, lambda: store.looks)
        held.settle()
        (await waiting).settle()

    asyncio.run(main())
    assert ("The courier failed" in caplog.text) == isinstance(error, ZeroDivisionError)
    store.store.close()


@pytest.fixture
def waited_for(tmp_path: Path) -> Iterator[tuple[RateLimiter, Any]]:
    """A limiter whose only slot is taken, and a thread that waits for it."""
    limiter = RateLimiter(concurrency=1, store=f"sqlite:///{tmp_path / 'limits.db'}", ledger="memory://")
    held = limiter.acquire()
    thread = threading.Thread(target=lambda: limiter.acquire(timeout=30).settle())
    thread.start()
    until(lambda: limiter.snapshot().waiting)
    yield limiter, held
    held.settle()
    thread.join()


@FORKS
def test_a_child_does_not_stand_behind_those_who_wait_in_its_parent(waited_for: tuple[RateLimiter, Any]) -> None:
    limiter, _ = waited_for

    def alone() -> bool:
        return limiter.snapshot().waiting == 0 and not limiter.try_acquire()

    assert os.waitpid(in_child(alone), 0)[1] == 0
    assert limiter.snapshot().waiting == 1


def test_who_waits_is_served_when_a_settlement_goes_along_with_its_row(
    tmp_path: Path, manual_clock: ManualClock
) -> None:
    one = RateLimiter(concurrency=1, store=f"sqlite:///{tmp_path / 'limits.db'}", clock=manual_clock)

    async def main() -> int:
        held = await one.acquire_async()
        waiting = asyncio.ensure_future(one.acquire_async())
        await asyncio.sleep(0.1)
        start = manual_clock.now()
        held.settle()
        (await waiting).settle()
        return manual_clock.now() - start

    assert run_virtual(main(), manual_clock) == 0


def test_who_waits_for_a_slot_hears_of_the_refusal_of_the_call_that_had_it(
    stores: Stores, manual_clock: ManualClock
) -> None:
    one = MultiProviderLimiter(
        [Provider("openai", {"gpt": {"concurrency": 1}})], store=stores(), clock=manual_clock, ledger="memory://"
    )

    async def main() -> float:
        held = await one.acquire_async("openai:gpt")
        waiting = asyncio.ensure_future(one.acquire_async("openai:gpt"))
        await asyncio.sleep(0.1)
        start = manual_clock.now()
        held.fail(Failure(FailureKind.WAIT, retry_after=30))
        (await waiting).settle()
        return (manual_clock.now() - start) / 1000

    assert run_virtual(main(), manual_clock) == pytest.approx(30, abs=0.1)
