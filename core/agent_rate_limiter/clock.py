"""The one place that reads the time."""

from __future__ import annotations

import time

_time_ns = time.time_ns


class SystemClock:
    """Wall-clock time, which calendars, processes and providers share; but it never goes back.

    When the machine's clock is set back, time goes on from where it was, so that no limit freezes until the
    old time is reached again; once the machine's clock has caught up, its time counts again.
    """

    def __init__(self) -> None:
        self._latest = 0
        self._ahead = 0

    def now(self) -> int:
        """Epoch milliseconds."""
        now = _time_ns() // 1_000_000
        if self._ahead or now < self._latest:
            now = self._steady(now)
        self._latest = now
        return now

    def _steady(self, wall: int) -> int:
        if wall >= self._latest:
            self._ahead = 0
        elif wall + self._ahead < self._latest:
            self._ahead = self._latest - wall
        return wall + self._ahead
