"""A ledger whose file cannot be written for a while: calls go on, and nothing is missing afterwards."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from agent_rate_limiter import CostTracker, Usage
from agent_rate_limiter.testing import ManualClock
from tests.core.ledger.books import MILLION, count


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Somebody else writes for as long as the block lasts."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@pytest.fixture
def impatient(costs: CostTracker, monkeypatch: pytest.MonkeyPatch) -> CostTracker:
    """It waits for others for a moment only."""
    monkeypatch.setattr("agent_rate_limiter.ledger.sqlite._PATIENCE", 0.01)
    costs.close()
    return costs


def test_calls_go_on_while_the_file_is_locked(
    impatient: CostTracker,
    manual_clock: ManualClock,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They wait in memory, it is said once, and nothing is missing afterwards."""
    monkeypatch.setattr("agent_rate_limiter.cost_tracker._SOON", 10)
    costs = impatient
    with locked(path):
        for number in range(3):
            costs.record("p:a", MILLION, agent=number)
        assert count(path) == 0
    costs.record("p:a", MILLION, agent=3)
    assert count(path) == 0  # it is not tried on every call: that may take a second
    manual_clock.advance(5)
    costs.record("p:a", MILLION, agent=4)
    assert count(path) == 5
    assert [row["labels"] for row in reversed(costs.rows().rows)] == [{"agent": str(number)} for number in range(5)]
    assert costs.total == 5
    waits, is_back = caplog.records
    assert waits.levelno == logging.ERROR
    assert waits.getMessage().replace(str(path), "FILE") == (
        "The ledger in 'FILE' cannot be used: database is locked. Another process keeps it locked: "
        "end its transaction, or use another file. "
        "1 calls wait in memory until they can be written."
    )
    assert is_back.getMessage() == "The ledger can be written again; nothing that waited is missing."


def test_a_lock_that_is_soon_gone_is_no_word_worth(
    impatient: CostTracker, manual_clock: ManualClock, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An event loop waits for no lock, so it often meets one."""
    for seconds, said in ((0.5, 0), (2.0, 2)):
        with locked(path):
            impatient.record("p:a", MILLION)
            manual_clock.advance(seconds)
            impatient.record("p:a", MILLION)
        impatient.add_up()
        assert len(caplog.records) == said
    assert count(path) == 4


def test_the_longest_that_waits_is_lost_at_last_and_that_is_said(
    impatient: CostTracker,
    manual_clock: ManualClock,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agent_rate_limiter.cost_tracker._UNWRITTEN", 2)
    with locked(path):
        for number in range(3):
            impatient.record("p:a", MILLION, agent=number)
            manual_clock.advance(5)
    assert [row["labels"] for row in impatient.rows()] == [{"agent": "2"}, {"agent": "1"}]
    assert "2 calls wait in memory; the oldest 1 are lost." in caplog.text


def test_nothing_is_half_written(costs: CostTracker, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row whose sums cannot be added is not there either, nor is its account."""
    costs.record("p:a", MILLION, agent="x")
    monkeypatch.setattr("agent_rate_limiter.ledger.statements.ADD_HOUR", "INSERT INTO nowhere VALUES (?)")
    costs.record("p:a", MILLION, agent="y")
    assert (count(path), count(path, "ledger_accounts")) == (1, 1)
    monkeypatch.undo()
    costs.add_up()
    costs.record("p:a", MILLION, agent="y")
    assert (count(path), costs.total, len(costs.report(("agent",)))) == (3, 3.0, 2)


def test_an_error_that_we_have_no_words_for(path: Path, costs: CostTracker, caplog: pytest.LogCaptureFixture) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TRIGGER no BEFORE INSERT ON ledger_rows BEGIN SELECT RAISE(ABORT, 'not here'); END")
    connection.close()
    costs.record("p:a", MILLION)
    assert "not here. See SQLite's documentation for this error. 1 calls wait in memory" in caplog.text


def test_what_waits_is_written_when_the_program_ends(path: Path) -> None:
    program = """
import sqlite3, sys
from agent_rate_limiter import CostTracker, Price, Usage
from agent_rate_limiter.ledger import sqlite
sqlite._PATIENCE = 0.01
costs = CostTracker("sqlite:///" + sys.argv[1], prices={"p:a": Price(1, 1)})
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
costs.record("p:a", Usage(input_tokens=1_000_000))
other.execute("ROLLBACK")
"""
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, timeout=60, capture_output=True)
    assert count(path) == 1


def test_a_loop_is_held_up_by_a_locked_file_for_a_moment_only(path: Path, costs: CostTracker) -> None:
    costs.record("p:a", MILLION)

    async def main() -> float:
        began = time.monotonic()
        for number in range(4):
            costs.record("p:a", MILLION, agent=number)
        return time.monotonic() - began

    with locked(path):
        assert asyncio.run(main()) < 0.5, "a thread waits for a second"
    assert costs.total == 5


def test_whoever_finds_the_books_in_use_has_his_row_written_by_who_uses_them(costs: CostTracker, path: Path) -> None:
    write, ledger = costs._ledger.write, costs._ledger
    begun, go_on = Event(), Event()

    def slowly(*arguments: Any) -> None:
        begun.set()
        assert go_on.wait(10)
        write(*arguments)

    async def main() -> None:
        costs.record("p:a", MILLION, agent="loop")
        go_on.set()

    ledger.write = slowly  # type: ignore[method-assign, assignment]
    thread = Thread(target=costs.record, args=("p:a", MILLION))
    thread.start()
    assert begun.wait(10)
    asyncio.run(main())  # it does not wait for the thread
    thread.join(10)
    assert count(path) == 2


def test_numbers_that_are_nonsense_are_kept_as_far_as_the_file_goes(costs: CostTracker) -> None:
    assert costs.record("p:a", Usage(input_tokens=10**30, cache_write_tokens=10**25)) > 0
    costs.record("q:a", Usage(cost=1e15))
    assert [row["input_tokens"] for row in costs.rows()] == [0, 1 << 53]
    assert costs.total == 2 * (1 << 53) / 10**9


def test_whatever_goes_wrong_with_the_books_breaks_no_call(
    costs: CostTracker, caplog: pytest.LogCaptureFixture
) -> None:
    costs.record("p:a", MILLION, agent="x")
    costs.record("p:\udfff", Usage(cost=1.0))  # half a character
    assert costs.total == 1
    assert "1 calls cannot be written to the ledger, and are lost to it." in caplog.text
