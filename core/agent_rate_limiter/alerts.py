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


class Alerts:
    """Watches budgets.

    Args:
        thresholds: a budget's limit → the shares at which to tell, rising.
        sink: whom to tell besides the log; its exceptions are logged, and never break a call.
    """

    def __init__(self, thresholds: dict[Limit, tuple[float, ...]], sink: Callable[[Alert], object] | None) -> None:
        self._thresholds = thresholds
        self._sink = sink
        self._told: dict[str, tuple[int, float]] = {}  # bucket → its window's end, the highest share told in it

    def check(self, path: Iterable[Bucket], now: int) -> None:
        """Look at the budgets that a call has drawn on."""
        for bucket in path:
            thresholds = self._thresholds.get(bucket.limit)
            if thresholds:
                self._check(bucket, thresholds, now)

    def _check(self, bucket: Bucket, thresholds: tuple[float, ...], now: int) -> None:
        capacity = bucket.strategy.capacity
        spent = capacity - bucket.strategy.available(bucket.state, now)
        passed = max((share for share in thresholds if spent >= share * capacity), default=0.0)
        window: int = bucket.state[1]
        told_in, told = self._told.get(bucket.key, (window, 0.0))
        if passed > (told if told_in == window else 0.0):
            self._told[bucket.key] = (window, passed)
            limit = bucket.limit
            dollars = from_units(limit.resource, spent)
            self._tell(Alert(limit.name, bucket.scope, passed, dollars, limit.amount, now / 1000))

    def _tell(self, alert: Alert) -> None:
        _log.warning("%s", alert)
        if self._sink is not None:
            try:
                self._sink(alert)
            except Exception:  # noqa: BLE001 - a user's code: it may do anything, but not break the call
                _log.exception("on_alert failed")
