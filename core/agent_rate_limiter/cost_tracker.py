"""The books: what was sent, to whom, by whom, and what it cost."""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from weakref import WeakSet

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.limits import NANO_PER_DOLLAR, Target
from agent_rate_limiter.usage import Usage

_HOUR = 3_600_000
_COLUMNS = ("requests", "input_tokens", "output_tokens", "cached_input_tokens", "cost")

Row = dict[str, object]
_Cell = tuple[int, Target, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class CostReport:
    """Rows of spend, one per group.

    Args:
        by: the labels that it is grouped by.
        rows: each with those labels, `requests`, the tokens, and `cost` in dollars; the dearest first.
    """

    by: tuple[str, ...]
    rows: tuple[Row, ...]

    def to_dicts(self) -> list[Row]:
        """Return the rows as plain dictionaries."""
        return [dict(row) for row in self.rows]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        """As a table for a terminal."""
        head = [*self.by, *_COLUMNS]
        lines = [head, *([_cell(name, row[name]) for name in head] for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        return "\n".join(
            "  ".join(
                text.ljust(width) if column < len(self.by) else text.rjust(width)
                for column, (text, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )


_BATCH = 512
"""Calls that are noted before they are added up: a lock for each costs as much as the sums."""


class Account:
    """The books of one target and one set of labels; made by `CostTracker.account`."""

    __slots__ = ("_hour", "_labels", "_sums", "_target", "_tracker", "cost", "source")

    cost: Callable[[Usage, int], int]
    """What a usage costs in nano-dollars, at an epoch millisecond."""

    def __init__(self, tracker: CostTracker, target: Target, labels: tuple[tuple[str, str], ...]) -> None:
        self._tracker = tracker
        self._target = target
        self._labels = labels
        self.source = ""
        self._hour = -1
        self._sums: list[int] = []

    def book_later(self, usage: Usage, nano: int | None, now: int) -> None:
        """Book one call without a lock: safe in a finalizer, which may run while the lock is held.

        Without a cost, that is found out when the books are added up.
        """
        self._tracker.late.append((self, usage, nano, now))

    def book(self, usage: Usage, nano: int, now: int) -> float:
        """Book one call; return its cost in dollars.

        Args:
            usage: what it used.
            nano: what it cost, in nano-dollars.
            now: epoch milliseconds at which it was admitted.
        """
        late = self._tracker.late
        late.append((self, usage, nano, now))
        if len(late) >= _BATCH:
            self._tracker.add_up()
        return nano / NANO_PER_DOLLAR

    def add(self, usage: Usage, nano: int, now: int) -> None:
        """Add one call to its hour; under the lock."""
        hour = now // _HOUR
        if hour != self._hour:
            self._hour = hour
            self._sums = self._tracker.cells.setdefault((hour, self._target, self._labels), [0] * len(_COLUMNS))
        sums = self._sums
        sums[0] += usage.requests
        sums[1] += usage.input_tokens
        sums[2] += usage.output_tokens
        sums[3] += usage.cached_input_tokens
        sums[4] += nano


class CostTracker:
    """Adds up every settled call by hour, target and labels. In memory: it forgets when the process ends.

    Usable alone: `CostTracker().account(Target("openai", "gpt-4"), {"agent": "a"}).book(usage, nano, now)`.
    """

    def __init__(self) -> None:
        self.cells: dict[_Cell, list[int]] = {}
        self.late: deque[tuple[Account, Usage, int | None, int]] = deque()
        self.lock = Lock()
        _trackers.add(self)

    def account(self, target: Target, labels: Mapping[str, str]) -> Account:
        """Return the books of a target and of who calls it."""
        return Account(self, target, tuple(sorted(labels.items())))

    def report(
        self,
        by: Sequence[str] = ("provider", "model"),
        since: float | datetime | None = None,
        until: float | datetime | None = None,
    ) -> CostReport:
        """Sum up by labels: "provider", "model", or any label of a scope; calls without one count under "".

        Args:
            by: the labels to group by.
            since: epoch seconds or a datetime; the hour it lies in is included.
            until: epoch seconds or a datetime; the hour it lies in is included.

        Raises:
            ConfigError: `by` is a plain string.
        """
        _check_labels(by)
        first, last = _hour("since", since), _hour("until", until)
        groups: dict[tuple[str, ...], list[int]] = {}
        for (hour, target, labels), sums in self._snapshot():
            if (first is not None and hour < first) or (last is not None and hour > last):
                continue
            names = {"provider": target.provider, "model": target.model, **dict(labels)}
            total = groups.setdefault(tuple(names.get(label, "") for label in by), [0] * len(_COLUMNS))
            for place, amount in enumerate(sums):
                total[place] += amount
        ordered = sorted(groups.items(), key=lambda group: (-group[1][4], group[0]))
        return CostReport(tuple(by), tuple(_row(by, group, sums) for group, sums in ordered))

    @property
    def total(self) -> float:
        """Dollars spent so far."""
        return sum(sums[4] for _, sums in self._snapshot()) / NANO_PER_DOLLAR

    def add_up(self) -> None:
        """Add up what was noted."""
        with self.lock:
            while self.late:
                account, usage, nano, now = self.late.popleft()
                account.add(usage, account.cost(usage, now) if nano is None else nano, now)

    def _snapshot(self) -> Iterable[tuple[_Cell, list[int]]]:
        self.add_up()
        with self.lock:
            return [(cell, list(sums)) for cell, sums in self.cells.items()]

    def __repr__(self) -> str:
        """State the total."""
        return f"<CostTracker ${self.total:.6f}>"


def _row(by: Sequence[str], group: tuple[str, ...], sums: list[int]) -> Row:
    row: Row = dict(zip(by, group, strict=True))
    row.update(zip(_COLUMNS, sums, strict=True))
    row["cost"] = sums[4] / NANO_PER_DOLLAR
    return row


def _check_labels(by: Sequence[str]) -> None:
    if isinstance(by, str) or not isinstance(by, Iterable) or not all(isinstance(label, str) for label in by):
        example = by if isinstance(by, str) else "agent"
        raise ConfigError(f"by is {by!r}: give a sequence of labels, for example ({example!r},).")
    for label in by:
        if label in _COLUMNS:
            raise ConfigError(f"by holds {label!r}: that is a column of every report; name the label differently.")


def _hour(field: str, moment: float | datetime | None) -> int | None:
    if moment is None:
        return None
    seconds = moment.timestamp() if isinstance(moment, datetime) else moment
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not number or not -1e12 < seconds < 1e12:  # noqa: PLR2004 - some 30,000 years
        raise ConfigError(f"{field} is {moment!r}: give epoch seconds or a datetime.")
    return int(seconds * 1000) // _HOUR


def _cell(name: str, value: object) -> str:
    if name == "cost":
        return f"${value:,.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


_trackers: WeakSet[CostTracker] = WeakSet()


def _after_fork() -> None:
    for tracker in list(_trackers):
        tracker.lock = Lock()  # whoever held the old one is not here to release it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
