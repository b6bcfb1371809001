"""Turns at the one connection that a process has to a SQLite file: to read, or to write all or nothing."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from time import monotonic, sleep
from typing import TYPE_CHECKING, Protocol

from agent_rate_limiter.stores.sqlite.fixes import is_locked

if TYPE_CHECKING:
    from agent_rate_limiter.stores.sqlite.file import SQLiteFile

_log = logging.getLogger("agent_rate_limiter")
_PAUSES = (0.0005, 0.001, 0.002, 0.005, 0.01)
"""Seconds after which another process's lock is tried again; a usual step takes a tenth of the first."""

Arrive = Callable[[bool], None]
"""Told whether what went along was kept."""
Rider = Callable[[sqlite3.Connection], "Arrive | None"]
"""Adds to a transaction that somebody else has begun, and will end."""


class Tenant(Protocol):
    """Keeps tables in a file."""

    prepared: sqlite3.Connection | None
    """The connection that it has prepared."""

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Make its tables, unless they are there."""
        ...


class Turn:
    """This thread's turn at the connection."""

    __slots__ = ("_file", "_patience", "_tenant")

    def __init__(self, file: SQLiteFile, tenant: Tenant, patience: float) -> None:
        self._file = file
        self._tenant = tenant
        self._patience = patience

    def __enter__(self) -> sqlite3.Connection:
        self._file.enter(self._patience)
        try:
            return self._file.connect(self._tenant)
        except BaseException as error:
            self._file.undo(error)
            self._file.leave()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._file.leave()


class Transaction:
    """All or nothing. A class, as a generator costs more than a step's own work."""

    __slots__ = ("_arrivals", "_company", "_connection", "_file", "_patience", "_tenant")

    def __init__(self, file: SQLiteFile, tenant: Tenant, patience: float, company: bool) -> None:  # noqa: FBT001
        self._file = file
        self._tenant = tenant
        self._patience = patience
        self._company = company
        self._arrivals: list[Arrive] = []

    def __enter__(self) -> sqlite3.Connection:
        file = self._file
        file.enter(self._patience)
        try:
            self._connection = connection = file.connect(self._tenant)
            self._begin(connection)
            if self._company:
                self._board(connection)
        except BaseException as error:
            file.undo(error)
            file.leave()
            raise
        return connection

    def _begin(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not (is_locked(error) and self._patience):
                raise
            self._insist(connection)

    def _insist(self, connection: sqlite3.Connection) -> None:
        """Try again and again, less and less often."""
        now = monotonic()
        deadline, pauses = now + self._patience, iter(_PAUSES)
        pause = 0.0
        while True:
            pause = min(next(pauses, pause), max(0.0, deadline - now))
            sleep(pause)
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                now = monotonic()
                if now >= deadline or not is_locked(error):
                    raise
            else:
                return

    def _board(self, connection: sqlite3.Connection) -> None:
        """Let others add what they have to write. If one of them cannot, nobody does: they go by themselves then."""
        try:
            for reference in self._file.riders:
                rider = reference()
                arrive = None if rider is None else rider(connection)
                if arrive is not None:
                    self._arrivals.append(arrive)
        except BaseException as error:
            arrivals, self._arrivals = self._arrivals, []
            for arrive in arrivals:
                _tell(arrive, False)  # noqa: FBT003 - not kept
            if not isinstance(error, Exception):
                raise
            self._file.memory = None
            connection.execute("ROLLBACK")
            self._begin(connection)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        kept = False
        try:
            if error is None:
                try:
                    self._connection.execute("COMMIT")
                    kept = True
                except BaseException as failure:
                    self._file.undo(failure)
                    raise
            else:
                self._file.undo(error)
        finally:
            self._file.leave()
            for arrive in self._arrivals:
                _tell(arrive, kept)


def _tell(arrive: Arrive, kept: bool) -> None:  # noqa: FBT001 - passed on
    try:
        arrive(kept)
    except Exception:  # noqa: BLE001 - the others wait for it, too
        _log.exception("What went along with a transaction could not be told how it ended")
