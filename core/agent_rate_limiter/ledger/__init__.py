"""Where the books are kept: in memory, or in a SQLite file that survives the process.

Rows are kept for some days, sums by the hour for longer, sums by the day for ever: what is older is rolled up.
"""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from agent_rate_limiter.costs.quotes import STATED
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.plain import is_number
from agent_rate_limiter.usage import Estimate, Usage

if TYPE_CHECKING:
    from agent_rate_limiter.costs.accounts import Account

HOUR = 3_600_000
DAY = 24 * HOUR

Labels = tuple[tuple[str, str], ...]


class Key(NamedTuple):
    """What sums are kept by.

    Args:
        provider: of the target.
        model: of the target.
        labels: who called, by name.
        source: where the price is from.
    """

    provider: str
    model: str
    labels: Labels
    source: str

    def without(self, names: Iterable[str]) -> Key:
        """Return it without some labels."""
        return self._replace(labels=tuple(label for label in self.labels if label[0] not in names))


Note = tuple["Account", Usage, "int | None", int, int, str, int, "Estimate | None"]
"""A call as it is noted when it ends: whose books, what it used, nano-dollars (None: find out), epoch milliseconds of
its admission, milliseconds it took, its outcome, which attempt it was, and what was expected."""


class Row(NamedTuple):
    """One call in the ledger; times in epoch milliseconds, money in nano-dollars."""

    key: Key
    at: int
    requests: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    reasoning_tokens: int
    input_audio_tokens: int
    output_audio_tokens: int
    cost: int
    estimate: int
    latency: int
    outcome: str
    attempts: int


def row_of(note: Note) -> Row:
    """Write out a note."""
    account, usage, nano, at, took, outcome, attempts, estimate = note
    return Row(
        key_of(account, usage),
        at,
        usage.requests,
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.cache_write_1h_tokens,
        usage.reasoning_tokens,
        usage.input_audio_tokens,
        usage.output_audio_tokens,
        nano or 0,
        account.expected(estimate),
        took,
        outcome,
        attempts,
    )


def key_of(account: Account, usage: Usage) -> Key:
    """Return the key that a call is summed up under."""
    target = account.target
    source = account.source if usage.cost is None else STATED
    return Key(target.provider, target.model, account.labels, source)


Sums = list[int]
"""requests, input_tokens, output_tokens, cached_input_tokens, cost"""
COLUMNS = ("requests", "input_tokens", "output_tokens", "cached_input_tokens", "cost")


class Keep(NamedTuple):
    """How long what is kept.

    Args:
        rows: days for which each call keeps its row.
        hours: days for which sums are kept by the hour; from then on by the day.
        passing: labels that sums by the day leave out, as their values do not come again.
    """

    rows: float
    hours: float
    passing: tuple[str, ...]

    @classmethod
    def checked(cls, rows: float, hours: float, passing: Iterable[str]) -> Keep:
        """Make it of what users say.

        Raises:
            ConfigError: a number of days makes no sense.
        """
        for name, days in (("keep_rows", rows), ("keep_hours", hours)):
            if not is_number(days) or not 0 <= days <= 1e6:  # noqa: PLR2004 - longer than anybody lives
                raise ConfigError(f"{name} is {days!r}: give a number of days of at least 0.")
        if not isinstance(passing, Iterable):
            raise ConfigError(f"passing_labels is {passing!r}: give a list of labels' names.")
        return cls(rows, hours, (passing,) if isinstance(passing, str) else tuple(passing))

    def rows_end(self, now: int) -> int:
        """The epoch millisecond before which rows are dropped."""
        return now - round(self.rows * DAY)

    def hours_end(self, now: int) -> int:
        """The beginning of the first day that is kept by the hour, in epoch milliseconds."""
        end = now - round(self.hours * DAY)
        return end - end % DAY


class Ledger(Protocol):
    """Keeps rows and sums. Every method is one atomic step; the tracker calls one at a time."""

    durable: bool
    """Whether it outlives the process: then every call is written when it ends."""

    @property
    def patience(self) -> float:
        """Seconds that a call may be held up by it in this thread; -1: it takes no time."""
        ...

    def write(self, notes: Sequence[Note], now: int) -> None:
        """Add calls: all of them or, with an exception, none. It is `now`, in epoch milliseconds."""
        ...

    def sums(
        self, since: int | None, until: int | None, period: Callable[[int], str] | None = None
    ) -> Iterable[tuple[str, Key, Sums]]:
        """Sum up the hours (or days, where only those are left) that two epoch milliseconds lie in, both included.

        With `period`, which names the period that begins at a moment, each of those apart. What comes more than once
        is to be added.
        """
        ...

    def rows(self, since: int | None, until: int | None, last: int) -> list[Row]:
        """Return the calls of a span of time, the newest first, and no more than so many."""
        ...

    def compact(self, now: int) -> None:
        """Drop and roll up all that is old enough."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


def open_ledger(uri: str, keep: Keep, *, synchronous: str = "normal", must_open: bool = True) -> Ledger:
    """Return the ledger that a URI names.

    Raises:
        ConfigError: it names none.
        StoreUnavailable: its file cannot be used, and must; the message says why.
    """
    if synchronous not in ("normal", "full"):
        raise ConfigError(f"synchronous is {synchronous!r}: give 'normal' or 'full'.")
    if isinstance(uri, str) and uri in {"memory", "memory:", "memory://"}:
        from agent_rate_limiter.ledger.memory import MemoryLedger

        return MemoryLedger(keep)
    if isinstance(uri, str) and uri.startswith("sqlite://"):
        from agent_rate_limiter.ledger.sqlite import SqliteLedger
        from agent_rate_limiter.stores.sqlite.uri import file_of

        return SqliteLedger(file_of("ledger", uri), keep, synchronous=synchronous, must_open=must_open)
    scheme, marks, _ = uri.partition("://") if isinstance(uri, str) else ("", "", "")
    shown = f"{scheme}://…" if marks else uri  # what follows may hold a password
    raise ConfigError(f"ledger is {shown!r}: give 'memory://', or 'sqlite:///costs.db' for a file.")
