"""SQLite itself: what may be wrong with its file, and who holds it up."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from agent_rate_limiter import (
    ConfigError,
    RateLimiter,
    StoreUnavailable,
)
from agent_rate_limiter.engine.port import SharedStore
from agent_rate_limiter.testing import ManualClock


def other_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE limits_rows (name TEXT)")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_bytes(b"not a database at all" * 100), "Move that file away"),
        (lambda path: path.parent.joinpath("limits.db").mkdir(), "name a file"),
        (lambda path: None, "Make its directory"),
        (other_tables, "name another file"),
    ],
)
def test_what_is_wrong_with_the_file_is_said(spoil: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    spoil(tmp_path / "limits.db")
    path = tmp_path / ("limits.db" if says != "Make its directory" else "missing/limits.db")
    with pytest.raises((StoreUnavailable, ConfigError), match=says):
        RateLimiter(rpm=1, store=f"sqlite:///{path}", ledger="memory://").acquire()


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "limits.db"
    RateLimiter(rpm=1, store=f"sqlite:///{path}").acquire().settle()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE limits_meta SET value = 99 WHERE name = 'schema'")
    connection.close()
    with pytest.raises(StoreUnavailable, match="of version 99, this library knows 2: upgrade"):
        RateLimiter(rpm=1, store=f"sqlite:///{path}", ledger="memory://").acquire()


def test_a_locked_file_is_unavailable_not_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_rate_limiter.stores.sqlite.store._BUSY", 0.02)
    path = tmp_path / "limits.db"
    limiter = RateLimiter(rpm=5, store=f"sqlite:///{path}", ledger="memory://")
    limiter.acquire().settle()
    locked = sqlite3.connect(path, isolation_level=None)
    locked.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable, match="Another process keeps it locked"):
        limiter.acquire()
    locked.close()


def test_state_survives_the_process(tmp_path: Path, manual_clock: ManualClock) -> None:
    for left in (2, 1, 0):
        limiter = RateLimiter("3 requests/day", store=f"sqlite:///{tmp_path / 'limits.db'}", clock=manual_clock)
        limiter.acquire().settle()
        assert limiter.snapshot().limits[0].available == left


@pytest.mark.parametrize(
    ("uri", "fix"),
    [
        ("sqlite://agents.db", "write three slashes before a path, 'sqlite:///agents.db'"),
        ("sqlite:///", "name a file"),
        ("sqlite:///:memory:", "name a file"),
        ("sqlite:////tmp/", "name a file"),
        ("sqlite:////tmp", "name a file"),
        ("sqlite:///a%00b.db", "name a file"),
        ("sqlite:///agents.db?timeout=5", "a file takes no parameters; a '?' in its name is written %3F"),
    ],
)
@pytest.mark.parametrize("field", ["store", "ledger"])
def test_what_is_no_file_is_refused(uri: str, fix: str, field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field} is '{re.escape(uri)}': {re.escape(fix)}"):
        RateLimiter(rpm=1, **{field: uri})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a b", "100%25", "%3F", "#1", "ünï", "C%3A%5Cagents", "~me"])
def test_odd_names_are_files(name: str, tmp_path: Path) -> None:
    RateLimiter(rpm=1, store=f"sqlite:///{tmp_path}/{name}.db").acquire().settle()
    assert [file.name for file in tmp_path.glob("*.db")] == [f"{unquote(name)}.db"]


def test_home_is_where_it_is_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    RateLimiter(rpm=1, store="sqlite:///~/limits.db").acquire().settle()
    assert (tmp_path / "limits.db").exists()


def test_a_name_that_is_too_long_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="unable to open"):
        RateLimiter(rpm=1, store=f"sqlite:///{tmp_path}/{'x' * 300}.db")


def test_a_call_in_a_thread_waits_no_longer_than_its_timeout_for_a_locked_file(tmp_path: Path) -> None:
    path = tmp_path / "limits.db"
    limiter = RateLimiter(rpm=100, store=f"sqlite:///{path}", ledger="memory://")
    limiter.acquire().settle()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="did not answer within the call's timeout"):
            limiter.acquire(timeout=0.1)
        assert time.monotonic() - began < 2.5, "the store is waited for for 5 s"
        other.execute("ROLLBACK")
    limiter.acquire(timeout=5).settle()


def test_whoever_holds_the_store_up_is_not_waited_for_in_vain(tmp_path: Path) -> None:
    limiter = RateLimiter(rpm=1_000, store=f"sqlite:///{tmp_path / 'limits.db'}", ledger="memory://")
    limiter.acquire().settle()
    known = limiter._calls.engine.store
    slow = Slow(known._shared)  # type: ignore[attr-defined]
    known._shared = slow  # type: ignore[attr-defined]

    async def main() -> None:
        asking = asyncio.get_running_loop().run_in_executor(None, known.recall, "text")
        await asyncio.to_thread(slow.began.wait)
        calls = [asyncio.ensure_future(limiter.acquire_async()) for _ in range(3)]
        await asyncio.sleep(0.03)  # the courier has found the store busy, and gone to sleep
        slow.go.set()
        await asking
        for call in await asyncio.wait_for(asyncio.gather(*calls), 5):
            call.settle()

    asyncio.run(main())


class Slow:
    """A store whose texts take long."""

    def __init__(self, store: SharedStore) -> None:
        self.store = store
        self.began, self.go = threading.Event(), threading.Event()

    def recall(self, key: str) -> str | None:
        self.began.set()
        self.go.wait(10)
        return self.store.recall(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def test_texts_are_remembered_in_a_moment(tmp_path: Path) -> None:
    limiter = RateLimiter(rpm=1_000, store=f"sqlite:///{tmp_path / 'limits.db'}", ledger="memory://")
    known = limiter._calls.engine.store
    known.remember("text", "kept")
    assert known.recall("text") == "kept"
    shared = known._shared  # type: ignore[attr-defined]
    deadline = time.monotonic() + 5
    while shared.recall("text") != "kept":
        assert time.monotonic() < deadline
