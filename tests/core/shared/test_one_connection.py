"""The connection to a SQLite file: used once at a time, closed before a fork, and by nobody too late."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent_rate_limiter.stores.sqlite.file import SQLiteFile
from agent_rate_limiter.stores.sqlite.store import SQLiteStore
from tests.core.shared.one_file import DOLLAR, ONE, call, make, spent, store_of

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agents.db"


def test_a_finalizer_in_the_middle_of_a_step_waits_for_its_end(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may run anywhere: inside a statement, too. It neither uses nor closes what this thread is using."""
    limiter = make(path)
    call(limiter)
    dropped = [limiter.acquire("p:m", ONE) for _ in range(2)]
    step = SQLiteStore._step

    def collecting(self: SQLiteStore, *parts: Any) -> Any:
        found = step(self, *parts)
        if dropped:
            dropped.pop()
            gc.collect()
            limiter._calls.engine.advance()
            limiter._calls.engine.pump()  # type: ignore[attr-defined]
            self.close()
        return found

    monkeypatch.setattr(SQLiteStore, "_step", collecting)
    for _ in range(2):
        call(limiter)
    deadline = time.monotonic() + 5
    while spent(limiter) != (5, 5):
        assert time.monotonic() < deadline
        limiter._calls.engine.pump()  # type: ignore[attr-defined]
    assert "on_store_error" not in caplog.text, "the store was lost"


def test_the_same_thread_is_not_let_in_twice(path: Path) -> None:
    store = SQLiteStore(path)
    with store.file.transaction(store, 1) as connection:
        connection.execute("INSERT INTO limits_texts VALUES ('key', 'text')")
        with (
            pytest.raises(sqlite3.OperationalError, match="locked by this very thread"),
            store.file.transaction(store, 1),
        ):
            raise AssertionError
        store.close()
    assert store.recall("key") == "text"


def test_another_thread_waits_no_longer_than_it_may(path: Path) -> None:
    store = SQLiteStore(path)
    found: list[object] = []

    def enter() -> None:
        try:
            with store.file.transaction(store, 0.01):
                found.append("let in")
        except sqlite3.OperationalError as error:
            found.append(str(error))

    with store.file.transaction(store, 1):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join(5)
    assert found == ["database is locked by another thread"]


def in_child(work: Callable[[], bool]) -> int:
    """Fork; return the child's number."""
    child = os.fork()
    if child == 0:
        faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)  # a child that hangs says where, and ends
        signal.alarm(20)
        try:
            os._exit(0 if work() else 1)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(2)
    return child


@FORKS
def test_a_child_has_locks_of_its_own(path: Path) -> None:
    """With its parent's connection it takes SQLite's locks for its own, and loses the log to the last who closes."""
    limiter = make(path)
    call(limiter)
    go, done = os.pipe(), os.pipe()

    def work() -> bool:
        call(limiter)  # opened in the child
        os.write(done[1], b".")
        os.read(go[0], 1)
        call(limiter)
        return spent(limiter) == (3, 3)

    child = in_child(work)
    os.close(done[1])
    assert os.read(done[0], 1), "the child has died"
    store_of(limiter).close()  # were the child not known to others, this would end the file's log under its feet
    limiter.costs.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() is not None
    os.write(go[1], b".")
    assert os.waitpid(child, 0)[1] == 0
    assert spent(limiter) == (3, 3)


@FORKS
def test_a_fork_waits_for_the_step_of_another_thread(path: Path) -> None:
    limiter = make(path)
    call(limiter)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            call(limiter)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()

    def live() -> bool:
        limiter.acquire("p:m", ONE, timeout=5).settle(DOLLAR)
        return True

    children = [in_child(live) for _ in range(5)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 5
    stop.set()
    for thread in threads:
        thread.join(10)
    charged, booked = spent(limiter)
    assert charged == booked


@FORKS
def test_a_fork_waits_for_a_connection_that_is_collected_in_another_thread(path: Path) -> None:
    """Its thread is inside of SQLite meanwhile, and has locks that the child would wait for, for ever."""
    closing, closed = threading.Event(), threading.Event()

    class Slow:
        def close(self) -> None:
            closing.set()
            time.sleep(0.05)
            closed.set()

    files: list[Any] = [SQLiteFile(path)]
    files[0]._connection = Slow()
    collecting = threading.Thread(target=files.clear)
    collecting.start()
    assert closing.wait(5)
    assert os.waitpid(in_child(closed.is_set), 0)[1] == 0
    collecting.join(5)


def test_a_file_is_one_object_as_long_as_somebody_uses_it(path: Path) -> None:
    one, other = SQLiteStore(path), SQLiteStore(path.parent / "." / path.name)
    assert one.file is other.file
    assert one.file is not SQLiteFile.shared(path, "full")


STRESS = """
import gc, os, sys, threading, time, traceback
from tests.core.shared.one_file import call, make
from agent_rate_limiter import Estimate
gc.set_threshold(50, 2, 2)
limiter, other = make(sys.argv[1]), make(sys.argv[1])
for warm in (limiter, other):  # a child hangs if its parent was importing
    call(warm)
    warm.snapshot()
    warm.costs.report()
end = time.monotonic() + float(sys.argv[2])

class Ring:  # finalizers that may run in the middle of anything
    def __init__(self, held):
        self.held, self.me = held, self

def calls(limiter):
    while time.monotonic() < end:
        call(limiter)
        Ring(limiter.acquire("p:m", Estimate(input_tokens=1, max_output_tokens=1)))

def closes():
    while time.monotonic() < end:
        limiter._calls.engine._shared.close()
        other.costs.close()
        limiter.costs.report()
        other.snapshot()
        time.sleep(0.001)

def forks():
    while time.monotonic() < end:
        child = os.fork()
        if not child:
            try:
                call(limiter)
                call(other)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        time.sleep(0.02)

works = [lambda: calls(limiter), lambda: calls(other), lambda: calls(limiter), closes]
daemons = sys.argv[3] == "daemons"
threads = [threading.Thread(target=work, daemon=daemons) for work in works]
for thread in threads:
    thread.start()
if daemons:
    time.sleep(0.2)
    sys.exit(0)
if hasattr(os, "fork"):
    forks()
for thread in threads:
    thread.join()
limiter.close()
other.close()
gc.collect()
written = other.costs.total, limiter.costs.total  # each writes what was dropped
assert limiter.costs.total == other.costs.total
"""


@pytest.mark.parametrize(("seconds", "kind", "times"), [(1.5, "threads", 1), (60, "daemons", 3)])
def test_threads_forks_finalizers_and_the_end_do_not_crash(path: Path, seconds: float, kind: str, times: int) -> None:
    """Each would, with a connection that is used twice at once, closed while in use, or taken across a fork."""
    for _ in range(times):
        found = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", STRESS, str(path), str(seconds), kind],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (found.returncode, found.stderr) == (0, "")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
