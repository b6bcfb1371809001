"""Alerts on their way: a bounded queue, and one thread that tells everybody, off the calls' way."""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

import asyncio
import atexit
import inspect
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import count
from threading import Condition, Thread
from typing import Any, NamedTuple, cast
from weakref import WeakSet

from agent_rate_limiter.alerts.alert import Alert
from agent_rate_limiter.alerts.webhook import Webhook
from agent_rate_limiter.errors import ConfigError

Sink = Callable[[Alert], object] | Webhook | logging.Logger
"""Whom an alert is told to; a callable may be a coroutine function."""
Sinks = Sink | Mapping[str, Any] | Sequence[Sink | Mapping[str, Any]] | None
"""One or several; None is nobody. A mapping is a Webhook, as files write it."""

_MOST = 1_000
"""Alerts and retries that may wait; more are dropped."""
_IDLE = 5.0
"""Seconds after which a thread with nothing to tell ends."""
_LONGEST = 30.0
"""Seconds that a coroutine may take."""
_AT_EXIT = 3.0
"""Seconds that the end of the program waits for what is on its way."""

_log = logging.getLogger("agent_rate_limiter")


class _Job(NamedTuple):
    """One alert for one sink; for all of them while `sink` is None."""

    due: float  # seconds of the monotonic clock
    number: int
    alert: Alert
    claim: tuple[str, int, int]
    message_id: str
    sink: Webhook | None = None
    attempt: int = 1


class Outbox:
    """Tells alerts to sinks. A sink that fails is logged and counted; it never breaks a call.

    Args:
        sinks: whom to tell, besides the log.

    Attributes:
        claim: says whether this process is the one to tell an alert: (key, until, now) → bool.
        heard: is told each alert first; the limiter's events.
        sent: alerts that were told.
        failed: how often a sink failed for good.
        dropped: alerts that were never told, as too many waited.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.claim: Callable[[str, int, int], bool] | None = None
        self.heard: Callable[[Alert], None] | None = None
        self.sent = 0
        self.failed = 0
        self.dropped = 0
        self._sinks = sinks
        self._number = count().__next__
        self.begin()
        _outboxes.add(self)

    def begin(self) -> None:
        """Begin with nothing on its way; in the child of a fork, too: what was on its way is the parent's to tell."""
        self._changed = Condition()
        self._jobs: list[_Job] = []
        self._thread: Thread | None = None
        self._busy = False

    def put(self, alert: Alert, key: str, window: int, now: int) -> None:
        """Queue an alert. Never waits.

        Args:
            alert: what to tell.
            key: names it among all processes.
            window: until when nobody else shall tell it, in epoch milliseconds.
            now: epoch milliseconds.
        """
        self._queue(_Job(0.0, self._number(), alert, (key, window, now), f"msg_{os.urandom(16).hex()}"))

    def flush(self, timeout: float) -> bool:
        """Wait until nothing is on its way, at most `timeout` seconds; say whether nothing is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs and not self._busy, timeout)

    def _queue(self, job: _Job) -> None:
        with self._changed:
            queued = len(self._jobs) < _MOST and self._working()
            if queued:
                heappush(self._jobs, job)
                self._changed.notify_all()
        if not queued:
            self.dropped += 1
            if self.dropped & (self.dropped - 1) == 0:  # the 1st, 2nd, 4th, 8th, …
                _log.error("%d alerts dropped, as too many wait to be told. The last: %s", self.dropped, job.alert)

    def _working(self) -> bool:
        """Whether there is a thread; it is made when it is needed."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = Thread(target=self._work, name="agent-rate-limiter-alerts", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the program ends, or has too many
                return False
        return True

    # -- in the thread -------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._tell(job)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _next(self) -> _Job | None:
        """Return what is due, once it is; None when there has been nothing to do for a while."""
        with self._changed:
            idle_since = time.monotonic()
            while True:
                now = time.monotonic()
                if self._jobs and self._jobs[0].due <= now:
                    self._busy = True
                    return heappop(self._jobs)
                if not self._jobs and now - idle_since >= _IDLE:
                    self._thread = None
                    return None
                self._changed.wait(self._jobs[0].due - now if self._jobs else _IDLE)

    def _tell(self, job: _Job) -> None:
        if job.sink is not None:
            self._post(job, job.sink)
            return
        if not self._claimed(job):
            return
        self.sent += 1
        _log.warning("%s", job.alert)
        if self.heard is not None:
            self._call(job.alert, self.heard)
        for sink in self._sinks:
            if isinstance(sink, Webhook):
                self._post(job, sink)
            else:
                self._call(job.alert, sink)

    def _claimed(self, job: _Job) -> bool:
        try:
            return self.claim is None or self.claim(*job.claim)
        except Exception:  # noqa: BLE001 - a store that is lost: better told twice than never
            _log.debug("The store cannot say whether an alert was told before", exc_info=True)
            return True

    def _call(self, alert: Alert, sink: Callable[[Alert], object] | logging.Logger) -> None:
        try:
            if isinstance(sink, logging.Logger):
                sink.warning("%s", alert)
                return
            result = sink(alert)
            if inspect.isawaitable(result):
                asyncio.run(_ended(result))
        except Exception:  # noqa: BLE001 - a user's code: it may do anything
            self.failed += 1
            _log.exception("on_alert failed")

    def _post(self, job: _Job, webhook: Webhook) -> None:
        failure = webhook.post(job.alert, job.message_id, time.time())
        if failure is None:
            return
        after = failure.retry_after(job.attempt)
        if after is None:
            self.failed += 1
            _log.error("on_alert: %r failed: %s. The alert was: %s", webhook, failure, job.alert)
            return
        due = time.monotonic() + after
        self._queue(job._replace(due=due, number=self._number(), sink=webhook, attempt=job.attempt + 1))


async def _ended(result: Awaitable[object]) -> None:
    await asyncio.wait_for(result, _LONGEST)


def sinks_of(sinks: Sinks) -> tuple[Sink, ...]:
    """Check `on_alert`, and return whom it names.

    Raises:
        ConfigError: somebody cannot be told.
    """
    if sinks is None:
        return ()
    several = cast("Sequence[object]", sinks) if isinstance(sinks, (list, tuple)) else [sinks]
    return tuple(map(_sink, several))


def _sink(sink: object) -> Sink:
    if isinstance(sink, Mapping):
        return Webhook.of(cast("Mapping[str, Any]", sink))
    if isinstance(sink, (Webhook, logging.Logger)) or callable(sink):
        return sink
    what = "text" if isinstance(sink, str) else repr(sink)  # it may be a webhook's secret address
    raise ConfigError(f"on_alert is {what}: give a function that takes an Alert, a Webhook(url), a Logger, or several.")


_outboxes: WeakSet[Outbox] = WeakSet()


@atexit.register
def _flush_all() -> None:
    end = time.monotonic() + _AT_EXIT
    for outbox in list(_outboxes):
        outbox.flush(max(0.0, end - time.monotonic()))


def _after_fork() -> None:
    for outbox in list(_outboxes):
        outbox.begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
