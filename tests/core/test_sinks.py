"""Whoever is to be told of an alert is told, off the calls' way; who fails or hangs holds up nobody else."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_rate_limiter import (
    Alert,
    ConfigError,
    MultiProviderLimiter,
    Usage,
    Webhook,
)
from agent_rate_limiter.alerts import Alerts
from agent_rate_limiter.alerts import lane as lane_module
from agent_rate_limiter.alerts import webhook as webhook_module
from agent_rate_limiter.events import AlertRaised
from agent_rate_limiter.testing import ManualClock
from tests.core.telling import Told, an_alert


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    return condition()


@pytest.mark.parametrize(
    "sink", [5, "https://hooks.slack.com/services/T0/B0/secret", [5], {"webhook": 1}, {}, {"a": 1}]
)
def test_nobody_who_could_be_told(sink: Any, manual_clock: ManualClock) -> None:
    with pytest.raises(ConfigError, match=r"on_alert|webhook is") as refused:
        Told(manual_clock, sink=sink)
    assert "secret" not in str(refused.value).partition("keys")[0]


def test_a_callback_that_fails_breaks_no_call(manual_clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    def fail(alert: Alert) -> None:
        raise RuntimeError(alert.name)

    told = Told(manual_clock, budget_limit=1, sink=fail)
    told.spend(0.9)
    assert caplog.messages[1:] == ["on_alert failed"]
    assert told.limiter.costs.total == 0.9
    assert (told.limiter.alerts.sent, told.limiter.alerts.failed) == (1, 1)
    assert repr(told.limiter.alerts) == "<Alerts: 1 sent, 1 failed, 0 dropped>"


def leave(_: Alert) -> None:
    sys.exit(3)


async def give_up(_: Alert) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("sink", [leave, give_up])
def test_a_callback_that_would_end_its_thread_is_told_of_the_next_alert_too(
    manual_clock: ManualClock, sink: Callable[[Alert], object]
) -> None:
    heard: list[Alert] = []
    told = Told(manual_clock, budget_limit=1, alert_threshold=(0.2, 0.5, 0.8), sink=[sink, heard.append])
    told.spend(0.3, 0.3, 0.3)
    assert [alert.threshold for alert in heard] == [0.2, 0.5, 0.8]
    assert (told.limiter.alerts.sent, told.limiter.alerts.failed) == (3, 3)


def test_whoever_hangs_holds_up_nobody_else(manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback that blocks, and a webhook whose server accepts and never answers."""
    monkeypatch.setattr(webhook_module, "_ATTEMPTS", 1)
    release, heard = threading.Event(), [0.0]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sinks: Any = [
            lambda _: release.wait(10),
            Webhook(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.2),
            lambda alert: heard.append(alert.threshold),
        ]
        limiter = MultiProviderLimiter(
            clock=manual_clock, budget_limit=1, on_unknown_price="zero", on_alert=sinks, alert_threshold=(0.5, 0.8)
        )
        limiter.acquire("p:m").settle(Usage(cost=0.6))
        limiter.acquire("p:m").settle(Usage(cost=0.3))
        assert eventually(lambda: heard == [0.0, 0.5, 0.8])
        assert not limiter.alerts.flush(0)
        release.set()
        assert limiter.alerts.flush()
    assert limiter.alerts.failed == 2  # the webhook, twice


def test_coroutines_loggers_and_several(manual_clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[tuple[str, Alert]] = []

    async def slowly(alert: Alert) -> None:
        await asyncio.sleep(0.01)
        heard.append(("async", alert))

    sinks: Any = [slowly, lambda alert: heard.append(("sync", alert)), logging.getLogger("ops")]
    told = Told(manual_clock, budget_limit=1, sink=sinks)
    told.spend(0.9)
    assert {who for who, _ in heard} == {"async", "sync"}
    assert [record.name for record in caplog.records] == ["agent_rate_limiter", "ops"]


def test_events_hear_first(manual_clock: ManualClock) -> None:
    heard: list[object] = []
    told = Told(manual_clock, budget_limit=1, sink=heard.append)
    told.limiter.events.subscribe(heard.append, AlertRaised)
    told.spend(0.9)
    event, alert = heard
    assert isinstance(event, AlertRaised)
    assert event.alert is alert


def test_without_a_callback_alerts_are_logged(manual_clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    limiter = MultiProviderLimiter(clock=manual_clock, budget_limit=1, on_unknown_price="zero")
    limiter.acquire("p:m").settle(Usage(cost=0.9))
    assert limiter.alerts.flush()
    assert len(caplog.messages) == 1


def test_calls_do_not_wait_for_whoever_is_told(manual_clock: ManualClock) -> None:
    release, entered = threading.Event(), threading.Event()

    def hang(alert: Alert) -> None:
        entered.set()
        release.wait(10)

    limiter = MultiProviderLimiter(clock=manual_clock, budget_limit=1, on_alert=hang, alert_threshold=(0.5, 0.8))
    limiter.acquire("p:m").settle(Usage(cost=0.6))
    assert entered.wait(5)
    limiter.acquire("p:m").settle(Usage(cost=0.3))
    assert not limiter.alerts.flush(0.01)
    release.set()
    assert limiter.alerts.flush()
    assert limiter.alerts.sent == 2


def test_too_many_are_dropped_counted_and_logged(
    manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lane_module, "_MOST", 2)
    release = threading.Event()
    alerts = Alerts(lambda _: release.wait(10))
    for number in range(6):
        alerts._outbox.put(an_alert("threshold"), f"k{number}", 10, 0)
        assert eventually(lambda: not alerts._outbox._first._items)  # handed over, the first is being told
        while number == 0 and not alerts._outbox._lanes[0][0]._busy:
            time.sleep(0.001)
    assert eventually(lambda: alerts.dropped == 3)
    assert [message for message in caplog.messages if "dropped" in message] == [
        "1 alerts dropped, as too many wait to be told. The last: b: $0.12 of $2.00 is used, past 50%.",
        "2 alerts dropped, as too many wait to be told. The last: b: $0.12 of $2.00 is used, past 50%.",
    ]
    release.set()
    assert alerts.flush()
    assert alerts.sent == 6  # the log has heard of all


def test_the_thread_ends_when_there_is_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "_IDLE", 0.01)
    heard: list[Alert] = []
    alerts = Alerts(heard.append)
    for number in range(2):
        alerts._outbox.put(an_alert("threshold"), f"k{number}", 10, 0)
        assert alerts.flush()
        assert eventually(lambda: not any(lane._thread for lane in alerts._outbox._all))
    assert len(heard) == 2


def test_a_program_that_can_start_no_thread_drops_alerts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    alerts = Alerts(print)
    alerts._outbox.put(an_alert("threshold"), "k", 10, 0)
    assert (alerts.dropped, alerts.sent, alerts.flush(0)) == (1, 0, True)


def test_where_no_more_threads_can_be_had_the_one_that_announces_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python 3.12 has it once a program ends."""
    heard: list[Alert] = []
    alerts = Alerts(heard.append)
    start = threading.Thread.start

    def only_the_first(thread: threading.Thread) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("can't create new thread at interpreter shutdown")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", only_the_first)
    alerts._outbox.put(an_alert("threshold"), "k", 10, 0)
    assert alerts.flush()
    assert len(heard) == 1


def test_the_end_of_a_program_waits_for_what_is_on_its_way(tmp_path: Path) -> None:
    """A program that ends right after the alert, which takes a moment to be told."""
    told = tmp_path / "told"
    program = f"""
import pathlib, time
from agent_rate_limiter import MultiProviderLimiter, Usage

def slowly(alert):
    time.sleep(0.05)
    pathlib.Path({str(told)!r}).write_text(str(alert))

limiter = MultiProviderLimiter(budget_limit=1, budget_period="total", on_alert=slowly, on_unknown_price="zero")
limiter.acquire("p:m").settle(Usage(cost=0.9))
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)
    assert told.read_text() == "budget $1.00 in total: $0.90 of $1.00 is used, past 80%."
