"""Limits and books in one SQLite file: one connection, and one transaction for what ends a call."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from agent_rate_limiter import CostTracker, MultiProviderLimiter, Provider, RateLimiter
from agent_rate_limiter.engine.near import NearEngine
from agent_rate_limiter.stores.sqlite.store import SQLiteStore
from agent_rate_limiter.stores.sqlite.turns import Transaction
from agent_rate_limiter.testing import ManualClock
from tests.core.shared.one_file import DOLLAR, NOTHING, ONE, call, make, rows, spent, statements, store_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agents.db"


# ---------------------------------------------------------------- one transaction


def make_quiet(path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> MultiProviderLimiter:
    """No other thread writes: nothing is remembered of how large calls are, and nobody says that we are alive."""
    limiter = make(path, **options)
    limiter._calls.engine.hire = lambda: lambda **_: None  # type: ignore[attr-defined]
    monkeypatch.setattr(limiter._calls.learned, "learn", lambda *_: None)
    return limiter


def test_a_call_is_two_transactions(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = make_quiet(path, monkeypatch)
    for _ in range(5):
        call(limiter)
    with statements(store_of(limiter)) as said:
        call(limiter)
    assert said.count("COMMIT") == 2
    assert [text.split()[0] for text in said if "ledger" in text] == ["INSERT", "INSERT"]
    assert sum("SELECT" in text for text in said) == 0, "what nobody else can have changed is not read again"


def test_without_books_in_the_file_it_is_two_as_well(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = make_quiet(path, monkeypatch, ledger="memory://")
    for _ in range(5):
        call(limiter)
    with statements(store_of(limiter)) as said:
        call(limiter)
    assert said.count("COMMIT") == 2


SETTLES = """
import sys
from tests.core.shared.test_one_file import call, make
limiter = make(sys.argv[1])
done = 0
while True:
    call(limiter)
    done += 1
    sys.stdout.write(f"{done}\\n")
    sys.stdout.flush()
"""


def test_what_a_settle_that_returned_has_charged_and_booked_survives_kill_9(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SETTLES, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(200)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.readlines()
    acknowledged = int([line for line in told if line.endswith("\n")][-1])
    charged, booked = spent(make(path))
    assert acknowledged <= booked <= acknowledged + 1
    assert booked <= charged <= acknowledged + 1, "and what was admitted last is held until its process counts as dead"


def test_what_cannot_be_kept_is_settled_and_booked_later(
    path: Path, manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = make(path, clock=manual_clock)
    call(limiter)
    monkeypatch.setattr("agent_rate_limiter.ledger.statements.ADD_HOUR", "INSERT INTO nowhere VALUES (?)")
    call(limiter)
    monkeypatch.undo()
    assert spent(limiter) == (2, 2)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*), sum(requests) FROM ledger_rows").fetchone() == (2, 2)


def test_the_books_do_not_suffer_from_limits_that_cannot_be_settled(
    path: Path, manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = make(path, clock=manual_clock)
    call(limiter)
    held = limiter.acquire("p:m", ONE)
    step, failures = SQLiteStore._step, iter([ZeroDivisionError()])

    def fail(*parts: Any) -> Any:
        for failure in failures:
            raise failure
        return step(*parts)

    monkeypatch.setattr(SQLiteStore, "_step", fail)
    held.settle(DOLLAR)
    assert spent(limiter) == (2, 2), "the row by itself, and the settlement on the long way round"
    call(limiter)
    assert spent(limiter) == (3, 3)


def test_a_ledger_that_waits_for_the_disk_has_a_connection_of_its_own(path: Path) -> None:
    costs = CostTracker(f"sqlite:///{path}", synchronous="full")
    limiter = make(path, ledger=costs)
    call(limiter)
    assert costs._ledger._file is not store_of(limiter).file  # type: ignore[attr-defined]
    assert spent(limiter) == (1, 1)


def test_names_of_files_mean_the_same_to_both(tmp_path: Path) -> None:
    limiter = RateLimiter(rpm=10, store=f"sqlite:///{tmp_path}/my%20agents.db")
    limiter.acquire().settle()
    assert [file.name for file in tmp_path.glob("*.db")] == ["my agents.db"]


# ---------------------------------------------------------------- several limiters of one process


def test_who_waits_sees_what_another_limiter_of_the_process_gives_back(path: Path) -> None:
    one, other = (RateLimiter(concurrency=1, store=f"sqlite:///{path}", ledger="memory://") for _ in range(2))
    held = one.acquire()
    start = time.monotonic()
    timer = threading.Timer(0.04, held.settle)
    timer.start()
    other.acquire(timeout=5).settle()
    assert time.monotonic() - start < 0.8, "a head asks by itself once a second"
    timer.join()


def test_limiters_of_one_file_take_each_others_settlements_along(path: Path) -> None:
    one, other = make(path), make(path)
    assert store_of(one).file is store_of(other).file
    for _ in range(3):
        call(one)
        call(other)
    assert spent(one) == spent(other) == (6, 6)


def test_threads_of_one_limiter_lose_nothing(path: Path) -> None:
    limiter = make(path)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(50):
                call(limiter)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    assert spent(limiter) == (300, 300)


def test_tasks_of_one_limiter_lose_nothing(path: Path) -> None:
    limiter = make(path)

    async def work() -> None:
        for _ in range(10):
            (await limiter.acquire_async("p:m", ONE)).settle(DOLLAR)
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(work() for _ in range(10)))

    asyncio.run(main())
    assert spent(limiter) == (100, 100)


def test_a_loop_is_not_blocked_by_a_locked_file(path: Path) -> None:
    limiter = make(path, ledger="memory://")
    call(limiter)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        async def main() -> list[float]:
            asking = asyncio.ensure_future(limiter.acquire_async("p:m", NOTHING))
            ticks = [time.monotonic()]
            while len(ticks) < 20:
                await asyncio.sleep(0.001)
                ticks.append(time.monotonic())
            assert not asking.done()
            other.execute("ROLLBACK")
            (await asyncio.wait_for(asking, 5)).settle(DOLLAR)
            return ticks

        ticks = asyncio.run(main())
    assert max(b - a for a, b in pairwise(ticks)) < 0.5, "SQLite alone would have waited for 5 s"


def test_whoever_holds_a_slot_and_does_nothing_else_is_alive(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_rate_limiter.engine.exchange.MEMBER_LEASE", 900)
    one, other = (RateLimiter(concurrency=1, store=f"sqlite:///{path}", ledger="memory://") for _ in range(2))
    engine = cast("NearEngine", one._calls.engine)
    with one.reserve():
        deadline, last = time.monotonic() + 15, engine._beaten_at
        beats = 0
        while beats < 4:
            assert time.monotonic() < deadline
            beats += engine._beaten_at != last
            last = engine._beaten_at
            time.sleep(0.002)
            assert not other.try_acquire()


# ---------------------------------------------------------------- what is known is what is there


def test_what_others_write_is_seen(path: Path, manual_clock: ManualClock) -> None:
    limiter = make(path, clock=manual_clock)
    call(limiter)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("DELETE FROM limits_rows WHERE key LIKE 'bucket:%'")  # not by this library at all
    call(limiter)
    assert spent(limiter) == (1, 2)


def test_what_was_undone_is_forgotten(path: Path, manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = make(path, clock=manual_clock)
    call(limiter)
    exits = Transaction.__exit__

    def fail(self: Transaction, *_: Any) -> None:
        monkeypatch.undo()
        error = sqlite3.OperationalError("disk I/O error")
        exits(self, type(error), error, None)
        raise error

    monkeypatch.setattr(Transaction, "__exit__", fail)
    limiter.acquire("p:m", ONE).cancel()
    call(limiter)
    assert spent(limiter) == (2, 2)
    assert rows(path, "hold:%") == 0


@pytest.mark.parametrize("queued", [0, 1])
def test_the_line_of_a_dead_process_goes_when_it_is_seen_next(path: Path, queued: int) -> None:
    limiter = RateLimiter(rpm=10, store=f"sqlite:///{path}", ledger="memory://")
    limiter.acquire().settle()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        (key,) = other.execute("SELECT substr(key, 8) FROM limits_rows WHERE key LIKE 'bucket:%'").fetchone()
        line = '[0, 1, {}, {"dead": [1, 5, 0, 1, 3, 1000]}]'
        if queued:
            other.execute("INSERT INTO limits_rows VALUES ('line:' || ?, ?, 0)", (key, line))
            (head,) = other.execute("SELECT value FROM limits_rows WHERE key = 'head'").fetchone()
            clock, rules, _, *rest = json.loads(head)
            said = json.dumps([clock, rules, 1, *rest])
            other.execute("UPDATE limits_rows SET value = ? WHERE key = 'head'", (said,))
    limiter.acquire().settle()
    assert rows(path, "line:%") == 0
    assert limiter.try_acquire()


# ---------------------------------------------------------------- files of the version before

VERSION_1 = """
CREATE TABLE limits_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE limits_buckets (
    key TEXT PRIMARY KEY, rev INTEGER NOT NULL, state TEXT NOT NULL, expires INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX limits_buckets_expires ON limits_buckets (expires);
CREATE TABLE limits_lines (key TEXT PRIMARY KEY, line TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE limits_rules (key TEXT PRIMARY KEY, rule TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE limits_members (member TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE limits_holds (
    member TEXT, hold INTEGER, kept TEXT NOT NULL, PRIMARY KEY (member, hold)
) WITHOUT ROWID;
CREATE TABLE limits_texts (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE limits_claims (key TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO limits_meta VALUES ('schema', 1), ('clock', 1767225600000), ('rules', 0);
INSERT INTO limits_buckets VALUES ('p:m|2 at once', 0, '[2]', 999999);
INSERT INTO limits_members VALUES ('dead', 1767225605000), ('alive', 1767225700000);
INSERT INTO limits_holds VALUES ('dead', 1, '[1767225600000, [["p:m|2 at once", "c", 1]]]');
INSERT INTO limits_holds VALUES ('alive', 1, '[1767225600000, [["p:m|2 at once", "c", 1]]]');
"""


def test_a_file_of_version_1_is_brought_up_to_date_with_all_that_is_in_it(
    path: Path, manual_clock: ManualClock
) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)
    provider = Provider("p", {"m": {"concurrency": 2}})
    limiter = MultiProviderLimiter(
        [provider], store=f"sqlite:///{path}", clock=manual_clock, ledger="memory://", on_unknown_price="zero"
    )
    assert manual_clock.now() == 1_767_225_600_000
    assert not limiter.try_acquire("p:m"), "two are taken"
    manual_clock.advance(5.001)
    held = limiter.try_acquire("p:m")
    assert held, "one of them was a process's that died since"
    assert not limiter.try_acquire("p:m")
    with closing(sqlite3.connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {name for name in tables if name.startswith("limits_")} == {
        "limits_meta", "limits_rows", "limits_rules", "limits_texts", "limits_claims"
    }  # fmt: skip
