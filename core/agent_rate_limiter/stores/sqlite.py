"""Many processes on one machine: the limits in a file that survives them (SQLite, in the standard library)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from threading import RLock

from agent_rate_limiter.clock import SystemClock
from agent_rate_limiter.engine.port import Answer, Batch, Place
from agent_rate_limiter.errors import ConfigError, StoreUnavailable
from agent_rate_limiter.stores.sqlite_rows import SCHEMA, SWEEP_EVERY, TABLES, Rows
from agent_rate_limiter.stores.steps import Step

_BUSY = 5.0
"""Seconds after which a file that another process keeps locked counts as unavailable."""


class SQLiteStore:
    """Limits in one SQLite file.

    Each step is one `BEGIN IMMEDIATE` transaction (WAL, synchronous=NORMAL: a killed process loses nothing, a
    power cut may lose the last moments), so it is atomic for every process on the machine.

    Args:
        path: the file; made on first use.

    Raises:
        ConfigError: the path cannot be a file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if str(path) in {"", ".", ":memory:"} or self.path.is_dir():
            message = f"store is 'sqlite:///{path}': name a file, such as 'sqlite:///agents.db'."
            raise ConfigError(message)
        self.name = f"sqlite:///{path}"
        self.look_every = 20
        self._connection: sqlite3.Connection | None = None
        self._inherited: list[sqlite3.Connection] = []
        self._clock = SystemClock()
        self.lock = RLock()  # to close a connection that another thread uses crashes the process
        self._seen = -1
        self._version = -1
        self._steps = 0

    def check(self, place: Place) -> None:
        """Its numbers are ours: there is nothing that cannot be kept."""

    def run(self, batch: Batch, now: int | None) -> Answer:
        """Take one step in one transaction."""
        with _Transaction(self) as connection:
            moment = self._clock.now() if now is None else now  # once the lock is ours: never out of order
            tables = Rows(connection)
            answer = Step(batch, tables, moment, self._seen).run()
            self._steps += 1
            if self._steps % SWEEP_EVERY == 1:
                tables.sweep(answer.now)
        self._seen = tables.version
        return answer

    def changed(self) -> Iterable[str] | None:
        """Whether anybody else wrote since the last look: None if so, nobody's limits if not."""
        with self.lock:
            connection = self.connect()
            try:
                (version,) = connection.execute("PRAGMA data_version").fetchone()
            except sqlite3.Error as error:
                raise self.unavailable(error) from error
        found: tuple[str, ...] | None = () if version == self._version else None
        self._version = version
        return found

    def listen(self, member: str, heard: Callable[[str], bool]) -> None:
        """A file tells nobody anything: see `changed`."""

    def recall(self, key: str) -> str | None:
        """Return the text that was remembered under a key."""
        with _Transaction(self) as connection:
            found = connection.execute("SELECT text FROM limits_texts WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    def remember(self, key: str, text: str) -> None:
        """Keep a text under a key."""
        with _Transaction(self) as connection:
            connection.execute("INSERT OR REPLACE INTO limits_texts VALUES (?, ?)", (key, text))

    def first(self, key: str, until: int, now: int) -> bool:
        """Claim a key until an epoch millisecond: True for one caller alone."""
        with _Transaction(self) as connection:
            connection.execute("DELETE FROM limits_claims WHERE until <= ?", (now,))
            return connection.execute("INSERT OR IGNORE INTO limits_claims VALUES (?, ?)", (key, until)).rowcount > 0

    def connect(self) -> sqlite3.Connection:
        """Return the connection, made on first use.

        Raises:
            StoreUnavailable: the file cannot be opened, or is no database of ours.
        """
        if self._connection is None:
            try:
                self._connection = self._open()
            except sqlite3.Error as error:
                raise self.unavailable(error) from error
        return self._connection

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(f"BEGIN IMMEDIATE;{TABLES}COMMIT;")
            connection.execute("INSERT OR IGNORE INTO limits_meta VALUES ('schema', ?)", (SCHEMA,))
            (schema,) = connection.execute("SELECT value FROM limits_meta WHERE name = 'schema'").fetchone()
            _check_schema(schema)
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close the connection; the next use opens it anew."""
        with self.lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()

    def forked(self) -> None:
        """Leave the parent's connection alone: to close it here would drop the parent's locks."""
        self.lock = RLock()
        if self._connection is not None:
            self._inherited.append(self._connection)
            self._connection = None

    def unavailable(self, error: sqlite3.Error) -> StoreUnavailable:
        """Return what a database's error means, and what to do."""
        text = str(error)
        fixes = (fix for marks, fix in _FIXES if any(mark in text for mark in marks))
        return StoreUnavailable(f"The store {self.name} cannot be used: {text}. {next(fixes, _OTHERWISE)}")


def _check_schema(schema: int) -> None:
    if schema != SCHEMA:
        message = f"its tables are of version {schema}, this library knows {SCHEMA}: upgrade the library"
        raise sqlite3.DatabaseError(message)


_FIXES = (
    (
        ("locked", "busy"),
        "Another process keeps it locked: end its transaction, or give the limits a file of their own.",
    ),
    (("readonly", "read-only"), "Make the file and its directory writable for this process."),
    (("malformed", "not a database", "corrupt"), "Move the file away: a new one is made, and limits start afresh."),
    (("unable to open", "not a directory"), "Make its directory, and let this process write there."),
    (("full",), "Free some space on its disk."),
)
_OTHERWISE = "See SQLite's documentation for this error."


class _Transaction:
    """All or nothing, and the store's own errors. A class, as a generator costs more than a step's own work."""

    __slots__ = ("_connection", "_store")

    def __init__(self, store: SQLiteStore) -> None:
        self._store = store

    def __enter__(self) -> sqlite3.Connection:
        self._store.lock.acquire()
        try:
            self._connection = connection = self._store.connect()
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise self._failed(error) from error
        except BaseException:
            self._store.lock.release()
            raise
        return connection

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self._end(error)
        finally:
            self._store.lock.release()

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            try:
                self._connection.execute("COMMIT")
            except sqlite3.Error as failure:
                raise self._failed(failure) from failure
            return
        with suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            raise self._failed(error) from error

    def _failed(self, error: sqlite3.Error) -> StoreUnavailable:
        if self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
        if not isinstance(error, sqlite3.OperationalError) or "lock" not in str(error):
            self._store.close()  # a file that was replaced or mended is opened anew
        return self._store.unavailable(error)
