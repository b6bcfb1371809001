"""A crowd that waits: `python -m tests.benchmarks.crowds WHO WHAT SIZE` measures one in a fresh process.

WHO is "limiter" or "bare" (a heap of futures with one timer; for threads, of locks). Prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from threading import Lock, Thread
from typing import Protocol

from agent_rate_limiter import Estimate, Limit, Price, Priority, RateLimiter, Reservation, Resource
from tests.benchmarks.measure import clock

PRIORITIES = (Priority.NORMAL, Priority.HIGH, Priority.LOW, Priority.CRITICAL)
INPUT, MAX_OUTPUT = 80, 40
IDLE_SECONDS = 1.0
_NEVER = 30 * 86_400.0

Found = dict[str, float]


class Crowd(Protocol):
    """Where tasks and threads wait until all are released at once."""

    @property
    def waiting(self) -> int:
        """How many wait."""
        ...

    async def wait(self, priority: int, timeout: float | None) -> object:
        """Wait in a task."""
        ...

    def block(self, priority: int) -> object:
        """Wait in a thread."""
        ...

    def release(self) -> None:
        """Let everybody go."""
        ...

    def order(self, found: list[tuple[int, object]]) -> list[int]:
        """Tell in which order they were let go, from who returned with what."""
        ...


class LimiterCrowd:
    """Waits for a limiter whose requests are all taken, and released by giving those back.

    It is under RPM, TPM and a budget, as in the hot path. Nobody ages: the order is priority, then arrival.
    """

    def __init__(self, size: int) -> None:
        self._limiter = RateLimiter(
            [Limit(Resource.REQUESTS, size, "week"), Limit(Resource.COST, 1e6, "month")],
            tpm=10**9,
            price=Price(10, 30),
            ageing=_NEVER,
        )
        self._full = self._limiter.acquire(requests=size)

    @property
    def waiting(self) -> int:
        return self._limiter.snapshot().waiting

    async def wait(self, priority: int, timeout: float | None) -> Reservation:
        estimate = Estimate(input_tokens=INPUT, max_output_tokens=MAX_OUTPUT)
        return await self._limiter.acquire_async(estimate, priority=priority, timeout=timeout)

    def block(self, priority: int) -> Reservation:
        return self._limiter.acquire(Estimate(input_tokens=INPUT, max_output_tokens=MAX_OUTPUT), priority=priority)

    def release(self) -> None:
        self._full.cancel()

    def order(self, found: list[tuple[int, object]]) -> list[int]:
        """Reservations are numbered as they are admitted; threads may wake in another order."""
        admitted = [(handle.id, number) for number, handle in found if isinstance(handle, Reservation)]
        return [number for _, number in sorted(admitted)]


class BareCrowd:
    """A heap of futures (or locks) with a single timer: the least that keeps an order."""

    def __init__(self, _: int) -> None:
        self._heap: list[tuple[int, int, asyncio.Future[None] | Lock]] = []
        self._arrivals = count()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        return len(self._heap)

    async def wait(self, priority: int, timeout: float | None) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        heappush(self._heap, (priority, next(self._arrivals), future))
        if self._timer is None:
            self._timer = loop.call_later(_NEVER, self.release)
        await future

    def block(self, priority: int) -> None:
        bell = Lock()
        bell.acquire()
        heappush(self._heap, (priority, next(self._arrivals), bell))
        bell.acquire()

    def release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        while self._heap:
            waiter = heappop(self._heap)[2]
            if isinstance(waiter, asyncio.Future):
                waiter.set_result(None)
            else:
                waiter.release()

    def order(self, found: list[tuple[int, object]]) -> list[int]:
        return [number for number, _ in found]


# -- tasks -----------------------------------------------------------------------------------------------------


async def task_memory(crowd: Crowd, size: int) -> Found:
    """Bytes that Python allocates per waiting task, the task included."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tasks = await _gathered(crowd, size, [], None)
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    crowd.release()
    await asyncio.gather(*tasks)
    return {"bytes": used / size}


async def task_times(crowd: Crowd, size: int) -> Found:
    """How long a crowd takes to gather and to be released; what it does in between; in which order it goes."""
    return await _task_times(crowd, size, None)


async def task_times_with_timeout(crowd: Crowd, size: int) -> Found:
    """The same, with a timeout for each."""
    return await _task_times(crowd, size, _NEVER)


async def _task_times(crowd: Crowd, size: int, timeout: float | None) -> Found:
    found: list[tuple[int, object]] = []
    gc.collect()
    resident, start = _resident(), clock()
    tasks = await _gathered(crowd, size, found, timeout)
    gathered = clock() - start
    gc.collect()
    resident, timers = (_resident() - resident) / size, _timers()
    cpu = time.process_time()
    await asyncio.sleep(IDLE_SECONDS)
    cpu = time.process_time() - cpu
    gc.collect()
    start = clock()
    crowd.release()
    await asyncio.gather(*tasks)
    released = clock() - start
    return {
        "gathered": gathered,
        "released": released,
        "resident": resident,
        "timers": timers,
        "idle": cpu / IDLE_SECONDS,
        "misplaced": _misplaced(crowd.order(found)),
    }


async def _gathered(
    crowd: Crowd, size: int, found: list[tuple[int, object]], timeout: float | None
) -> list[asyncio.Task[None]]:
    """Return once everybody waits."""

    async def member(number: int) -> None:
        handle = await crowd.wait(_priority(number), timeout)
        found.append((number, handle))

    tasks = [asyncio.create_task(member(number)) for number in range(size)]
    while crowd.waiting < size:
        await asyncio.sleep(0)
        for task in tasks:
            if task.done():  # nobody is released yet: it was refused
                task.result()
    return tasks


def _timers() -> int:
    """Timers that the event loop has; nobody sleeps while this looks."""
    scheduled: list[asyncio.TimerHandle] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return sum(not handle.cancelled() for handle in scheduled)


# -- threads ---------------------------------------------------------------------------------------------------


def thread_times(crowd: Crowd, size: int) -> Found:
    """As task_times, for threads."""
    found: list[tuple[int, object]] = []

    def member(number: int) -> None:
        handle = crowd.block(_priority(number))
        found.append((number, handle))

    threads = [Thread(target=member, args=(number,), daemon=True) for number in range(size)]
    start = time.perf_counter()
    for number, thread in enumerate(threads):
        thread.start()
        while crowd.waiting <= number:
            time.sleep(0)
    gathered = time.perf_counter() - start
    cpu = time.process_time()
    time.sleep(IDLE_SECONDS)
    cpu = time.process_time() - cpu
    start = time.perf_counter()
    crowd.release()
    for thread in threads:
        thread.join()
    released = time.perf_counter() - start
    misplaced = _misplaced(crowd.order(found))
    return {"gathered": gathered, "released": released, "idle": cpu / IDLE_SECONDS, "misplaced": misplaced}


# -- either ----------------------------------------------------------------------------------------------------


def _priority(number: int) -> int:
    return PRIORITIES[number % len(PRIORITIES)]


def _misplaced(order: list[int]) -> int:
    """How many did not go where priority, then arrival, puts them."""
    right = sorted(range(len(order)), key=lambda number: (_priority(number), number))
    return sum(one != other for one, other in zip(order, right, strict=True))


def _resident() -> float:
    """Bytes of this process in memory; not a number where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096
    except OSError:
        return float("nan")


CROWDS: dict[str, Callable[[int], Crowd]] = {"limiter": LimiterCrowd, "bare": BareCrowd}
TASKS: dict[str, Callable[[Crowd, int], Awaitable[Found]]] = {
    "memory": task_memory,
    "tasks": task_times,
    "timeouts": task_times_with_timeout,
}


def main(who: str, what: str, size: int) -> None:
    """Measure, and print what was found."""
    crowd = CROWDS[who](size)

    async def tasks() -> Found:
        return await TASKS[what](crowd, size)

    print(json.dumps(thread_times(crowd, size) if what == "threads" else asyncio.run(tasks())))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
