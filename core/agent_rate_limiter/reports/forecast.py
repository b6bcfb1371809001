"""How a limit stands, how fast it fills, and when it will be used up at that pace."""

from __future__ import annotations

from math import exp
from typing import NamedTuple

from agent_rate_limiter.admission import Bucket
from agent_rate_limiter.limits import PERIOD_SECONDS
from agent_rate_limiter.strategies import FixedWindow, SlidingWindow
from agent_rate_limiter.strategies.calendar import FOREVER

_HOUR = PERIOD_SECONDS["hour"] * 1000
_SHORTEST = 5_000
"""Milliseconds: paces over less are noise."""


class Standing(NamedTuple):
    """How much of a limit is used, and the window that it is used in.

    Args:
        used: units, without what calls in flight hold of a budget: most of that comes back.
        start: of the window, in epoch milliseconds.
        end: of the window, FOREVER for a total.
        empties: whether the window began with nothing used. A rate has no such window: it is told of once an hour,
            or once per period if that is longer.
    """

    used: int
    start: int
    end: int
    empties: bool


def standing(bucket: Bucket, now: int) -> Standing:
    """Read one bucket.

    Args:
        bucket: the limit.
        now: epoch milliseconds.
    """
    strategy, state = bucket.strategy, bucket.state
    if isinstance(strategy, FixedWindow):
        start, end, used, _ = state if now < state[1] else strategy.initial(now)
        return Standing(used, start, end, end < FOREVER)
    span = max(_HOUR, bucket.limit.period_ms or 0)
    start = now - now % span
    used = strategy.capacity - strategy.available(state, now)
    if isinstance(strategy, SlidingWindow):
        used -= state[2]
    return Standing(used, start, start + span, empties=False)


class Pace:
    """How fast one limit fills of late: an exponentially weighted average over what is seen at each look.

    It is looked at by snapshots and alerts, never by calls.

    Args:
        period: the limit's, in milliseconds; the average reaches back a tenth of it, at most an hour.
    """

    __slots__ = ("_at", "_rate", "_reach", "_used")

    def __init__(self, period: int | None) -> None:
        self._reach = max(_SHORTEST, min(_HOUR, (period or 10 * _HOUR) // 10))
        self._at: int | None = None  # epoch milliseconds of the last look
        self._used = 0
        self._rate: float | None = None

    def look(self, at: Standing, now: int) -> float | None:
        """Return units per millisecond; None until that can be known."""
        if at.empties and (self._at is None or self._at < at.start):
            self._at, self._used = at.start, 0
        if self._at is None:
            self._at, self._used = now, at.used
        elapsed = now - self._at
        if 20 * elapsed >= self._reach:
            rate = (at.used - self._used) / elapsed
            old = rate if self._rate is None else self._rate
            self._rate = old + (rate - old) * (1 - exp(-elapsed / self._reach))
            self._at, self._used = now, at.used
        return self._rate


def gone_in(bucket: Bucket, now: int, at: Standing | None = None) -> float | None:
    """Return the milliseconds until a limit is used up at its recent pace; None: it lasts, or nobody can know yet."""
    at = at or standing(bucket, now)
    if bucket.pace is None:
        bucket.pace = Pace(bucket.limit.period_ms)
    rate: float | None = bucket.pace.look(at, now)
    left = bucket.strategy.capacity - at.used
    if left <= 0:
        return 0.0
    if rate is None or rate <= 0:
        return None
    gone = left / rate
    return gone if gone < at.end - (now if at.empties else at.start) else None  # beyond its period, nobody can know
