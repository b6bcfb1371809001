"""How callers wait: threads and asyncio tasks, in one queue. The only two places that block or await.

Nobody polls. Each event loop in use has one timer for all of its tasks, and of all waiting threads one keeps
the time for the others; whichever wakes first lets the engine advance, which wakes whoever is admitted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, get_ident
from typing import Protocol, cast

from agent_rate_limiter.engine.engine import Engine
from agent_rate_limiter.engine.queue import Waiter

_LONGEST_SLEEP = 86_400.0
"""Seconds; a lock's time-out cannot be as long as a deadline may be."""


class Background(Protocol):
    """An engine that has somebody who may block."""

    def background(self, work: Callable[[], object]) -> None:
        """Have something done."""
        ...


def wait_in_thread(engine: Engine, waiter: Waiter) -> Waiter:
    """Enqueue a call and block this thread until its outcome is known."""
    threads = cast("Threads", engine.attach("threads", lambda: Threads(engine)))
    bell = Lock()
    bell.acquire()
    waiter.bell, waiter.ring = bell, _ring
    try:
        engine.enqueue(waiter)
        while waiter.outcome is None:
            timeout = threads.join(bell)
            bell.acquire(timeout=timeout)
            if waiter.outcome is None:
                engine.advance()
    except BaseException:  # an interrupt: the call will not be made
        engine.withdraw(waiter)
        raise
    finally:
        threads.leave(bell)
    return waiter


async def wait_in_loop(engine: Engine, waiter: Waiter) -> Waiter:
    """Enqueue a call and await its outcome."""
    loop = asyncio.get_running_loop()
    tasks = cast("Tasks", engine.attach(loop, lambda: Tasks(engine, loop)))
    future: asyncio.Future[None] = loop.create_future()
    waiter.bell, waiter.ring = future, tasks.ring_bound
    tasks.waiting += 1
    try:
        engine.enqueue(waiter)
        if waiter.outcome is None:
            await future
    except BaseException:  # cancelled: the call will not be made
        engine.withdraw(waiter)
        raise
    finally:
        tasks.leave()
    return waiter


async def work_in_background(engine: Background, work: Callable[[], object]) -> None:
    """Await something that blocks."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def ring() -> None:
        if not future.done():
            future.set_result(None)

    def done() -> None:
        try:
            work()
        finally:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(ring)

    engine.background(done)
    await future


def _ring(bell: Lock) -> bool:
    # A bare lock and not an Event: a finalizer may ring it in the middle of anything.
    with suppress(RuntimeError):  # rung already
        bell.release()
    return True


class Threads:
    """All waiting threads: the first keeps the time, and hands it on when it leaves."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: dict[Lock, None] = {}
        self._keeper: Lock | None = None
        self._armed: int | None = None

    def arm(self, at: int | None) -> None:
        """Let the keeper wake earlier, if `at` is before what it sleeps for."""
        if at is None or self._keeper is None or self._engine.clock_wakes:
            return
        if self._armed is None or at < self._armed:
            _ring(self._keeper)

    def join(self, bell: Lock) -> float:
        """Return for how many seconds this thread may sleep; -1 until it is woken."""
        return self._engine.read(lambda now: self._join(bell, now))

    def _join(self, bell: Lock, now: int) -> float:
        self._waiting[bell] = None
        if self._keeper is None:
            self._keeper = bell
        if self._keeper is not bell or self._engine.clock_wakes:
            return -1
        self._armed = self._engine.next_event()
        return -1 if self._armed is None else min(_LONGEST_SLEEP, max(0, self._armed - now) / 1000)

    def leave(self, bell: Lock) -> None:
        """Stop waiting; somebody else keeps the time."""
        self._engine.read(lambda _: self._leave(bell))

    def _leave(self, bell: Lock) -> None:
        self._waiting.pop(bell, None)
        if self._keeper is bell:
            self._keeper = next(iter(self._waiting), None)
            self._armed = None
            if self._keeper is not None:
                _ring(self._keeper)


class Tasks:
    """All waiting tasks of one event loop, and its one timer."""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self.waiting = 0
        self.ring_bound = self.ring  # once, not for each waiter: it is held as long as that waits
        self._engine = engine
        self._loop = loop
        self._thread = get_ident()
        self._armed: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rung: deque[asyncio.Future[None]] = deque()

    def arm(self, at: int | None) -> None:
        """Set the timer, if `at` is before what it is set for. Any thread may ask."""
        if at is None or self._engine.clock_wakes or (self._armed is not None and self._armed <= at):
            return
        self._armed = at
        self._call(self._set_timer)

    def ring(self, future: asyncio.Future[None]) -> bool:
        """Wake a task. False when its loop is closed: then nobody is there to make the call."""
        if self._loop.is_closed():
            return False
        self._rung.append(future)
        return len(self._rung) > 1 or self._call(self._wake)

    def leave(self) -> None:
        """One task less; the last one takes the timer down."""
        self.waiting -= 1
        if not self.waiting:
            if self._timer is not None:
                self._timer.cancel()
            self._engine.detach(self._loop)

    def _call(self, callback: Callable[[], None]) -> bool:
        if get_ident() == self._thread:
            callback()
            return True
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # closed since
            return False
        return True

    def _wake(self) -> None:
        while self._rung:
            future = self._rung.popleft()
            if not future.done():
                future.set_result(None)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._armed is not None:
            delay = max(0, self._armed - self._engine.clock.now()) / 1000
            self._timer = self._loop.call_later(delay, self._fire)

    def _fire(self) -> None:
        self._timer = self._armed = None
        self._engine.advance()
