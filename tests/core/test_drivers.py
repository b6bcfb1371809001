"""Threads and tasks of several event loops wait in one queue; nobody is forgotten."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections.abc import Callable

import pytest

from agent_rate_limiter import AcquireTimeout, Limit, RateLimiter
from agent_rate_limiter.engine.drivers import Threads
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.testing import ManualClock, run_virtual

JOIN = 20.0  # seconds until a test that hangs is called a failure


def in_threads(*works: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN)
    assert not any(thread.is_alive() for thread in threads), "a waiter was forgotten"
    assert not failures, failures


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + JOIN
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_threads_and_tasks_of_three_loops_share_one_queue() -> None:
    limiter = RateLimiter(Limit(Resource.REQUESTS, 500, "second", burst=1), concurrency=3)
    done: list[int] = []
    most = [0]

    def note() -> None:
        most[0] = max(most[0], limiter.snapshot().in_flight)
        done.append(1)

    def thread() -> None:
        for _ in range(10):
            with limiter.reserve():
                note()

    async def task() -> None:
        for _ in range(10):
            async with limiter.reserve():
                note()
                await asyncio.sleep(0)

    async def tasks() -> None:
        await asyncio.gather(*(task() for _ in range(4)))

    in_threads(*[thread] * 4, *[lambda: asyncio.run(tasks())] * 3)
    assert len(done) == 160
    assert most[0] <= 3
    assert limiter.snapshot().in_flight == limiter.snapshot().waiting == 0


@pytest.mark.parametrize("seed", range(5))
def test_no_wake_up_is_lost_among_cancels_and_timeouts(seed: int) -> None:
    """Random giving up in threads and tasks: whoever stays is served, and nothing stays taken."""
    dice = random.Random(seed)
    limiter = RateLimiter(concurrency=2)
    outcomes = {"served": 0, "gave up": 0}

    def thread() -> None:
        for _ in range(15):
            try:
                with limiter.reserve(timeout=dice.choice([None, 0.0, 0.001, 0.01]), priority=dice.randrange(3)):
                    outcomes["served"] += 1
                    time.sleep(dice.random() / 2_000)
            except AcquireTimeout:
                outcomes["gave up"] += 1

    async def task() -> None:
        for _ in range(15):
            try:
                reservation = await asyncio.wait_for(limiter.acquire_async(), dice.choice([None, 0.0, 0.001, 0.01]))
                async with reservation:
                    outcomes["served"] += 1
                    await asyncio.sleep(dice.random() / 2_000)
            except asyncio.TimeoutError:
                outcomes["gave up"] += 1

    async def tasks() -> None:
        await asyncio.gather(*(task() for _ in range(5)))

    in_threads(*[thread] * 5, *[lambda: asyncio.run(tasks())] * 2)
    assert outcomes["served"] + outcomes["gave up"] == 225
    assert limiter.snapshot().in_flight == limiter.snapshot().waiting == 0
    assert limiter.try_acquire()


def test_only_one_timer_however_many_wait() -> None:
    limiter = RateLimiter(Limit(Resource.REQUESTS, 1, "hour"))
    limiter.acquire()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        waiting = [asyncio.ensure_future(limiter.acquire_async()) for _ in range(1_000)]
        await asyncio.sleep(0)
        assert limiter.snapshot().waiting == 1_000
        live = [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
        assert len(live) == 1
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert not [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]

    asyncio.run(main())
    assert not any(not isinstance(waker, Threads) for waker in limiter._calls.engine._wakers.values())


def test_one_thread_keeps_the_time_and_hands_it_on(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(Limit(Resource.REQUESTS, 1, "second"), clock=manual_clock)
    limiter.acquire()
    served: list[int] = []

    def wait() -> None:
        limiter.acquire().settle()
        served.append(manual_clock.now())

    threads = [threading.Thread(target=wait, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    eventually(lambda: limiter.snapshot().waiting == 3)
    for count in (1, 2, 3):
        manual_clock.advance(1)
        eventually(lambda wanted=count: len(served) == wanted)  # type: ignore[misc]
    for thread in threads:
        thread.join(JOIN)


def test_a_thread_takes_over_when_the_time_keeper_gives_up() -> None:
    limiter = RateLimiter(Limit(Resource.REQUESTS, 20, "second", burst=1), concurrency=1)
    first = limiter.acquire()

    def impatient() -> None:
        with pytest.raises(AcquireTimeout):
            limiter.acquire(timeout=0.02)

    def patient() -> None:
        limiter.acquire(timeout=10).settle()

    def release() -> None:
        eventually(lambda: limiter.snapshot().waiting == 1)
        first.settle()

    in_threads(impatient, patient, release)


def test_an_interrupted_thread_leaves_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = RateLimiter(concurrency=1)
    held = limiter.acquire()

    def interrupt(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(Threads, "join", interrupt)
    with pytest.raises(KeyboardInterrupt):
        limiter.acquire()
    assert limiter.snapshot().waiting == 0
    held.settle()
    assert limiter.snapshot().in_flight == 0


def test_tasks_of_a_loop_that_died_do_not_keep_what_they_were_given() -> None:
    limiter = RateLimiter(concurrency=1)
    held = limiter.acquire()
    loop = asyncio.new_event_loop()
    task = loop.create_task(limiter.acquire_async())
    loop.run_until_complete(asyncio.sleep(0))
    assert limiter.snapshot().waiting == 1
    loop.close()
    held.settle()
    assert limiter.snapshot().in_flight == 0
    task.get_coro().close()  # as when the program ends: too late to take anything back
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    assert limiter.snapshot().in_flight == 0


def test_a_dropped_reservation_gives_its_slot_back_even_from_a_finalizer_under_the_lock() -> None:
    limiter = RateLimiter(concurrency=1)
    engine = limiter._calls.engine
    reservation = limiter.acquire()
    cycle: list[object] = [reservation]
    cycle.append(cycle)
    del reservation, cycle

    def collect(_: int) -> None:
        gc.collect()  # runs the finalizer in the middle of a locked step

    engine.read(collect)
    assert engine.in_flight == 0
    assert limiter.try_acquire()


def test_a_dropped_reservation_wakes_whoever_waits_for_its_slot() -> None:
    limiter = RateLimiter(concurrency=1)
    held = [limiter.acquire()]

    def drop() -> None:
        eventually(lambda: limiter.snapshot().waiting == 1)
        held.clear()
        gc.collect()

    in_threads(lambda: limiter.acquire(timeout=10).settle(), drop)


def test_a_lost_reservation_comes_back_when_its_lease_ends(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(concurrency=1, clock=manual_clock, lease=30)
    lost = limiter.acquire()

    async def main() -> float:
        await limiter.acquire_async()
        return manual_clock.now()

    start = manual_clock.now()
    assert run_virtual(main(), manual_clock) == start + 30_000
    assert lost is not None


def test_a_deadlock_on_virtual_time_is_told(manual_clock: ManualClock) -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="Deadlock on virtual time"):
        run_virtual(main(), manual_clock)


def test_the_loop_is_free_while_tasks_wait() -> None:
    limiter = RateLimiter(Limit(Resource.REQUESTS, 100, "second", burst=1))

    async def main() -> int:
        waiting = asyncio.gather(*(limiter.acquire_async() for _ in range(5)))
        turns = 0
        while not waiting.done():
            turns += 1
            await asyncio.sleep(0)
        return turns

    assert asyncio.run(main()) > 10
