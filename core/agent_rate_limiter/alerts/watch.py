"""Notice when a limit passes a threshold, will not last, is used up, or has room again."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

from agent_rate_limiter.admission import Bucket
from agent_rate_limiter.alerts.alert import Alert
from agent_rate_limiter.limits import PERIOD_SECONDS, Resource, from_units
from agent_rate_limiter.reports.forecast import Standing, gone_in, standing
from agent_rate_limiter.strategies import Concurrency, FixedWindow, SlidingWindow

_HOUR = PERIOD_SECONDS["hour"] * 1000
_LOOKS = 200
"""Looks per window at the pace, at most one a second."""
_NEARLY = 0.9
"""The share from which on a refusal means that a budget is used up, and below which it has recovered."""
_SETTLED = 24
"""A pace counts once 1/24 of the window is over, and a tenth of the budget is used: a burst is no pace."""
_PACE_SHARE = 0.1


class Watch:
    """One limit that is watched.

    Args:
        bucket: the limit.
        thresholds: the shares at which to tell, rising; once each per window.

    Attributes:
        due: units in `level(bucket.state)` from which on to look.
        look_at: epoch milliseconds from which on to look, whatever the level.
        window: when the window ends that was looked at last, in epoch milliseconds.
    """

    __slots__ = ("__weakref__", "_exhausted", "_thresholds", "_told", "bucket", "due", "level", "look_at", "window")

    def __init__(self, bucket: Bucket, thresholds: tuple[float, ...]) -> None:
        self.bucket = bucket
        self.level = _level_of(bucket)
        self.due: float = 0
        self.look_at = 0
        self._thresholds = thresholds
        self._told: set[float | str] = set()
        self.window = 0
        self._exhausted = False

    def look(self, now: int) -> list[Alert]:
        """Return what there is to tell since the last look."""
        at = self._standing(now)
        share = at.used / self.bucket.strategy.capacity
        alerts: list[Alert] = []
        anew = at.end != self.window
        if anew:
            self.window = at.end
            self._told.clear()
        if self._exhausted and (share < _NEARLY or (anew and at.empties and share < 1)):
            self._exhausted = False
            alerts += self._once("recovered", 0, at, now)
        if share >= 1:
            alerts += self._exhaust(at, now)
        else:
            alerts += self._passed(at, share, now)
            alerts += self._pace(at, share, now)
        self._told.update(threshold for threshold in self._thresholds if threshold <= share)
        self._schedule(at, share, now)
        return alerts

    def refused(self, now: int) -> list[Alert]:
        """Return what there is to tell after it refused a call for good."""
        alerts, at = self.look(now), self._standing(now)
        if at.used < _NEARLY * self.bucket.strategy.capacity:
            return alerts
        self.look_at = 0  # to notice when there is room again
        return alerts + self._exhaust(at, now)

    def _standing(self, now: int) -> Standing:
        at = standing(self.bucket, now)
        return at._replace(used=at.used + 1) if isinstance(self.bucket.strategy, Concurrency) else at

    def _passed(self, at: Standing, share: float, now: int) -> list[Alert]:
        """Tell of the highest threshold that was passed."""
        passed = max((threshold for threshold in self._thresholds if threshold <= share), default=None)
        return [] if passed is None else self._once("threshold", passed, at, now)

    def _exhaust(self, at: Standing, now: int) -> list[Alert]:
        self._exhausted = True
        return self._once("exhausted", 1.0, at, now)

    def _pace(self, at: Standing, share: float, now: int) -> list[Alert]:
        """Both the recent pace and that of the whole window must use it up before its end."""
        if not self._paced(at):
            return []
        gone = gone_in(self.bucket, now, at)
        elapsed, span = now - at.start, at.end - at.start
        lasts = share * span < elapsed or elapsed * _SETTLED < span or share < _PACE_SHARE
        if gone is None or lasts:
            return []
        return self._once("pace", 0, at, now, now + gone)

    def _paced(self, at: Standing) -> bool:
        return at.empties and self.bucket.limit.resource is Resource.COST and at.end - at.start >= _HOUR

    def _once(self, kind: str, threshold: float, at: Standing, now: int, gone_at: float | None = None) -> list[Alert]:
        mark: float | str = threshold if kind == "threshold" else kind
        if mark in self._told:
            return []
        self._told.add(mark)
        bucket, resource = self.bucket, self.bucket.limit.resource
        return [
            Alert(
                kind,
                bucket.key.partition("|")[0],
                bucket.limit.name,
                bucket.scope,
                resource.value,
                threshold,
                from_units(resource, at.used),
                bucket.limit.amount,
                now / 1000,
                at.end / 1000 if at.empties else None,
                None if gone_at is None else gone_at / 1000,
                bucket.limit.timezone,
            )
        ]

    def _schedule(self, at: Standing, share: float, now: int) -> None:
        capacity = self.bucket.strategy.capacity
        ahead = [threshold * capacity for threshold in (*self._thresholds, 1.0) if threshold > share]
        self.due = min(ahead, default=float("inf"))
        soon = now + max(1_000, min(at.end - at.start, _HOUR * 24) // _LOOKS)
        self.look_at = min(at.end, soon) if self._exhausted or self._paced(at) else at.end


def _level_of(bucket: Bucket) -> Callable[[Any], int]:
    """Return how to read the units used from a state, quickly: it is asked after every call."""
    if isinstance(bucket.strategy, FixedWindow):
        return itemgetter(2)
    if isinstance(bucket.strategy, SlidingWindow):
        return lambda state: state[0] - state[2]
    left = isinstance(bucket.strategy, Concurrency)  # the call that has just ended
    return lambda state: bucket.strategy.capacity - bucket.strategy.available(state, 0) + left
