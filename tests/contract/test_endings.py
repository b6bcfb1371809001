"""What programs leave behind when they end, and limiters when they are closed or dropped."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from agent_rate_limiter import Limit, RateLimiter, Resource, StoreUnavailable, Usage
from agent_rate_limiter.clock import SystemClock
from agent_rate_limiter.stores import open_store
from tests.contract.opened import SHARED, server
from tests.contract.servers import binaries, until

NAMES = list(binaries())
LIMITS = [Limit(Resource.CONCURRENCY, 1), Limit(Resource.TOKENS, 1_000, "day")]

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def clients(name: str) -> int:
    with server(name).client() as client:
        found: int = client.info("clients")["connected_clients"]
        return found


def threads() -> int:
    return sum(thread.name.startswith("agent-rate-limiter") for thread in threading.enumerate())


def no_threads() -> bool:
    gc.collect()  # again, as a thread may have held a limiter for a moment
    return threads() == 0


def used(limiter: RateLimiter) -> float:
    (tokens,) = (limit for limit in limiter.snapshot().limits if limit.resource == "tokens")
    return 1_000 - tokens.available


def one_call(limiter: RateLimiter) -> None:
    limiter.acquire(input_tokens=100).settle(Usage(input_tokens=7))


async def one_call_async(limiter: RateLimiter) -> None:
    (await limiter.acquire_async(input_tokens=100)).settle(Usage(input_tokens=7))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("call", [one_call, lambda limiter: asyncio.run(one_call_async(limiter))])
@pytest.mark.parametrize("name", SHARED)
def test_a_process_of_multiprocessing_sends_its_last_settlement(
    name: str, call: Callable[[RateLimiter], None], tmp_path: Path
) -> None:
    limiter = RateLimiter(LIMITS, store=SHARED[name](tmp_path))
    process = multiprocessing.get_context("fork").Process(target=call, args=(limiter,))
    process.start()
    process.join(20)
    assert process.exitcode == 0
    limiter.acquire(timeout=3).cancel()
    assert used(limiter) == 7


@pytest.mark.parametrize("name", NAMES)
def test_a_program_that_ends_gives_back_its_slots(name: str, tmp_path: Path) -> None:
    uri = SHARED[name](tmp_path)
    lines = [
        "from agent_rate_limiter import Limit, RateLimiter, Resource",
        "limits = [Limit(Resource.CONCURRENCY, 1), Limit(Resource.TOKENS, 1_000, 'day')]",
        f"limiter = RateLimiter(limits, store={uri!r})",
        "async def main():",
        "    return await limiter.acquire_async(input_tokens=100)",
        "import asyncio",
        "held = asyncio.run(main())",
        "raise KeyboardInterrupt",
    ]
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert run.stderr.rstrip().endswith("KeyboardInterrupt"), run.stderr
    limiter = RateLimiter(LIMITS, store=uri)
    limiter.acquire(timeout=3).cancel()
    assert used(limiter) == 100


@pytest.mark.parametrize("name", NAMES)
def test_a_closed_limiter_leaves_no_thread_and_no_connection(name: str, tmp_path: Path) -> None:
    uri = SHARED[name](tmp_path)
    until(no_threads)
    before = clients(name)
    with RateLimiter(concurrency=1, store=uri) as one, RateLimiter(concurrency=1, store=uri) as other:

        async def main() -> None:
            held = await one.acquire_async()
            waiting = asyncio.ensure_future(other.acquire_async())
            await asyncio.to_thread(until, lambda: threads() >= 3)  # the listener, too
            held.settle()
            (await waiting).settle()

        asyncio.run(main())
        last = other.acquire()
    last.settle()
    until(lambda: threads() == 0, 20)
    until(lambda: clients(name) == before, 20)
    assert one.snapshot().limits[0].available == 1, "who wants to know yet is told"
    RateLimiter(concurrency=1, store=uri).acquire(timeout=3).cancel()


@pytest.mark.parametrize("name", NAMES)
def test_limiters_of_threads_alone_are_closed_at_once(name: str, tmp_path: Path) -> None:
    before = clients(name)
    with RateLimiter(rpm=5, store=SHARED[name](tmp_path)) as limiter:
        limiter.try_acquire(requests=0)
        assert clients(name) > before
    until(lambda: clients(name) == before, 20)


@pytest.mark.parametrize("name", NAMES)
def test_a_dropped_limiter_leaves_no_thread(name: str, tmp_path: Path) -> None:
    until(no_threads)
    limiter = RateLimiter(rpm=5, store=SHARED[name](tmp_path))
    asyncio.run(one_call_async(limiter))
    assert threads() == 1
    del limiter
    until(no_threads, 6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("apart", [-600, 600])
def test_a_clock_that_differs_by_minutes_changes_no_wait(
    name: str, apart: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = SHARED[name](tmp_path)
    held = RateLimiter(concurrency=1, store=uri).acquire()

    class Apart(SystemClock):
        def now(self) -> int:
            return super().now() + apart * 1_000

    monkeypatch.setattr("agent_rate_limiter.machinery.SystemClock", Apart)
    start = time.monotonic()
    assert not RateLimiter(concurrency=1, store=uri).try_acquire()
    assert time.monotonic() - start < 2
    late, decorated = RateLimiter(concurrency=1, store=uri), RateLimiter(concurrency=1, store=uri)
    threading.Timer(0.04, held.settle).start()
    late.acquire(timeout=9).cancel()

    @decorated.limit(timeout=9)
    def call() -> int:
        return 1

    assert call() == 1


def test_what_a_store_should_not_do_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    store: Any = open_store(f"{server(NAMES[0]).uri}?namespace=strange")
    store.run = lambda batch, now: 1 / 0
    limiter = RateLimiter(rpm=5, store=store)
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="ZeroDivisionError"):
            limiter.acquire()
        cast("Any", limiter._calls.engine).loss.retry_at = 0
    with caplog.at_level(logging.ERROR):
        errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
