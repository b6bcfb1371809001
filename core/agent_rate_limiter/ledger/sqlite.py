"""The books in a SQLite file, which processes share and which outlives them.

One transaction per call: its row, and the sums of its hour. In WAL mode with `synchronous=NORMAL` a commit is with
the operating system when it returns: it survives the process (kill -9). When the power goes the file stays whole,
though the last commits may be missing; `FULL` waits for the disk.

Old rows are dropped and old hours rolled up a little at a time, within the transactions of calls.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent_rate_limiter.costs.accounts import Account
from agent_rate_limiter.errors import ConfigError, StoreUnavailable
from agent_rate_limiter.ledger import DAY, HOUR, Keep, Key, Note, Row, Sums, key_of
from agent_rate_limiter.ledger import statements as say
from agent_rate_limiter.loops import may_block
from agent_rate_limiter.stores.sqlite.file import SQLiteFile
from agent_rate_limiter.stores.sqlite.fixes import explained
from agent_rate_limiter.usage import Usage

_PATIENCE, _BRIEFLY = 1.0, 0.05
"""Seconds that a writer waits for others; and where an event loop would be held up by that."""
_EVERY = 64
"""Calls after which a little is tidied up."""
_DROPPED = 256
"""Rows that are dropped then, at most: more than come, so that what is kept stays bounded."""
_ROLLED = 128
"""Accounts whose hours are looked at then, until all were, once a day: twice as many as there can be new ones."""

_NUMBERS = 10_000
"""Numbers of accounts that are remembered."""
_EVER = 1 << 62
_MOST = 1 << 53
"""Tokens or nano-dollars (nine million dollars) of one call that are kept."""


class SqliteLedger:
    """Rows and sums in a file.

    Args:
        path: of the file; made unless there.
        keep: how long what is kept.
        synchronous: "normal" or "full".
        must_exist: refuse to make the file, and write nothing to it.
        must_open: refuse a file that cannot be used now.

    Raises:
        ConfigError: `synchronous` is neither.
        StoreUnavailable: the file cannot be used, and must.
    """

    durable = True

    def __init__(
        self, path: str, keep: Keep, *, synchronous: str = "normal", must_exist: bool = False, must_open: bool = True
    ) -> None:
        if synchronous not in {"normal", "full"}:
            raise ConfigError(f"synchronous is {synchronous!r}: give 'normal' or 'full'.")
        if must_exist and not os.path.isfile(path):  # noqa: PTH113 - never raises
            raise StoreUnavailable(
                f"There is no ledger {path!r}: name the file that a CostTracker or a limiter writes."
            )
        self._path = path
        self._keep = keep
        self._ids: dict[Key, int] = {}
        self._marks = object()  # whoever holds another one holds numbers that may not count
        self._written = 0
        self._rolled_until = 0
        self._rolled = 0  # the account whose hours were looked at last
        self.prepared: sqlite3.Connection | None = None
        self._reader = _Reader(Path(path), self._check)
        self._file = self._reader.file if must_exist else SQLiteFile.shared(Path(path), synchronous)
        if must_open:
            self._open()

    # -- the file ------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Find out whether it can be used."""
        tenant = self._reader if self._file is self._reader.file else self
        with self._told(), self._file.reading(tenant, _PATIENCE):
            pass

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Make the tables unless they are there."""
        self._ids.clear()
        self._marks = object()
        if not _is_there(connection):
            connection.execute("BEGIN IMMEDIATE")
            for statement in say.TABLES.split(";\n"):
                connection.execute(statement)
            connection.execute("COMMIT")
        self._check(connection)

    def _check(self, connection: sqlite3.Connection) -> None:
        """Refuse what is no ledger of ours."""
        if not _is_there(connection):
            raise StoreUnavailable(f"{self._path!r} holds no ledger: it was not written by CostTracker.")
        found = connection.execute("SELECT value FROM ledger_meta WHERE key = 'version'").fetchone()
        version = found[0] if found else "none"
        if version != str(say.VERSION):
            raise StoreUnavailable(
                f"The ledger in {self._path!r} has version {version}, this release reads {say.VERSION}: "
                "update agent-rate-limiter, or name another file."
            )

    @property
    def patience(self) -> float:
        """Seconds that a call may be held up by a file that others keep locked."""
        return _PATIENCE if may_block() else _BRIEFLY

    def close(self) -> None:
        """Let go of the file; the next call opens it again."""
        self._reader.file.close()
        self._file.close()

    @contextmanager
    def _told(self) -> Generator[None]:
        """Say in our words what SQLite does not like."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    @contextmanager
    def _reading(self) -> Generator[sqlite3.Connection]:
        """Read on a connection of its own: a long report holds up no call."""
        with self._told(), self._reader.file.reading(self._reader, _PATIENCE) as connection:
            yield connection

    def _unavailable(self, error: sqlite3.Error) -> StoreUnavailable:
        return StoreUnavailable(f"The ledger in {self._path!r} cannot be used: {explained(error)}")

    # -- writing -------------------------------------------------------------------------------------------

    def write(self, notes: Sequence[Note], now: int) -> None:
        """Add calls, in one transaction; limits in the same file have their settlements written along with them."""
        try:
            with self._file.transaction(self, self.patience, company=True) as connection:
                try:
                    for note in notes:
                        self._add(connection, note)
                    self._written += len(notes)
                    if self._written >= _EVERY:
                        self._written = 0
                        self._tidy(connection, now)
                except BaseException:
                    self._forget()
                    raise
        except sqlite3.Error as error:
            self._forget()  # what was to be committed, too
            raise self._unavailable(error) from error

    def _add(self, connection: sqlite3.Connection, note: Note) -> None:
        account, usage, nano, at, took, outcome, attempts, estimate = note
        place = account.place
        if place is not None and place[0] is self._marks and place[1] == account.source and usage.cost is None:
            number = place[2]
        else:
            number = self._number(connection, account, usage)
        sent, produced, cached, cost = usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, nano or 0
        kinds: tuple[int, ...] = (
            usage.cache_write_tokens,
            usage.cache_write_1h_tokens,
            usage.reasoning_tokens,
            usage.input_audio_tokens,
            usage.output_audio_tokens,
        )
        expected = account.expected(estimate)
        if (sent | produced | cached | cost | expected | max(kinds)) > _MOST:  # nonsense, and too large for the file
            sent, produced, cached, cost, expected = _capped(sent, produced, cached, cost, expected)
            kinds = _capped(*kinds)
        ending = (cost, expected, took, outcome, attempts)
        connection.execute(say.INSERT, (number, at, usage.requests, sent, produced, cached, *kinds, *ending))
        connection.execute(say.ADD_HOUR, (number, at - at % HOUR, usage.requests, sent, produced, cached, cost))

    def _number(self, connection: sqlite3.Connection, account: Account, usage: Usage) -> int:
        """Find an account's number in the file; the account remembers it."""
        key = key_of(account, usage)
        if len(self._ids) >= _NUMBERS:
            self._ids.clear()
        number = self._ids.get(key) or self._id(connection, key)
        if usage.cost is None:
            account.place = (self._marks, account.source, number)
        return number

    def _forget(self) -> None:
        """Forget the numbers that may have been given in a transaction that was undone."""
        self._ids.clear()
        self._marks = object()

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        try:
            with self._told(), self._file.transaction(self, _PATIENCE) as connection:
                yield connection
        except BaseException:
            self._forget()
            raise

    def _id(self, connection: sqlite3.Connection, key: Key) -> int:
        told = (key.provider, key.model, json.dumps(key.labels), key.source)
        connection.execute(say.ADD_ID, told)
        found: int = connection.execute(say.FIND_ID, told).fetchone()[0]
        self._ids[key] = found
        return found

    # -- keeping it small ----------------------------------------------------------------------------------

    def _tidy(self, connection: sqlite3.Connection, now: int) -> None:
        self._drop_rows(connection, self._keep.rows_end(now))
        end = self._keep.hours_end(now)
        for _ in range(_ROLLED if end > self._rolled_until else 0):
            if not self._roll_up(connection, end):
                self._rolled_until = end
                break

    def _drop_rows(self, connection: sqlite3.Connection, end: int) -> bool:
        """Drop some of the oldest rows; False when none is old enough."""
        oldest = connection.execute(say.OLDEST).fetchone()
        if oldest is None or oldest[1] >= end:
            return False
        connection.execute(say.DROP_ROWS, (oldest[0] + _DROPPED, end))
        return True

    def _roll_up(self, connection: sqlite3.Connection, end: int) -> bool:
        """Make days of the next account's hours, if they are old enough; False after the last account."""
        found = connection.execute(say.NEXT_HOURS, (self._rolled,)).fetchone()
        if found is None:
            self._rolled = 0
            return False
        self._rolled, start = found
        if start < end:
            key = self._keys(connection, [self._rolled])[self._rolled].without(self._keep.passing)
            connection.execute(say.ADD_DAYS, (self._ids.get(key) or self._id(connection, key), self._rolled, end))
            connection.execute(say.DROP_HOURS, (self._rolled, end))
        return True

    def compact(self, now: int) -> None:
        """Drop and roll up all that is old enough, in many short transactions: others can write in between."""
        self._rolled = 0
        for step, end in ((self._drop_rows, self._keep.rows_end(now)), (self._roll_up, self._keep.hours_end(now))):
            more = True
            while more:
                with self._transaction() as connection:
                    more = step(connection, end)

    # -- reading -------------------------------------------------------------------------------------------

    def sums(
        self, since: int | None, until: int | None, period: Callable[[int], str] | None = None
    ) -> Iterable[tuple[str, Key, Sums]]:
        """Sum up a span of time, or each period in it."""
        if period is None:
            return (("", key, sums) for _, key, sums in self._select(say.TOTALS, since, until))
        names: dict[str, int] = {}
        with self._reading() as connection:
            connection.execute(say.PERIODS)
            connection.execute("BEGIN")  # one look at the file, and the temporary rows at once
            try:
                connection.execute(say.DROP_PERIODS)
                starts = self._starts(connection, since, until)
                numbers = ((start, names.setdefault(period(start), len(names))) for start in starts)
                connection.executemany(say.ADD_PERIOD, numbers)
                found = self._selected(connection, say.BY_PERIOD, since, until)
            finally:
                connection.execute("COMMIT")
        periods = list(names)
        return ((periods[number], key, sums) for number, key, sums in found)

    @staticmethod
    def _starts(connection: sqlite3.Connection, since: int | None, until: int | None) -> Iterator[int]:
        """When the hours and the days of a span begin."""
        for table, length in (("ledger_days", DAY), ("ledger_hours", HOUR)):
            bounds = say.BOUNDS.format(table=table, length=length)
            first, last = connection.execute(bounds, _span(since, until)).fetchone()
            yield from range(first, last + 1, length) if first is not None else ()

    def _select(self, query: str, since: int | None, until: int | None) -> list[tuple[int, Key, Sums]]:
        with self._reading() as connection:
            return self._selected(connection, query, since, until)

    def _selected(
        self, connection: sqlite3.Connection, query: str, since: int | None, until: int | None
    ) -> list[tuple[int, Key, Sums]]:
        found = connection.execute(query, _span(since, until)).fetchall()
        keys = self._keys(connection, {row[0] for row in found})
        return [(row[1], keys[row[0]], list(row[2:])) for row in found]

    def rows(self, since: int | None, until: int | None, last: int) -> list[Row]:
        """Return the last calls."""
        with self._reading() as connection:
            found = connection.execute(say.ROWS, {**_span(since, until), "last": last}).fetchall()
            keys = self._keys(connection, {row[1] for row in found})
        return [Row(keys[row[1]], *row[2:]) for row in found]

    def _keys(self, connection: sqlite3.Connection, ids: Iterable[int]) -> dict[int, Key]:
        found = connection.execute(say.KEYS, (json.dumps(list(ids)),))
        return {
            number: Key(provider, model, tuple((name, value) for name, value in json.loads(labels)), source)
            for number, provider, model, labels, source in found
        }


class _Reader:
    """Reads the file on a connection of its own."""

    def __init__(self, path: Path, check: Callable[[sqlite3.Connection], None]) -> None:
        self.file = SQLiteFile(path, read_only=True)
        self.prepared: sqlite3.Connection | None = None
        self._check = check

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Nothing is made for who only reads."""
        self._check(connection)


def _is_there(connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'ledger_meta'").fetchone()
    return bool(found[0])


def _capped(*amounts: int) -> tuple[int, ...]:
    return tuple(min(amount, _MOST) for amount in amounts)


def _span(since: int | None, until: int | None) -> dict[str, int]:
    return {"since": -_EVER if since is None else since, "until": _EVER if until is None else until}
