"""An asyncio event loop on virtual time: when everybody waits, time jumps to whoever is due first."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from agent_rate_limiter.testing.clock import ManualClock

T = TypeVar("T")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs `asyncio.sleep(3600)` and an hour's queue alike in no time at all.

    Only for programs that wait for nothing but time and each other: real sockets take real time.

    Args:
        clock: the clock that the limiters in it use too.
    """

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._zero = clock.now()
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Seconds since the loop was made, on the clock."""
        return (self._clock.now() - self._zero) / 1000

    def jump(self, timeout: float | None) -> None:
        """Move the clock to whatever is due first: one of the loop's timers, or a limiter's."""
        alarm = self._clock.next_alarm()
        timer = None if timeout is None else self._clock.now() + max(1, -int(-timeout * 1000 // 1))
        due = min((moment for moment in (alarm, timer) if moment is not None), default=None)
        if due is None:
            message = "Deadlock on virtual time: every task waits, and none of them for time."
            raise RuntimeError(message)
        self._clock.advance_to(due)


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not ready and (timeout is None or timeout > 0):
            self._loop.jump(timeout)
        return ready


def run_virtual(main: Coroutine[Any, Any, T], clock: ManualClock) -> T:
    """Run a coroutine to its end on virtual time; as `asyncio.run`, in no time.

    Raises:
        RuntimeError: every task waits for something that time will not bring.
    """
    loop = VirtualTimeLoop(clock)
    try:
        return loop.run_until_complete(main)
    finally:
        leftovers = asyncio.all_tasks(loop)
        for task in leftovers:
            task.cancel()
        if leftovers:
            loop.run_until_complete(asyncio.gather(*leftovers, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
