"""A clock that stands still until it is moved."""

from __future__ import annotations

import threading
from collections.abc import Callable

START = 1_767_225_600_000
"""2026-01-01 00:00:00 UTC, in epoch milliseconds."""


class ManualClock:
    """Virtual time for limiters: waits end when you advance it, and not before.

    `clock.advance(3600)` stops at every moment at which something becomes due on the way, so that an hour of
    waiting happens as it would, in milliseconds. Threads and event loops may wait on it at the same time.

    Args:
        start: epoch milliseconds.
    """

    def __init__(self, start: int = START) -> None:
        self._now = start
        self._alarms: list[_Alarm] = []
        self._lock = threading.Lock()

    def now(self) -> int:
        """Epoch milliseconds."""
        return self._now

    def waker(self, advance: Callable[[], None]) -> _Alarm:
        """Return a timer for an engine; with it, the clock alone decides when waits end."""
        alarm = _Alarm(advance)
        with self._lock:
            self._alarms.append(alarm)
        return alarm

    def next_alarm(self) -> int | None:
        """Epoch milliseconds at which the next wait is due; None when nothing waits for time."""
        with self._lock:
            return min((alarm.at for alarm in self._alarms if alarm.at is not None), default=None)

    def advance(self, seconds: float) -> None:
        """Move time on by that many seconds, stopping wherever something is due."""
        self.advance_to(self._now + round(seconds * 1000))

    def advance_to(self, moment: int) -> None:
        """Move time on to an epoch millisecond, stopping wherever something is due."""
        while (due := self.next_alarm()) is not None and due <= moment:
            self._now = max(self._now, due)
            for alarm in list(self._alarms):
                alarm.fire(self._now)
        self._now = max(self._now, moment)

    def jump(self, seconds: float) -> None:
        """Set the clock forth or back at once, as a machine's clock may be; nothing is woken."""
        self._now += round(seconds * 1000)

    def __repr__(self) -> str:
        """State the time."""
        return f"ManualClock({self._now})"


class _Alarm:
    def __init__(self, advance: Callable[[], None]) -> None:
        self.at: int | None = None
        self._advance = advance

    def arm(self, at: int | None) -> None:
        self.at = at

    def fire(self, now: int) -> None:
        if self.at is not None and self.at <= now:
            self.at = None
            self._advance()
