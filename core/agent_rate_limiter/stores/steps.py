"""One atomic step over whatever keeps the rows: what SQLite runs in a transaction. `step.lua` is its twin for Redis.

Pure but for the tables that it is given: it reads no clock, and does no I/O of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from agent_rate_limiter.engine.port import (
    Answer,
    Batch,
    Command,
    Correct,
    Leave,
    Place,
    Reserve,
    Rule,
    Settle,
    Stand,
    Write,
)
from agent_rate_limiter.stores.lines import Line
from agent_rate_limiter.strategies import (
    Concurrency,
    FixedWindow,
    Gate,
    SlidingWindow,
    Strategy,
    TokenBucket,
    strategy_for,
)
from agent_rate_limiter.strategies.numbers import lost_with_its_member, pack, unpack

HOUR = 3_600_000
LONGEST = 400 * 24 * HOUR
"""Milliseconds that a total without a reset is kept after it was drawn on last."""
_SCOPE_LASTS = 24 * HOUR
"""The same for the budget of one scope: nobody comes back to it."""

Row = tuple[int, list[int]]
"""Revision and numbers of a bucket."""


class Kept(NamedTuple):
    """What a store knows of a hold whose member may die: when it was taken, and what would be held for ever."""

    taken_at: int
    shares: list[tuple[str, str, int]]
    """Bucket, kind of strategy, units"""


class Tables(Protocol):
    """Rows, in one transaction."""

    def latest(self, now: int) -> int:
        """Return the time, which never goes back: `now`, or the last that was told."""
        ...

    def buckets(self, keys: Sequence[str]) -> Mapping[str, Row]:
        """Return those of the buckets that are there."""
        ...

    def save_bucket(self, key: str, row: Row, idle_in: int, now: int) -> None:
        """Keep a bucket until it is idle, and a while longer."""
        ...

    def lines(self, keys: Sequence[str]) -> Mapping[str, Line]:
        """Return those of the lines that are there."""
        ...

    def save_line(self, key: str, line: Line) -> None:
        """Keep a line, or drop it if nobody stands there."""
        ...

    def rules(self, than: int) -> Mapping[str, Rule]:
        """Return every rule, if one was changed since that version; else none."""
        ...

    @property
    def version(self) -> int:
        """How often rules were changed."""
        ...

    def save_rule(self, key: str, rule: Rule) -> None:
        """Keep a rule."""
        ...

    def keep(self, member: str, hold: int, kept: Kept) -> None:
        """Remember a hold."""
        ...

    def release(self, member: str, hold: int) -> bool:
        """Forget a hold; False when there was none."""
        ...

    def beat(self, member: str, until: int) -> None:
        """A member is alive."""
        ...

    def members(self) -> int:
        """How many are alive."""
        ...

    def bury(self, now: int) -> Iterable[Kept]:
        """Forget the members that are dead; return what they held."""
        ...


class _Slot:
    """One place during a step."""

    __slots__ = ("changed", "fresh", "key", "line", "line_changed", "rev", "state", "strategy")

    def __init__(self, place: Place, row: Row | None, rule: Rule | None, line: Line | None, now: int) -> None:
        self.key, self.strategy, self.rev = place.key, place.strategy, place.rev
        self.fresh = row is None
        if row is not None and row[0] > place.rev and rule is not None:
            self.strategy, self.rev = strategy_for(rule.limit), row[0]
        self.state = self.strategy.initial(now) if row is None else unpack(self.strategy, row[1])
        self.line = line
        self.changed = self.line_changed = False

    def put(self, state: Any) -> None:
        if state != self.state:
            self.state = state
            self.changed, self.fresh = True, False


class Step:
    """A batch, as it is worked off.

    Args:
        batch: what to do.
        tables: the rows.
        now: epoch milliseconds.
        seen: the version of the rules that the sender knows.
    """

    def __init__(self, batch: Batch, tables: Tables, now: int, seen: int) -> None:
        self._batch = batch
        self._tables = tables
        self._now = now = tables.latest(now)
        self._bury(now)
        keys = [place.key for place in batch.places]
        rows, lines = tables.buckets(keys), tables.lines(keys)
        newer = any(row[0] > place.rev for place in batch.places if (row := rows.get(place.key)))
        self._rules = tables.rules(-1 if newer else seen)
        self._slots = [
            _Slot(place, rows.get(place.key), self._rules.get(place.key), lines.get(place.key), now)
            for place in batch.places
        ]
        for slot in self._slots:
            if slot.line is not None:
                slot.line.prune(now)

    def run(self) -> Answer:
        """Do it all."""
        results = [self._do(command) for command in self._batch.commands]
        tables, now = self._tables, self._now
        tables.beat(self._batch.member, now + self._batch.lease)
        for slot in self._slots:
            if slot.changed:
                idle_in = slot.strategy.idle_in(slot.state, now)
                row = (slot.rev, pack(slot.strategy, slot.state))
                tables.save_bucket(slot.key, row, lasting(slot.key) if idle_in is None else idle_in, now)
            if slot.line_changed and slot.line is not None:
                tables.save_line(slot.key, slot.line)
        states = [(slot.rev, slot.state) for slot in self._slots]
        return Answer(now, tables.members(), results, states, self._rules)

    def _do(self, command: Command) -> Any:
        if isinstance(command, Reserve):
            return self._reserve(command)
        if isinstance(command, Settle):
            return self._settle(command)
        if isinstance(command, Correct):
            return self._correct(command)
        if isinstance(command, Stand):
            return self._stand(command)
        return self._leave(command) if isinstance(command, Leave) else self._write(command)

    def _reserve(self, wish: Reserve) -> Any:
        member, now = self._batch.member, self._now
        ahead: list[int] = []
        states: list[Any] = []
        fits = True
        for place, amount in wish.amounts:
            slot = self._slots[place]
            standing = place == wish.standing
            before = slot.line.ahead_of(member, wish.rank, standing=standing) if slot.line is not None else 0
            state = slot.strategy.take(slot.state, amount, now)
            fits = fits and state is not None
            if before and fits:  # whoever stands there is not delayed if there is enough for all
                fits = slot.strategy.take(slot.state, amount + before, now) is not None
            ahead.append(before)
            states.append(state)
        if not fits:
            return tuple(ahead)
        for (place, _), state in zip(wish.amounts, states, strict=True):
            self._slots[place].put(state)
        if wish.standing >= 0:
            self._out(self._slots[wish.standing], served=True)
        return self._keep(wish)

    def _keep(self, wish: Reserve) -> bool:
        shares = [
            (slot.key, kind_of(slot.strategy), amount)
            for place, amount in wish.amounts
            if lost_with_its_member((slot := self._slots[place]).strategy, slot.state)
        ]
        if shares:
            self._tables.keep(self._batch.member, wish.hold, Kept(self._now, shares))
        return bool(shares)

    def _settle(self, end: Settle) -> None:
        if end.kept and not self._tables.release(self._batch.member, end.hold):  # charged already, its member for dead
            self._correct(Correct(end.taken_at, tuple((place, used - taken) for place, taken, used in end.changes)))
            return
        for place, taken, used in end.changes:
            slot = self._slots[place]
            slot.put(slot.strategy.settle(slot.state, taken, used, end.taken_at, self._now))

    def _correct(self, more: Correct) -> None:
        for place, change in more.changes:
            slot = self._slots[place]
            slot.put(slot.strategy.settle(slot.state, 0, change, more.taken_at, self._now))

    def _stand(self, wish: Stand) -> int:
        slot = self._slots[wish.place]
        if slot.line is None:
            slot.line = Line()
        slot.line.stand(self._batch.member, wish, self._now)
        slot.line_changed = True
        return slot.line.ahead_of(self._batch.member, wish.rank, standing=True)

    def _leave(self, what: Leave) -> None:
        self._out(self._slots[what.place], served=False)

    def _out(self, slot: _Slot, *, served: bool) -> None:
        if slot.line is not None:
            slot.line.leave(self._batch.member, served=served)
            slot.line_changed = True

    def _write(self, change: Write) -> bool:
        slot = self._slots[change.place]
        known = self._batch.places[change.place].rev
        if not slot.fresh and (slot.rev != known or slot.state != change.before):
            return False
        slot.strategy = change.strategy
        slot.put(change.after)
        if change.rule is not None:
            slot.rev, slot.changed = change.rule.rev, True
            self._tables.save_rule(slot.key, change.rule)
        return True

    def _bury(self, now: int) -> None:
        for kept in self._tables.bury(now):
            rows = self._tables.buckets([key for key, _, _ in kept.shares])
            for key, kind, amount in kept.shares:
                if key in rows:
                    rev, numbers = rows[key]
                    left = _charged(kind, numbers, amount, kept.taken_at)
                    self._tables.save_bucket(key, (rev, left), LONGEST, now)


def lasting(key: str) -> int:
    """Milliseconds that a bucket is kept which time alone does not make idle."""
    return _SCOPE_LASTS if key.startswith("scope-") else LONGEST


def kind_of(strategy: Strategy) -> str:
    """Return a strategy's letter in the tables."""
    return next(letter for kind, letter in _KINDS if isinstance(strategy, kind))


_KINDS = ((TokenBucket, "b"), (FixedWindow, "f"), (Concurrency, "c"), (Gate, "g"), (SlidingWindow, "s"))


def _charged(kind: str, numbers: list[int], amount: int, taken_at: int) -> list[int]:
    """Charge a dead member's call what it had taken: only slots come back."""
    left = list(numbers)
    if kind == "c":
        left[0] = max(0, left[0] - amount)
    elif kind == "f":
        if taken_at >= left[0]:
            left[2] += amount
            left[3] -= amount
    elif kind == "s":
        left[1] = max(0, left[1] - amount)
    elif taken_at >= left[6]:
        left[2] = max(0, left[2] - amount)
    return left
