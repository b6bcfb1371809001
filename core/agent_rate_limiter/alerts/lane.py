"""A bounded queue with a thread of its own: whoever is slow, or hangs, holds up nobody else."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from threading import Condition, Thread
from typing import Generic, TypeVar

_MOST = 1_000
"""Items that may wait."""
_IDLE = 5.0
"""Seconds after which a thread with nothing to do ends."""

_log = logging.getLogger("agent_rate_limiter")
Item = TypeVar("Item")


class Lane(Generic[Item]):
    """Does one thing after the other, each when it is due. The thread is made when there is something to do.

    Args:
        work: done with each item. What it raises is logged, and stops nothing.
    """

    def __init__(self, work: Callable[[Item], None]) -> None:
        self._work = work
        self._number = count().__next__
        self.begin()

    def begin(self) -> None:
        """Begin with nothing; in the child of a fork, too: what waited is the parent's to do."""
        self._changed = Condition()
        self._items: list[tuple[float, int, Item]] = []
        self._thread: Thread | None = None
        self._busy = False

    def put(self, item: Item, after: float = 0.0) -> bool:
        """Queue an item, to be done so many seconds later; False when too many wait. Never waits.

        Raises:
            RuntimeError: no thread can be started: the program ends, or has too many.
        """
        with self._changed:
            if len(self._items) >= _MOST:
                return False
            self._ensure_thread()
            heappush(self._items, (time.monotonic() + after, self._number(), item))
            self._changed.notify_all()
        return True

    def wait(self, end: float) -> bool:
        """Wait until nothing is left to do, or for a moment of the monotonic clock; say whether nothing is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._items and not self._busy, max(0.0, end - time.monotonic()))

    def _ensure_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            thread = Thread(target=self._run, name="agent-rate-limiter-alerts", daemon=True)
            thread.start()
            self._thread = thread

    # -- in the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (item := self._next()) is not None:
            try:
                self._work(item)
            except BaseException:  # noqa: BLE001 - nobody is above: SystemExit, too, would end the thread unheard
                _log.exception("Alerts cannot be told")
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _next(self) -> Item | None:
        """Return what is due, once it is; None when there has been nothing to do for a while."""
        with self._changed:
            idle_since = time.monotonic()
            while True:
                now = time.monotonic()
                if self._items and self._items[0][0] <= now:
                    self._busy = True
                    return heappop(self._items)[2]
                if not self._items and now - idle_since >= _IDLE:
                    self._thread = None
                    return None
                self._changed.wait(self._items[0][0] - now if self._items else _IDLE)
