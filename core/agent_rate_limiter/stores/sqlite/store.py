"""Many processes on one machine: the limits in a file that survives them (SQLite, in the standard library)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agent_rate_limiter.clock import SystemClock
from agent_rate_limiter.engine.port import Answer, Batch, Offer, Place
from agent_rate_limiter.errors import StoreUnavailable
from agent_rate_limiter.stores.sqlite import layout
from agent_rate_limiter.stores.sqlite.file import SQLiteFile
from agent_rate_limiter.stores.sqlite.fixes import explained
from agent_rate_limiter.stores.sqlite.rows import Rows, Sweeper
from agent_rate_limiter.stores.sqlite.turns import Arrive
from agent_rate_limiter.stores.steps import Step

if TYPE_CHECKING:
    from collections.abc import Generator

_BUSY = 5.0
"""Seconds after which a file that another process keeps locked counts as unavailable."""


class SQLiteStore:
    """Limits in one SQLite file.

    Each step is one `BEGIN IMMEDIATE` transaction (WAL, synchronous=NORMAL: a killed process loses nothing, a
    power cut may lose the last moments), so it is atomic for every process on the machine. A ledger that writes to
    the same file takes steps along in its own transactions.

    Args:
        path: the file; made on first use.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = f"sqlite:///{path}"
        self.look_every = 20
        self.file = SQLiteFile.shared(self.path)
        self.prepared: sqlite3.Connection | None = None
        self.prepare = layout.prepare
        self._offer: Offer | None = None
        self._clock = SystemClock()
        self._sweeper = Sweeper()
        self._seen = -1
        self._version = (-1, 0)
        self._steps = 0

    def check(self, place: Place) -> None:
        """Its numbers are ours: there is nothing that cannot be kept."""

    def run(self, batch: Batch, now: int | None) -> Answer:
        """Take one step in one transaction."""
        try:
            with self.file.transaction(self, _BUSY) as connection:
                answer, seen = self._step(connection, batch, now)
        except sqlite3.Error as error:
            raise self.unavailable(error) from error
        self._seen = seen
        return answer

    @property
    def entered(self) -> bool:
        """Whether this very thread is in the middle of a step, or of the books' transaction."""
        return self.file.is_mine()

    def attempt(self, batch: Batch, now: int | None, patience: float = 0) -> Answer | None:
        """Take one step if no other thread and no other process is in the way for so many seconds, else none."""
        if not (patience or self.file.is_ready(self)):
            return None
        try:
            with self.file.transaction(self, patience) as connection:
                answer, seen = self._step(connection, batch, now)
        except sqlite3.Error:
            return None
        self._seen = seen
        return answer

    def _step(self, connection: sqlite3.Connection, batch: Batch, now: int | None) -> tuple[Answer, int]:
        file = self.file
        moment = self._clock.now() if now is None else now  # once the lock is ours: never out of order
        rows = Rows(connection, file.memory)
        answer = Step(batch, rows, moment, self._seen).run()
        rows.end(self._sweeper)
        file.memory = rows.memory
        file.steps += 1
        self._steps += 1
        return answer, rows.version

    def take_along(self, offer: Offer) -> None:
        """Have a step that is offered taken within the transaction of a ledger in the same file."""
        self._offer = offer
        self.file.take_along(self._ride)

    def hasten(self) -> None:
        """Take a step that is offered now, if no other thread and no other process is in the way."""
        if self.file.is_ready(self):
            with suppress(sqlite3.Error), self.file.transaction(self, 0, company=True):
                pass

    def _ride(self, connection: sqlite3.Connection) -> Arrive | None:
        offer = self._offer
        if offer is None or not self.file.is_ready(self):
            return None
        seen = self._seen

        def run(batch: Batch, now: int | None) -> Answer:
            nonlocal seen
            answer, seen = self._step(connection, batch, now)
            return answer

        told = offer(run)

        def arrive(kept: bool) -> None:  # noqa: FBT001 - told by position
            if kept:
                self._seen = seen
            if told is not None:
                told(kept)

        return None if told is None else arrive

    def changed(self) -> Iterable[str] | None:
        """Whether anybody else wrote since the last look: None if so, nobody's limits if not."""
        try:
            with self.file.reading(self, _BUSY) as connection:
                (version,) = connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            raise self.unavailable(error) from error
        seen = (version, self.file.steps - self._steps)
        found: tuple[str, ...] | None = () if seen == self._version else None
        self._version = seen
        return found

    def listen(self, member: str, heard: Callable[[str], bool]) -> None:
        """A file tells nobody anything: see `changed`."""

    def recall(self, key: str) -> str | None:
        """Return the text that was remembered under a key."""
        with self._told(), self.file.transaction(self, _BUSY) as connection:
            found = connection.execute("SELECT text FROM limits_texts WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    def remember(self, key: str, text: str) -> None:
        """Keep a text under a key."""
        with self._told(), self.file.transaction(self, _BUSY) as connection:
            connection.execute("INSERT OR REPLACE INTO limits_texts VALUES (?, ?)", (key, text))

    def first(self, key: str, until: int, now: int) -> bool:
        """Claim a key until an epoch millisecond: True for one caller alone."""
        with self._told(), self.file.transaction(self, _BUSY) as connection:
            connection.execute("DELETE FROM limits_claims WHERE until <= ?", (now,))
            return connection.execute("INSERT OR IGNORE INTO limits_claims VALUES (?, ?)", (key, until)).rowcount > 0

    def close(self) -> None:
        """Close the connection; the next use opens it anew."""
        self.file.close()

    def forked(self) -> None:
        """The file knows: it was closed before the fork."""

    @contextmanager
    def _told(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self.unavailable(error) from error

    def unavailable(self, error: sqlite3.Error) -> StoreUnavailable:
        """Return what a database's error means, and what to do."""
        return StoreUnavailable(f"The store {self.name} cannot be used: {explained(error)}")
