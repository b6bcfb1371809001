"""One atomic step over whatever keeps the rows: what SQLite runs in a transaction. `step.lua` is its twin for Redis.

Pure but for the tables that it is given: it reads no clock, and does no I/O of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from agent_rate_limiter.engine.port import (
    Answer,
    Batch,
    Correct,
    Leave,
    Reserve,
    Rule,
    Settle,
    Stand,
    Write,
)
from agent_rate_limiter.stores.lines import Line
from agent_rate_limiter.stores.slots import Slot
from agent_rate_limiter.strategies import (
    Concurrency,
    FixedWindow,
    Gate,
    SlidingWindow,
    Strategy,
    TokenBucket,
)
from agent_rate_limiter.strategies.numbers import lost_with_its_member

HOUR = 3_600_000
LONGEST = 400 * 24 * HOUR
"""Milliseconds that a total without a reset is kept after it was drawn on last."""
_SCOPE_LASTS = 24 * HOUR
"""The same for the budget of one scope: nobody comes back to it."""


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

    def buckets(self, keys: Sequence[str]) -> Mapping[str, Slot]:
        """Return these buckets, fresh ones for those that are not kept; perhaps more."""
        ...

    def save_bucket(self, slot: Slot, idle_in: int, now: int) -> None:
        """Keep a bucket until it is idle, and a while longer."""
        ...

    def lines(self, keys: Sequence[str]) -> Mapping[str, Line]:
        """Return those of these lines that are there; perhaps more."""
        ...

    def save_line(self, key: str, line: Line, now: int) -> None:
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

    def beat(self, member: str, now: int, lease: int) -> None:
        """A member is alive, for so many milliseconds."""
        ...

    def members(self) -> int:
        """How many are alive."""
        ...

    def bury(self, now: int) -> Iterable[Kept]:
        """Forget the members that are dead; return what they held."""
        ...


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
        places = batch.places
        keys = [place.key for place in places]
        found, lines = tables.buckets(keys), tables.lines(keys)
        self._rules = rules = tables.rules(seen)
        self._lined = bool(lines)
        self._slots = slots = [found[key] for key in keys]
        for slot, place in zip(slots, places, strict=True):
            strategy, rev = place.strategy, place.rev
            if slot.rev != rev or slot.strategy is not strategy or slot.fresh:
                if slot.kept > rev and not rules:
                    self._rules = rules = tables.rules(-1)
                slot.turn(strategy, rev, rules, now)
            if lines and (line := lines.get(slot.key)) is not None:
                slot.line, slot.line_changed = line, line.prune(now)

    def run(self) -> Answer:
        """Do it all."""
        results = [self._do[command.__class__](self, command) for command in self._batch.commands]
        tables, now = self._tables, self._now
        tables.beat(self._batch.member, now, self._batch.lease)
        for slot in self._slots:
            if slot.changed and slot.strategy is not None:
                idle_in = slot.strategy.idle_in(slot.state, now)
                tables.save_bucket(slot, lasting(slot.key) if idle_in is None else idle_in, now)
            if slot.line is not None:
                if slot.line_changed:
                    tables.save_line(slot.key, slot.line, now)
                slot.line, slot.line_changed = None, False
        states = [(slot.rev, slot.state) for slot in self._slots]
        return Answer(now, tables.members(), results, states, self._rules)

    def _reserve(self, wish: Reserve) -> Any:
        slots, now = self._slots, self._now
        ahead = self._ahead(wish) if self._lined else None
        taken: list[tuple[Slot, int, Any]] = []
        for number, (place, amount) in enumerate(wish.amounts):
            slot = slots[place]
            take = slot.strategy.take
            state = take(slot.state, amount, now)
            if state is not None and ahead is not None and ahead[number]:  # not delayed, if there is enough for all
                state = state if take(slot.state, amount + ahead[number], now) is not None else None
            if state is None:
                return (0,) * len(wish.amounts) if ahead is None else ahead
            taken.append((slot, amount, state))
        for slot, _, state in taken:
            if state is not slot.state:
                slot.put(state)
        if wish.standing >= 0:
            self._out(slots[wish.standing], served=True)
        return self._keep(wish.hold, taken)

    def _ahead(self, wish: Reserve) -> tuple[int, ...]:
        """Units of those who go before, in each limit."""
        member, rank = self._batch.member, wish.rank
        lines = [(place, self._slots[place].line) for place, _ in wish.amounts]
        return tuple(
            0 if line is None else line.ahead_of(member, rank, standing=place == wish.standing) for place, line in lines
        )

    def _keep(self, hold: int, taken: list[tuple[Slot, int, Any]]) -> bool:
        """Remember a call whose member may die, if it would hold something for ever."""
        shares = [
            (slot.key, kind_of(slot.strategy), amount)
            for slot, amount, state in taken
            if lost_with_its_member(slot.strategy, state)
        ]
        if shares:
            self._tables.keep(self._batch.member, hold, Kept(self._now, shares))
        return bool(shares)

    def _settle(self, end: Settle) -> None:
        if end.kept and not self._tables.release(self._batch.member, end.hold):  # charged already, its member for dead
            self._correct(Correct(end.taken_at, tuple((place, used - taken) for place, taken, used in end.changes)))
            return
        slots, taken_at, now = self._slots, end.taken_at, self._now
        for place, taken, used in end.changes:
            slot = slots[place]
            state = slot.strategy.settle(slot.state, taken, used, taken_at, now)
            if state is not slot.state:
                slot.put(state)

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

    def _out(self, slot: Slot, *, served: bool) -> None:
        if slot.line is not None:
            slot.line.leave(self._batch.member, served=served)
            slot.line_changed = True

    def _write(self, change: Write) -> bool:
        slot = self._slots[change.place]
        known = self._batch.places[change.place].rev
        if not slot.fresh and (slot.rev != known or slot.state != change.before):
            return False
        slot.changed = slot.changed or slot.strategy is not change.strategy  # it may be counted in other units
        slot.strategy = change.strategy
        slot.put(change.after)
        if change.rule is not None:
            slot.rev, slot.changed = change.rule.rev, True
            self._tables.save_rule(slot.key, change.rule)
        return True

    def _bury(self, now: int) -> None:
        for kept in self._tables.bury(now):
            found = self._tables.buckets([key for key, _, _ in kept.shares])
            for key, kind, amount in kept.shares:
                slot = found[key]
                if not slot.fresh:
                    slot.charge(_charged(kind, slot.numbers, amount, kept.taken_at))
                    self._tables.save_bucket(slot, LONGEST, now)

    _do: ClassVar[dict[type, Callable[[Step, Any], Any]]] = {
        Reserve: _reserve,
        Settle: _settle,
        Correct: _correct,
        Stand: _stand,
        Leave: _leave,
        Write: _write,
    }


def lasting(key: str) -> int:
    """Milliseconds that a bucket is kept which time alone does not make idle."""
    return _SCOPE_LASTS if key.startswith("scope-") else LONGEST


def kind_of(strategy: Strategy) -> str:
    """Return a strategy's letter in the tables."""
    return _KINDS[strategy.__class__]


_KINDS: dict[type, str] = {TokenBucket: "b", FixedWindow: "f", Concurrency: "c", Gate: "g", SlidingWindow: "s"}


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
