"""The books of one process, in its memory: exact sums, and the rows of the last calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from agent_rate_limiter.costs.accounts import Account
from agent_rate_limiter.ledger import COLUMNS, DAY, HOUR, Keep, Key, Note, Row, Sums, key_of, row_of
from agent_rate_limiter.usage import Usage

ROWS = 10_000
"""Calls whose rows are kept."""
CELLS = 50_000
"""Sums that are kept; beyond, the oldest hours become days, and the oldest days lose their labels."""


class MemoryLedger:
    """Rows and sums, bounded: whatever is dropped or rolled up, no cent of the sums is lost.

    Args:
        keep: how long what is kept.
    """

    durable = False
    patience = -1.0

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._rows: deque[Note] = deque(maxlen=ROWS)
        self._hours: dict[int, dict[Key, Sums]] = {}
        self._days: dict[int, dict[Key, Sums]] = {}
        self._cells = 0
        self._generation = 0  # rises when sums move, for accounts remember where theirs are

    def write(self, notes: Sequence[Note], now: int) -> None:  # noqa: ARG002 - nothing is dropped by its age here
        """Add calls."""
        last, start, sums = None, 0, []
        for account, usage, nano, at, _, _, _, _ in notes:
            if account is not last or not start <= at < start + HOUR or usage.cost is not None:
                last = account if usage.cost is None else None
                start = at - at % HOUR
                sums = self._sums(account, usage, start)
            sums[0] += usage.requests
            sums[1] += usage.input_tokens
            sums[2] += usage.output_tokens
            sums[3] += usage.cached_input_tokens
            sums[4] += nano or 0
        self._rows.extend(notes)

    def _sums(self, account: Account, usage: Usage, start: int) -> Sums:
        """Where a call of that hour is summed up; an account remembers where that was."""
        place = account.place
        if place is not None and place[0] == start and place[1] == self._generation and usage.cost is None:
            found: Sums = place[2]
            return found
        if self._cells >= CELLS:
            self._shrink()
        sums = self._add(self._hours, start, key_of(account, usage))
        if usage.cost is None:
            account.place = (start, self._generation, sums)
        return sums

    def _add(self, period: dict[int, dict[Key, Sums]], start: int, key: Key) -> Sums:
        cells = period.setdefault(start, {})
        sums = cells.get(key)
        if sums is None:
            sums = cells[key] = [0] * len(COLUMNS)
            self._cells += 1
        return sums

    def sums(
        self, since: int | None, until: int | None, period: Callable[[int], str] | None = None
    ) -> Iterable[tuple[str, Key, Sums]]:
        """Sum up a span of time, or each period in it."""
        found: dict[tuple[str, Key], Sums] = {}
        for kept, length in ((self._days, DAY), (self._hours, HOUR)):
            for start, cells in kept.items():
                if (since is None or start + length > since) and (until is None or start <= until):
                    name = "" if period is None else period(start)
                    for key, sums in cells.items():
                        _plus(found.setdefault((name, key), [0] * len(COLUMNS)), sums)
        return ((name, key, sums) for (name, key), sums in found.items())

    def rows(self, since: int | None, until: int | None, last: int) -> list[Row]:
        """Return the last calls."""
        wanted = (
            note
            for note in reversed(self._rows)
            if (since is None or note[3] >= since) and (until is None or note[3] <= until)
        )
        return [row_of(note) for note in islice(wanted, last)]

    def compact(self, now: int) -> None:
        """Drop and roll up all that is old enough."""
        end = self._keep.rows_end(now)
        self._rows = deque((note for note in self._rows if note[3] >= end), maxlen=ROWS)
        for start in [start for start in self._hours if start < self._keep.hours_end(now)]:
            self._roll_up(start)

    def close(self) -> None:
        """There is nothing to let go of."""

    def _shrink(self) -> None:
        """Make room: roll up the older half of the hours, or else leave out the labels of the older days."""
        hours = sorted(self._hours)
        for start in hours[: len(hours) // 2]:
            self._roll_up(start)
        if self._cells >= CELLS:
            for start in sorted(self._days)[:-1] or list(self._days):
                self._fold(self._days, self._days.pop(start), start, None)
        if self._cells >= CELLS:  # all of it in one hour: sums of the current hour lose their labels
            for start in hours[len(hours) // 2 :]:
                self._fold(self._hours, self._hours.pop(start), start, None)

    def _roll_up(self, start: int) -> None:
        self._fold(self._days, self._hours.pop(start), start - start % DAY, self._keep.passing)

    def _fold(
        self, into: dict[int, dict[Key, Sums]], cells: Mapping[Key, Sums], start: int, without: tuple[str, ...] | None
    ) -> None:
        """Move sums to another period, without some labels; None is without any."""
        self._generation += 1
        self._cells -= len(cells)
        for key, sums in cells.items():
            names = [name for name, _ in key.labels] if without is None else without
            _plus(self._add(into, start, key.without(names)), sums)


def _plus(total: Sums, more: Sums) -> None:
    for place, amount in enumerate(more):
        total[place] += amount
