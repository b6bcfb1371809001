"""Tell somebody before a limit is used up: what is watched, and whom it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock
from weakref import WeakValueDictionary

from agent_rate_limiter.admission import Bucket, Refusal
from agent_rate_limiter.alerts.alert import Alert
from agent_rate_limiter.alerts.outbox import Outbox, Sink, Sinks, sinks_of
from agent_rate_limiter.alerts.watch import Watch
from agent_rate_limiter.alerts.webhook import Webhook
from agent_rate_limiter.checks import check_seconds
from agent_rate_limiter.engine.port import Store
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.strategies import Gate

__all__ = ["Alert", "Alerts", "Sink", "Sinks", "Watch", "Webhook"]


class Alerts:
    """Watches limits, and tells of each alert once, among all processes that share a store.

    Args:
        sinks: whom to tell besides the log; see `on_alert` of MultiProviderLimiter.
        budgets: the shares at which to tell of limits on dollars that state none themselves, rising.
        others: the same for limits on anything else.

    Attributes:
        silent: nothing is watched any more, as of the next route that is compiled; for what is only tried out.

    Raises:
        ConfigError: a sink is none.
    """

    def __init__(self, sinks: Sinks = None, budgets: tuple[float, ...] = (), others: tuple[float, ...] = ()) -> None:
        self.silent = False
        self._budgets = budgets
        self._others = others
        self._outbox = Outbox(sinks_of(sinks))
        self._watches: WeakValueDictionary[str, Watch] = WeakValueDictionary()
        self._lock = Lock()

    def keep_in(self, store: Store) -> None:
        """Let a store remember what was told, across processes and restarts as far as it reaches."""
        self._outbox.claim = store.first

    def hear(self, listener: Callable[[Alert], None]) -> None:
        """Let the limiter's events hear of each alert, too."""
        self._outbox.heard = listener

    def watched(self, path: Iterable[Bucket]) -> tuple[Watch, ...]:
        """Return the limits on a path that somebody wants to hear of."""
        found: list[Watch] = []
        for bucket in () if self.silent else path:
            thresholds = self._thresholds(bucket)
            if thresholds:
                watch = self._watches.get(bucket.key)
                if watch is None or watch.bucket is not bucket:
                    watch = self._watches[bucket.key] = Watch(bucket, thresholds)
                found.append(watch)
        return tuple(found)

    def look(self, watch: Watch, now: int) -> None:
        """Tell what there is to tell of a limit."""
        with self._lock:
            self._tell(watch, watch.look(now))

    def refused(self, watched: Iterable[Watch], refusal: Refusal, now: int) -> None:
        """Tell if a budget that refused a call for good is used up."""
        if refusal.never or refusal.may_free or refusal.bucket.limit.resource is not Resource.COST:
            return
        for watch in watched:
            if watch.bucket is refusal.bucket:
                with self._lock:
                    self._tell(watch, watch.refused(now))

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything was told, and say whether it was.

        Args:
            timeout: seconds.

        Raises:
            ConfigError: that is no finite number of at least 0.
        """
        check_seconds("timeout", timeout)
        return self._outbox.flush(timeout)

    @property
    def sent(self) -> int:
        """Alerts that were told."""
        return self._outbox.sent

    @property
    def failed(self) -> int:
        """How often somebody could not be told, after all retries."""
        return self._outbox.failed

    @property
    def dropped(self) -> int:
        """Alerts that were never told, as too many waited."""
        return self._outbox.dropped

    def _thresholds(self, bucket: Bucket) -> tuple[float, ...]:
        limit = bucket.limit
        if limit.thresholds is not None or isinstance(bucket.strategy, Gate):
            return limit.thresholds or ()
        return self._budgets if limit.resource is Resource.COST else self._others

    def _tell(self, watch: Watch, alerts: list[Alert]) -> None:
        for alert in alerts:
            key = f"alert|{watch.bucket.key}|{alert.kind} {alert.threshold:g}|{watch.window}"
            self._outbox.put(alert, key, watch.window, round(alert.at * 1000))

    def __repr__(self) -> str:
        """Count."""
        return f"<Alerts: {self.sent} sent, {self.failed} failed, {self.dropped} dropped>"
