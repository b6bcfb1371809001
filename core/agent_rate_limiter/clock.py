"""The one place that reads the time."""

from __future__ import annotations

import time


class SystemClock:
    """Wall-clock time: what calendars, processes and providers share. Every transition bears its jumps."""

    def now(self) -> int:
        """Epoch milliseconds."""
        return time.time_ns() // 1_000_000
