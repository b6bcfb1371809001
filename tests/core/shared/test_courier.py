"""Who does the I/O of a shared store, for whom, and how long."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from agent_rate_limiter import Estimate, RateLimiter, StoreUnavailable, Usage
from agent_rate_limiter.engine import courier_driver
from agent_rate_limiter.engine.exchange import _TURNS
from agent_rate_limiter.engine.port import Answer, Batch, SharedStore
from agent_rate_limiter.stores import open_store

COURIER = "agent-rate-limiter"


class Watched:
    """A store that says who uses it, and can be held up."""

    def __init__(self, store: SharedStore) -> None:
        self.store = store
        self.senders: list[str] = []
        self.meanwhile: Any = lambda: None
        self.began, self.go = threading.Event(), threading.Event()
        self.go.set()

    def run(self, batch: Batch, now: int | None) -> Answer:
        self.senders.append(threading.current_thread().name)
        self.began.set()
        assert self.go.wait(10)
        answer = self.store.run(batch, now)
        self.meanwhile()
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    return Watched(cast("SharedStore", open_store(f"sqlite:///{tmp_path / 'limits.db'}")))


@pytest.fixture
def limiter(store: Watched) -> RateLimiter:
    limiter = RateLimiter(rpm=1_000, tpm=1_000, store=cast("Any", store), ledger="memory://")
    limiter.acquire(requests=0, input_tokens=0).settle(Usage(0))
    while limiter._calls.engine.unsent:  # type: ignore[attr-defined]
        time.sleep(0.001)
    return limiter


def test_a_thread_sends_for_others_a_few_times_and_no_more(store: Watched, limiter: RateLimiter) -> None:
    left = iter(range(20))
    all_sent = threading.Event()

    def others_want_more() -> None:
        if next(left, None) is None:
            all_sent.set()
        else:
            limiter.track(limiter.target, Estimate(input_tokens=1)).settle()

    store.senders.clear()
    store.meanwhile = others_want_more
    limiter.acquire(input_tokens=1).settle()
    assert all_sent.wait(10)
    assert store.senders.count(threading.current_thread().name) <= _TURNS
    assert store.senders[-1] == COURIER


def test_what_nobody_waits_for_is_left_to_whoever_sends_next(
    store: Watched, limiter: RateLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier_driver, "_MOMENT", 60.0)
    store.senders.clear()
    for _ in range(5):
        limiter.acquire(input_tokens=1).settle()
    assert store.senders == [threading.current_thread().name] * 5  # the courier was called, and holds on
    asyncio.run(asyncio.wait_for(limiter.acquire_async(input_tokens=1), 10)).settle()  # and comes when it is urgent
    assert store.senders[5:] == [COURIER]


def test_what_nobody_waits_for_is_sent_a_moment_later(store: Watched, limiter: RateLimiter) -> None:
    call = limiter.acquire(input_tokens=1)
    sent = threading.Event()
    store.meanwhile = sent.set
    call.settle()
    assert sent.wait(10)
    assert store.senders[-1] == COURIER


def test_a_report_waits_its_turn(store: Watched, limiter: RateLimiter) -> None:
    store.began.clear()
    store.go.clear()
    with ThreadPoolExecutor() as threads:
        call = threads.submit(limiter.acquire, input_tokens=600)
        assert store.began.wait(10)
        report = threads.submit(limiter.snapshot)
        store.go.set()
        left = {limit.resource: limit.available for limit in report.result(10).limits}
        call.result(10).cancel()
    assert left["tokens"] < 500


def test_a_slow_answer_is_waited_for_until_the_calls_timeout(store: Watched, limiter: RateLimiter) -> None:
    async def main() -> None:
        store.began.clear()
        store.go.clear()
        with pytest.raises(StoreUnavailable, match="within the call's timeout"):
            await limiter.acquire_async(input_tokens=600, timeout=0.02)
        assert store.began.is_set()
        store.go.set()
        (await limiter.acquire_async(input_tokens=600, timeout=5)).cancel()  # what came too late was given back

    asyncio.run(asyncio.wait_for(main(), 10))
    assert limiter.snapshot().in_flight == 0


def test_who_goes_on_without_a_store_goes_on_when_it_does_not_answer_in_time(store: Watched) -> None:
    """The call's timeout may be shorter than the store's: then nobody knows yet that it is lost."""
    limiter = RateLimiter(
        rpm=1_000, tpm=1_000, store=cast("Any", store), ledger="memory://", on_store_error="fail_open"
    )
    limiter.acquire(requests=0, input_tokens=0).settle(Usage(0))

    async def main() -> None:
        store.go.clear()
        call = await limiter.acquire_async(input_tokens=600, timeout=0.02)
        store.go.set()
        call.settle(Usage(input_tokens=500))
        (await limiter.acquire_async(input_tokens=500, timeout=5)).cancel()  # 600 were given back, and 500 charged

    asyncio.run(asyncio.wait_for(main(), 10))
    assert limiter.snapshot().in_flight == 0
    left = {limit.resource: limit.available for limit in limiter.snapshot().limits}
    assert 500 <= left["tokens"] < 520
