"""Alerts on their way: a queue and a thread for each sink, off the calls' way."""

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
from functools import partial
from threading import Lock
from typing import Any, NamedTuple, cast
from weakref import WeakSet

from agent_rate_limiter.alerts.alert import Alert
from agent_rate_limiter.alerts.lane import Lane
from agent_rate_limiter.alerts.webhook import Webhook
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.forks import around_fork

Sink = Callable[[Alert], object] | Webhook | logging.Logger
"""Whom an alert is told to; a callable may be a coroutine function."""
Sinks = Sink | Mapping[str, Any] | Sequence[Sink | Mapping[str, Any]] | None
"""One or several; None is nobody. A mapping is a Webhook, as files write it."""

_LONGEST = 30.0
"""Seconds that a coroutine may take."""
_AT_EXIT = 3.0
"""Seconds that the end of the program waits for what is on its way."""

_log = logging.getLogger("agent_rate_limiter")


class _Job(NamedTuple):
    """One alert on its way; `attempt` counts for a webhook."""

    alert: Alert
    claim: tuple[str, int, int]
    message_id: str
    attempt: int = 1


class Outbox:
    """Tells alerts to sinks. A sink that fails is logged and counted, one that hangs holds up only itself.

    Args:
        sinks: whom to tell, besides the log.

    Attributes:
        claim: says whether this process is the one to tell an alert: (key, until, now) → bool.
        heard: is told each alert first; the limiter's events.
        sent: alerts that were told.
        failed: how often a sink failed for good.
        dropped: alerts that somebody was never told, as too many waited.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.claim: Callable[[str, int, int], bool] | None = None
        self.heard: Callable[[Alert], None] | None = None
        self.sent = 0
        self.failed = 0
        self.dropped = 0
        self._count = Lock()
        self._first = Lane(self._announce)
        self._lanes = [(Lane(partial(self._tell, sink)), sink) for sink in sinks]
        _outboxes.add(self)

    def begin(self) -> None:
        """Begin with nothing on its way; in the child of a fork, too: what was on its way is the parent's to tell."""
        self._count = Lock()
        for lane in self._all:
            lane.begin()

    @property
    def _all(self) -> list[Lane[_Job]]:
        return [self._first, *(lane for lane, _ in self._lanes)]

    def put(self, alert: Alert, key: str, window: int, now: int) -> None:
        """Queue an alert. Never waits.

        Args:
            alert: what to tell.
            key: names it among all processes.
            window: until when nobody else shall tell it, in epoch milliseconds.
            now: epoch milliseconds.
        """
        job = _Job(alert, (key, window, now), f"msg_{os.urandom(16).hex()}")
        try:
            queued = self._first.put(job)
        except RuntimeError:  # no thread can be had
            queued = False
        if not queued:
            self._drop(alert)

    def flush(self, timeout: float) -> bool:
        """Wait until nothing is on its way, at most `timeout` seconds; say whether nothing is."""
        end = time.monotonic() + timeout
        return all(lane.wait(end) for lane in self._all)

    def _drop(self, alert: Alert) -> None:
        with self._count:
            self.dropped += 1
            dropped = self.dropped
        if dropped & (dropped - 1) == 0:  # the 1st, 2nd, 4th, 8th, …
            _log.error("%d alerts dropped, as too many wait to be told. The last: %s", dropped, alert)

    # -- in the threads ------------------------------------------------------------------------------------

    def _announce(self, job: _Job) -> None:
        """Tell the log and the events, then hand it to everybody's own thread."""
        if not self._claimed(job):
            return
        self.sent += 1
        _log.warning("%s", job.alert)
        if self.heard is not None:
            self._call(self.heard, job.alert)
        for lane, sink in self._lanes:
            self._hand(job, lane, sink)

    def _hand(self, job: _Job, lane: Lane[_Job], sink: Sink) -> None:
        try:
            if not lane.put(job):
                self._drop(job.alert)
        except RuntimeError:  # the program ends: no more threads, but this one still runs
            self._tell(sink, job)

    def _claimed(self, job: _Job) -> bool:
        try:
            return self.claim is None or self.claim(*job.claim)
        except Exception:  # noqa: BLE001 - a store that is lost: better told twice than never
            _log.debug("The store cannot say whether an alert was told before", exc_info=True)
            return True

    def _tell(self, sink: Sink, job: _Job) -> None:
        if isinstance(sink, Webhook):
            self._post(sink, job)
        elif isinstance(sink, logging.Logger):
            self._call(partial(sink.warning, "%s"), job.alert)
        else:
            self._call(sink, job.alert)

    def _call(self, sink: Callable[[Alert], object], alert: Alert) -> None:
        try:
            result = sink(alert)
            if inspect.isawaitable(result):
                asyncio.run(_ended(result))
        except BaseException:  # noqa: BLE001 - a user's code: it may do anything, and exit() is not for this thread
            self._fail()
            _log.exception("on_alert failed")

    def _fail(self) -> None:
        with self._count:
            self.failed += 1

    def _post(self, webhook: Webhook, job: _Job) -> None:
        failure = webhook.post(job.alert, job.message_id, time.time())
        if failure is None:
            return
        after = failure.retry_after(job.attempt)
        if after is None or not self._again(webhook, job._replace(attempt=job.attempt + 1), after):
            self._fail()
            _log.error("on_alert: %r failed: %s. The alert was: %s", webhook, failure, job.alert)

    def _again(self, webhook: Webhook, job: _Job, after: float) -> bool:
        """Queue another attempt, if there is room and time for one."""
        lane = next(lane for lane, sink in self._lanes if sink is webhook)
        try:
            return lane.put(job, after)
        except RuntimeError:
            return False


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


def _nothing() -> None:
    """Alerts that are under way stay with the parent."""


around_fork(_nothing, _nothing, _after_fork)
