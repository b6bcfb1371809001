"""Tell somebody before a budget is gone, once per threshold and window."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agent_rate_limiter.admission import Bucket
from agent_rate_limiter.limits import Limit, from_units

_log = logging.getLogger("agent_rate_limiter")


@dataclass(frozen=True)
class Alert:
    """A budget has passed one of its thresholds.

    Args:
        budget: its name.
        scope: whose it is; empty for everybody's.
        threshold: the share that was passed, 0 to 1.
        spent: dollars used or held by calls in flight.
        limit: dollars it allows.
        at: epoch seconds.
    """

    budget: str
    scope: str
    threshold: float
    spent: float
    limit: float
    at: float

    def __str__(self) -> str:
        """As one sentence."""
        who = f" ({self.scope})" if self.scope else ""
        return f"{self.budget}{who}: ${self.spent:,.2f} of ${self.limit:,.2f} is used, past {self.threshold:.0%}."


class Watch:
    """One budget that is watched.

    Args:
        bucket: the budget; a fixed window.
        thresholds: the shares at which to tell, rising.
    """

    __slots__ = ("_thresholds", "bucket", "due", "window")

    def __init__(self, bucket: Bucket, thresholds: tuple[float, ...]) -> None:
        self.bucket = bucket
        self._thresholds = thresholds
        self.window = 0  # when the window ends that was looked at last
        self.due: float = 0  # units at which to look again

    def passed(self, spent: int, window: int) -> float | None:
        """Return the highest threshold that was passed since the last look, if one was."""
        capacity = self.bucket.strategy.capacity
        if window != self.window:
            self.window, self.due = window, 0
        passed = [share for share in self._thresholds if self.due <= share * capacity <= spent]
        ahead = [share * capacity for share in self._thresholds if share * capacity > spent]
        self.due = min(ahead, default=float("inf"))
        return max(passed, default=None)


class Alerts:
    """Watches budgets.

    Args:
        thresholds: a budget's limit → the shares at which to tell, rising.
        sink: whom to tell besides the log; its exceptions are logged, and never break a call.
    """

    def __init__(self, thresholds: dict[Limit, tuple[float, ...]], sink: Callable[[Alert], object] | None) -> None:
        self._thresholds = thresholds
        self._sink = sink
        self._watches: dict[str, Watch] = {}

    def watched(self, path: Iterable[Bucket]) -> tuple[Watch, ...]:
        """Return the budgets on a path that somebody wants to hear of."""
        found: list[Watch] = []
        for bucket in path:
            thresholds = self._thresholds.get(bucket.limit)
            if thresholds and bucket.limit.strategy == "fixed_window":
                watch = self._watches.get(bucket.key)
                if watch is None or watch.bucket is not bucket:
                    watch = self._watches[bucket.key] = Watch(bucket, thresholds)
                found.append(watch)
        return tuple(found)

    def look(self, watch: Watch, now: int) -> None:
        """Tell if a threshold was passed."""
        _, window, used, held = watch.bucket.state
        share = watch.passed(used + held, window)
        if share is not None:
            limit = watch.bucket.limit
            dollars = from_units(limit.resource, used + held)
            self._tell(Alert(limit.name, watch.bucket.scope, share, dollars, limit.amount, now / 1000))

    def _tell(self, alert: Alert) -> None:
        _log.warning("%s", alert)
        if self._sink is not None:
            try:
                self._sink(alert)
            except Exception:  # noqa: BLE001 - a user's code: it may do anything, but not break the call
                _log.exception("on_alert failed")
