"""One SQLite file, as this process has it open: one connection, which one thread at a time uses.

Limiters and ledgers of the same file share it, so that what belongs together is one transaction, and so that nobody
polls for a lock that the next thread holds. To use a connection in two threads at once, to close it while a statement
runs, or to take it across a fork would crash the process or lose what is written. None of that can happen: whoever
uses or closes it holds the lock, which is not given twice to the same thread (a finalizer may want it in the middle of
a step); before a fork it is closed; and once the program ends, other threads are let in no more. One that nobody closed
is closed with its file's object, in whatever thread that is collected: a fork waits for that, too, as a child whose
parent's other thread was inside of SQLite would wait for SQLite's own locks for ever.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock, RLock, get_ident
from typing import Any
from weakref import WeakMethod, WeakSet, WeakValueDictionary

from agent_rate_limiter.forks import around_fork, last_of_all
from agent_rate_limiter.stores.sqlite.fixes import is_locked
from agent_rate_limiter.stores.sqlite.gone import Whereabouts
from agent_rate_limiter.stores.sqlite.turns import Rider, Tenant, Transaction, Turn

_LOG_KEPT = 16 << 20
"""Bytes of the write-ahead log that are kept, when somebody has read for long and it has grown meanwhile."""
_OPENING = 5.0
"""Seconds that opening may wait for others."""


class SQLiteFile:
    """A file, and the connection to it; opened on first use.

    Args:
        path: the file; made unless there.
        synchronous: what SQLite calls so: "normal" survives the process, "full" a loss of power, too.
        read_only: it must be there, and nothing is written to it.

    Attributes:
        memory: what tenants know of its rows. Dropped with every transaction that is not kept; others' commits they
            find out by `PRAGMA data_version`.
        riders: who adds to the transactions that are open for company.
        steps: how often limits were changed through this connection, whose own changes that does not tell.
    """

    def __init__(self, path: Path, *, synchronous: str = "normal", read_only: bool = False) -> None:
        self._connection: sqlite3.Connection | None = None
        path = path.resolve()
        self._uri = f"{path.as_uri()}?mode={'ro' if read_only else 'rwc'}"
        self._whereabouts = Whereabouts(path)
        self._synchronous = synchronous
        self._read_only = read_only
        self._lock = Lock()
        self._owner = 0
        self._forking = False
        self.riders: list[WeakMethod[Rider]] = []
        self.memory: Any = None
        self.steps = 0
        _files.add(self)

    @classmethod
    def shared(cls, path: Path, synchronous: str = "normal") -> SQLiteFile:
        """Return the one object of this process for a file."""
        key = (str(path.resolve()), synchronous)
        with _registry_lock:
            found = _registry.get(key)
            if found is None:
                found = _registry[key] = cls(path, synchronous=synchronous)
            return found

    def take_along(self, rider: Rider) -> None:
        """Let a bound method add to the transactions that are open for company, as long as its object lives."""
        with _registry_lock:
            self.riders = [*(known for known in self.riders if known() is not None), WeakMethod(rider)]

    def transaction(self, tenant: Tenant, patience: float, *, company: bool = False) -> Transaction:
        """Return a transaction that writes.

        Args:
            tenant: whose tables it is about.
            patience: seconds that it may wait for other threads, and for other processes.
            company: whether others may add what they have to write.
        """
        return Transaction(self, tenant, patience, company)

    def reading(self, tenant: Tenant, patience: float) -> Turn:
        """Return a turn at the connection, outside of any transaction."""
        return Turn(self, tenant, patience)

    def is_ready(self, tenant: Tenant) -> bool:
        """Whether it is open, and prepared for a tenant."""
        return self._connection is not None and tenant.prepared is self._connection

    def is_mine(self) -> bool:
        """Whether this very thread uses it: then this is a finalizer, or a fork, in the middle of that."""
        return self._owner == get_ident()

    def close(self, patience: float = -1) -> None:
        """Close the connection; the next use opens it anew. Nothing happens while this very thread uses it.

        Args:
            patience: seconds to wait for the thread that does; then it stays open. -1: as long as that takes.
        """
        if not self.is_mine() and self._lock.acquire(timeout=patience):
            self.drop()
            self._lock.release()

    def __del__(self) -> None:
        """Close what nobody closed."""
        if self._connection is not None:
            with _collecting:
                self.drop()

    # -- for whoever has the lock --------------------------------------------------------------------------

    def enter(self, patience: float) -> None:
        """Take the lock."""
        me = get_ident()
        if self._owner == me:  # a finalizer, in the middle of this thread's own step
            raise sqlite3.OperationalError("database is locked by this very thread")
        if _ended_by not in {0, me}:
            raise SystemExit  # this thread is a daemon, and the interpreter goes away
        if not self._lock.acquire(timeout=patience):
            raise sqlite3.OperationalError("database is locked by another thread")
        self._owner = me

    def leave(self) -> None:
        """Give the lock back."""
        self._owner = 0
        self._lock.release()

    def connect(self, tenant: Tenant) -> sqlite3.Connection:
        """Return the connection, prepared for a tenant."""
        if self._connection is not None and self._whereabouts.is_gone():
            self.drop()
        connection = self._connection
        if connection is None:
            connection = self._connection = self._open()
            self._prepare(tenant, connection)
            self._whereabouts.remember()  # its log is there by now
        elif tenant.prepared is not connection:
            self._prepare(tenant, connection)
        return connection

    def _prepare(self, tenant: Tenant, connection: sqlite3.Connection) -> None:
        try:
            connection.execute(f"PRAGMA busy_timeout = {round(_OPENING * 1000)}")
            tenant.prepare(connection)
            if not self._read_only:
                connection.execute("PRAGMA busy_timeout = 0")  # how long to wait is said each time
            tenant.prepared = connection
        except BaseException:
            self.drop()
            raise

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._uri, timeout=_OPENING, isolation_level=None, check_same_thread=False, uri=True
        )
        try:
            if not self._read_only:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(f"PRAGMA synchronous = {self._synchronous}")
                connection.execute(f"PRAGMA journal_size_limit = {_LOG_KEPT}")
        except BaseException:
            connection.close()
            raise
        return connection

    def drop(self) -> None:
        """Close the connection: the file may have been replaced, or mended."""
        connection, self._connection, self.memory = self._connection, None, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def undo(self, error: BaseException) -> None:
        """Roll back, if anything has begun; the connection goes, unless others were only faster."""
        connection, self.memory = self._connection, None
        if connection is not None and connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error) and not is_locked(error):
            self.drop()

    # -- forks ---------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Close the connection: SQLite's locks are the process's, and a child would take its parent's for its own."""
        if not self.is_mine():
            self._lock.acquire()
            self._owner = get_ident()
            self._forking = True
            self.drop()

    def after_fork_here(self) -> None:
        """Go on in the parent."""
        if self._forking:
            self._forking = False
            self.leave()

    def after_fork(self) -> None:
        """Begin anew in the child."""
        if self._connection is not None:  # forked in the middle of a step: it is neither used nor closed here
            _inherited.append(self._connection)
            self._connection = self.memory = None
        self._lock = Lock()
        self._owner = 0
        self._forking = False


_files: WeakSet[SQLiteFile] = WeakSet()
_registry: WeakValueDictionary[tuple[str, str], SQLiteFile] = WeakValueDictionary()
_registry_lock = Lock()
_inherited: list[sqlite3.Connection] = []
_collecting = RLock()
"""Held while a file's object is collected; it may happen in the middle of the same, and of anything else."""
_ended_by = 0
"""The thread that ends the program, once it does."""
_LAST = 1.0
"""Seconds that the end waits for a thread that is in the middle of a step."""


def _at_exit() -> None:
    """Close what is open: a thread that is still in SQLite while the interpreter goes away may crash it."""
    global _ended_by  # noqa: PLW0603 - there is one end
    _ended_by = get_ident()
    for file in list(_files):
        file.close(_LAST)


def _each(method: str) -> Callable[[], None]:
    def call() -> None:
        for file in list(_files):
            getattr(file, method)()

    return call


last_of_all(_at_exit)
around_fork(_each("before_fork"), _each("after_fork_here"), _each("after_fork"), inner=True)
around_fork(_collecting.acquire, _collecting.release, _collecting.release, inner=True)  # after all the files' locks
