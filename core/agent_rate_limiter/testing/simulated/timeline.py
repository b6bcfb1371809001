"""Two times: the client's, which is on the wire, and the simulated one, which may run faster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from agent_rate_limiter.testing.simulated.wires import Moment

_POLL = 0.001  # real seconds between looks at a clock that someone else moves


class Timeline:
    """Simulated time, `speed` times as fast as the client's clock.

    Args:
        clock: the client's time in seconds; None is the machine's, in epoch seconds, which never jumps.
        speed: simulated seconds per second of the clock.
    """

    def __init__(self, clock: Callable[[], float] | None = None, speed: float = 1.0) -> None:
        self._clock = clock or _steady_epoch()
        self._real = clock is None
        self.speed = speed
        self._origin = self._clock()

    def moment(self) -> Moment:
        """Both times, now: what limits, latencies and outages go by, and what Date and resets go by."""
        now = self._clock()
        return Moment(now, self._origin + (now - self._origin) * self.speed, self.speed)

    async def pause(self, seconds: float) -> None:
        """Wait for simulated seconds; on a clock that someone else moves, until it was moved that far."""
        if self._real:
            await asyncio.sleep(seconds / self.speed)
            return
        due = self._clock() + seconds / self.speed
        while self._clock() < due:  # noqa: ASYNC110 - such a clock tells nobody that it moved
            await asyncio.sleep(_POLL)


def _steady_epoch() -> Callable[[], float]:
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()
