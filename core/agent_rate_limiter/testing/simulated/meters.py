# ruff: noqa: D102 - what every meter does is documented once, on Meter
"""Provider-side meters: how much of one limit is used, and when there is room again.

Pure: every method takes `now`. Times are whole nanoseconds and amounts whole units, so no sum is rounded.
This is the independent judge of the limiter, so it shares no code with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import insort
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

SECOND = 1_000_000_000

Bounds = Callable[[int], tuple[int, int]]
"""The window that holds a time: its start and its end, in nanoseconds."""


class Meter(ABC):
    """What is used of one limit.

    Args:
        limit: units allowed per window, or at once.
        now: nanoseconds.
    """

    def __init__(self, limit: int, now: int) -> None:
        self.limit = limit
        self._changes = [(now, limit)]

    @abstractmethod
    def used(self, now: int) -> int:
        """Units in use, rounded up."""

    @abstractmethod
    def wait(self, amount: int, now: int) -> int | None:
        """Nanoseconds until the amount fits: 0 when it fits now, None when nobody can know."""

    @abstractmethod
    def add(self, amount: int, now: int) -> None:
        """Charge an amount, even past the limit: what was used is used."""

    @abstractmethod
    def refund(self, amount: int, taken_at: int, now: int) -> None:
        """Give back part of what was charged at `taken_at`; what was refilled since is not given twice."""

    @abstractmethod
    def reset_in(self, now: int) -> int:
        """Nanoseconds until nothing is used any more."""

    @abstractmethod
    def allowed(self, start: int, end: int) -> int:
        """The most that could have been used from start to end, had the meter been idle before."""

    def resize(self, limit: int, now: int) -> None:
        """Change the limit; what is used stays used."""
        self.used(now)  # settles what the old limit refilled
        self.limit = limit
        self._changes.append((now, limit))

    def _highest(self, start: int, end: int) -> int:
        """The highest limit in effect at any time from start to end."""
        later = [limit for at, limit in self._changes if start < at <= end]
        return max([self._limit_at(start), *later])

    def _limit_at(self, at: int) -> int:
        known = [limit for since, limit in self._changes if since <= at]
        return known[-1] if known else self._changes[0][1]


class Bucket(Meter):
    """Refilled continuously: the window's limit is also its capacity.

    Published 429 bodies of OpenAI and Groq recompute exactly with it (provider docs and posts, Nov 2026):
    `try again in = (used + requested - limit) / limit x window`, for days as well as for minutes.
    """

    def __init__(self, limit: int, window: int, now: int) -> None:
        super().__init__(limit, now)
        self._window = window
        self._debt = 0  # units x nanoseconds of the window: refills by `limit` per nanosecond, exactly
        self._last = now

    def used(self, now: int) -> int:
        if now > self._last:
            self._debt = max(0, self._debt - self.limit * (now - self._last))
            self._last = now
        return -(-self._debt // self._window)

    def wait(self, amount: int, now: int) -> int | None:
        excess = self.used(now) + amount - self.limit
        if excess <= 0:
            return 0
        return -(-excess * self._window // self.limit) if self.limit else None

    def add(self, amount: int, now: int) -> None:
        self.used(now)
        self._debt += amount * self._window

    def refund(self, amount: int, taken_at: int, now: int) -> None:  # noqa: ARG002 - a bucket has no past
        self.used(now)
        self._debt = max(0, self._debt - amount * self._window)

    def reset_in(self, now: int) -> int:
        return self.used(now) * self._window // self.limit if self.limit else self._window

    def allowed(self, start: int, end: int) -> int:
        """A client that always uses whatever there is: the capacity at once, then the refill."""
        segments = [(start, self._limit_at(start))]
        segments += [(at, limit) for at, limit in self._changes if start < at <= end]
        held = taken = 0  # both in units x nanoseconds
        for (since, limit), (until, _) in pairwise([*segments, (end, 0)]):
            room = max(0, limit * self._window - held)
            refill = limit * (until - since)
            over = max(0, held - limit * self._window)
            taken += room + max(0, refill - over)
            held = max(held + room - refill, limit * self._window)
        return taken // self._window


class Window(Meter):
    """A counter that starts again at each boundary: a minute of the clock, a day of a time zone.

    Azure's tokens per minute, and the day of Gemini and OpenRouter (provider docs, Nov 2026).
    """

    def __init__(self, limit: int, bounds: Bounds, now: int) -> None:
        super().__init__(limit, now)
        self._bounds = bounds
        self._start, self._end = bounds(now)
        self._used = 0

    def used(self, now: int) -> int:
        if now >= self._end:
            self._start, self._end = self._bounds(now)
            self._used = 0
        return self._used

    def wait(self, amount: int, now: int) -> int | None:
        return 0 if self.used(now) + amount <= self.limit else self._end - now

    def add(self, amount: int, now: int) -> None:
        self._used = self.used(now) + amount

    def refund(self, amount: int, taken_at: int, now: int) -> None:
        used = self.used(now)
        if taken_at >= self._start:
            self._used = max(0, used - amount)

    def reset_in(self, now: int) -> int:
        return self._end - now if self.used(now) else 0

    def allowed(self, start: int, end: int) -> int:
        total, at = 0, start
        while at <= end:
            after = self._bounds(at)[1]
            total += self._highest(at, min(after - 1, end))
            at = after
        return total


class Ramp(Window):
    """A limit on growth: a little more each minute while there is traffic, all anew after an idle one.

    Anthropic: "your current limit is 58,276 ... will increase to 68,276 at the next minute boundary" (429
    body, provider docs, Nov 2026); what makes it fall again is not published.

    Args:
        start: units allowed in the first minute.
        step: units more in each next one.
    """

    def __init__(self, start: int, step: int, bounds: Bounds, now: int) -> None:
        super().__init__(start, bounds, now)
        self.step = step
        self._first = start

    def used(self, now: int) -> int:
        if now >= self._end:
            busy = self._used > 0 and now < self._bounds(self._end)[1]
            self._start, self._end = self._bounds(now)
            self._used = 0
            self.limit = self.limit + self.step if busy else self._first
            self._changes.append((self._start, self.limit))
        return self._used


class SlidingLog(Meter):
    """At most the limit in any stretch of one window's length."""

    def __init__(self, limit: int, window: int, now: int) -> None:
        super().__init__(limit, now)
        self._window = window
        self._log: list[tuple[int, int]] = []  # (when, units), in order

    def used(self, now: int) -> int:
        while self._log and self._log[0][0] + self._window <= now:
            self._log.pop(0)
        return max(0, sum(units for _, units in self._log))

    def wait(self, amount: int, now: int) -> int | None:
        excess = self.used(now) + amount - self.limit
        for at, units in self._log:
            if excess <= 0:
                return 0
            excess -= units
            if excess <= 0:
                return at + self._window - now
        return 0 if excess <= 0 else None

    def add(self, amount: int, now: int) -> None:
        insort(self._log, (now, amount))

    def refund(self, amount: int, taken_at: int, now: int) -> None:
        if taken_at + self._window > now:
            insort(self._log, (taken_at, -amount))

    def reset_in(self, now: int) -> int:
        return self._log[-1][0] + self._window - now if self.used(now) else 0

    def allowed(self, start: int, end: int) -> int:
        return self._highest(start, end) * ((end - start) // self._window + 1)


class Slots(Meter):
    """Calls in flight: a unit comes back when its call is over (DeepSeek; provider docs, Nov 2026)."""

    def __init__(self, limit: int, now: int) -> None:
        super().__init__(limit, now)
        self._used = 0
        self.peak = 0

    def used(self, now: int) -> int:  # noqa: ARG002 - time frees no slot
        return self._used

    def wait(self, amount: int, now: int) -> int | None:  # noqa: ARG002
        return 0 if self._used + amount <= self.limit else None

    def add(self, amount: int, now: int) -> None:  # noqa: ARG002
        self._used += amount
        self.peak = max(self.peak, self._used)

    def refund(self, amount: int, taken_at: int, now: int) -> None:  # noqa: ARG002
        self._used -= amount

    def reset_in(self, now: int) -> int:  # noqa: ARG002
        return 0

    def allowed(self, start: int, end: int) -> int:
        return self._highest(start, end)


def every(seconds: float) -> Bounds:
    """Windows of this length, aligned to the epoch: a minute of the clock, a slice of a second."""
    length = round(seconds * SECOND)
    return lambda now: (now // length * length, now // length * length + length)


def day_of(zone: str) -> Bounds:
    """Days of a time zone, from midnight to midnight, whatever the clocks there do."""
    tz = ZoneInfo(zone)

    def bounds(now: int) -> tuple[int, int]:
        local = datetime.fromtimestamp(now // SECOND, tz=timezone.utc).astimezone(tz)
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        following = midnight + timedelta(days=1)  # wall-clock arithmetic: a day may have 23 or 25 hours
        return int(midnight.timestamp()) * SECOND, int(following.timestamp()) * SECOND

    return bounds
