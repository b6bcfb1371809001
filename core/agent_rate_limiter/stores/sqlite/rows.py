"""The rows of one SQLite file: what a transaction reads and writes, and what is known of them from the last one.

All that changes with every call is in one table, and so, in a file of usual size, on one page of it: a page costs
more than a row. What nobody else can have changed is not read again; what changed is written once, at the end.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from agent_rate_limiter.engine.port import Rule
from agent_rate_limiter.stores.codec import rule_of, rule_text
from agent_rate_limiter.stores.lines import Line
from agent_rate_limiter.stores.slots import Slot
from agent_rate_limiter.stores.steps import HOUR, Kept

_MARGIN = HOUR
"""Milliseconds that a bucket's row is kept after it has become as good as a fresh one."""
_SWEEP_EVERY, _LOOKED_AT = 512, 1_000
"""Steps, or new rows, after which rows that have expired are looked for; and how many are looked at."""
_MOST_KNOWN = 20_000
"""Buckets that are remembered."""
_AT_ONCE = 500
"""Keys in one question; some builds of SQLite take no more than 999."""
_BEAT = 1_000
"""Milliseconds between two signs of life, at most: a third of the lease, if that is less."""
_NEVER = 1 << 53
_BUCKET, _HOLD, _LINE, _MEMBER, _HEAD, _SWEEPER = "bucket:", "hold:", "line:", "member:", "head", "sweeper"
SAVE = (  # to replace a row takes half as long again
    "INSERT INTO limits_rows VALUES (?, ?, ?) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires"
)
DROP = "DELETE FROM limits_rows WHERE key = ?"
_THERE = "SELECT 1 FROM limits_rows WHERE key = ?"
_SPAN = "SELECT key, value FROM limits_rows WHERE key > ? AND key < ?"
_DROP_SPAN = "DELETE FROM limits_rows WHERE key > ? AND key < ?"
_COUNT = "SELECT count(*) FROM limits_rows WHERE key > ? AND key < ?"
_STRETCH = "SELECT max(key), count(*) FROM (SELECT key FROM limits_rows WHERE key > ? ORDER BY key LIMIT ?)"
_SWEEP = "DELETE FROM limits_rows WHERE key > ? AND key <= ? AND expires BETWEEN 1 AND ?"
_TO_DO = ("", "", 0)
"""Stands for a row that is written out at the end."""


class Memory:
    """What is known of the rows, as of one version of the file.

    Args:
        version: the file's, as `PRAGMA data_version` counts others' commits.
        beats: signs of life that this process has written, and how many burials there had been: member → until when.
    """

    __slots__ = ("beats", "buckets", "head", "lines", "version")

    def __init__(self, version: int, beats: Beats) -> None:
        self.version = version
        self.beats = beats
        self.head: Head | None = None
        self.buckets: dict[str, Slot] = {}
        self.lines: dict[str, Line] | None = None  # None: not read yet


class Beats:
    """Signs of life that this process has written: member → until when. They hold until somebody is buried."""

    __slots__ = ("burials", "until")

    def __init__(self) -> None:
        self.until: dict[str, int] = {}
        self.burials = 0


class Head:
    """What a store knows once.

    Args:
        clock: the time of the last step.
        rules: how often rules were changed.
        queued: lines that somebody may stand in.
        members: how many are alive.
        soonest: when the first of them may be dead, unless it is heard of; exact or too early.
        burials: how many were found dead.
    """

    __slots__ = ("burials", "clock", "members", "queued", "rules", "soonest")

    def __init__(  # noqa: PLR0917 - its row's numbers, in order
        self, clock: int = 0, rules: int = 0, queued: int = 0, members: int = 0, soonest: int = _NEVER, burials: int = 0
    ) -> None:
        self.clock = clock
        self.rules = rules
        self.queued = queued
        self.members = members
        self.soonest = soonest
        self.burials = burials

    def as_text(self) -> str:
        """Return its row."""
        return f"[{self.clock}, {self.rules}, {self.queued}, {self.members}, {self.soonest}, {self.burials}]"


class Sweeper:
    """When rows that have expired are looked for. One for each store object."""

    __slots__ = ("due",)

    def __init__(self) -> None:
        self.due = 0


class Rows:
    """One transaction.

    Args:
        connection: within the transaction.
        known: what is known from the last one; `memory` is what to remember for the next.
    """

    def __init__(self, connection: sqlite3.Connection, known: Memory | None) -> None:
        self._connection = connection
        self._execute = connection.execute
        (version,) = self._execute("PRAGMA data_version").fetchone()
        if known is None or known.version != version:
            known = Memory(version, Beats() if known is None else known.beats)
        self.memory = known
        self._head = known.head or self._read_head()
        self._saved: dict[str, tuple[str, str, int]] = {}
        self._new = 0

    def _read_head(self) -> Head:
        """Read what is there once; and forget our signs of life if somebody was taken for dead meanwhile."""
        memory = self.memory
        found = self._execute("SELECT value FROM limits_rows WHERE key = ?", (_HEAD,)).fetchone()
        head = memory.head = Head() if found is None else Head(*json.loads(found[0]))
        if memory.beats.burials != head.burials:
            memory.beats = Beats()
            memory.beats.burials = head.burials
        return head

    def latest(self, now: int) -> int:
        """Time does not go back by less than a minute; a clock that was set back by more is believed."""
        head = self._head
        if 0 < head.clock - now < 60_000:  # noqa: PLR2004 - a minute
            return head.clock
        if now != head.clock:
            head.clock = now
            self._saved[_HEAD] = _TO_DO
        return now

    @property
    def version(self) -> int:
        """How often rules were changed."""
        return self._head.rules

    # -- buckets -------------------------------------------------------------------------------------------

    def buckets(self, keys: Sequence[str]) -> Mapping[str, Slot]:
        """Return all that are known, these among them."""
        known = self.memory.buckets
        missing = [key for key in keys if key not in known]
        if missing:
            if len(known) > _MOST_KNOWN:
                known.clear()
                missing = list(keys)
            self._read(missing)
        return known

    def _read(self, keys: Sequence[str]) -> None:
        known = self.memory.buckets
        for key in keys:
            known[key] = Slot(key)
        for start in range(0, len(keys), _AT_ONCE):
            asked = [_BUCKET + key for key in keys[start : start + _AT_ONCE]]
            for name, value in self._execute(_question(len(asked)), asked):
                key, (rev, *numbers) = name[len(_BUCKET) :], json.loads(value)
                known[key] = Slot(key, rev, numbers)

    def save_bucket(self, slot: Slot, idle_in: int, now: int) -> None:
        """Keep a bucket until it is idle, and a while longer."""
        self._new += slot.kept < 0
        key = _BUCKET + slot.key
        self._saved[key] = (key, slot.text(), (now + idle_in + _MARGIN) // HOUR + 1)

    # -- lines ---------------------------------------------------------------------------------------------

    def lines(self, keys: Sequence[str]) -> Mapping[str, Line]:  # noqa: ARG002 - there are few
        """Return all that are there."""
        if not self._head.queued:
            return {}
        memory = self.memory
        if memory.lines is None:
            found = self._execute(_SPAN, (_LINE, _after(_LINE)))
            memory.lines = {key[len(_LINE) :]: Line.of(value) for key, value in found}
        return memory.lines

    def save_line(self, key: str, line: Line, now: int) -> None:
        """Keep a line, or drop it if nobody stands there."""
        lines = self.memory.lines
        if lines is None:
            lines = self.memory.lines = {}  # there was none
        there = key in lines
        if line.tickets:
            lines[key] = line
            self._saved[_LINE + key] = (_LINE + key, line.as_text(), now // HOUR + 2)
        elif there:
            del lines[key]
            self._execute(DROP, (_LINE + key,))
        if there != bool(line.tickets):
            self._head.queued += 1 - 2 * there
            self._saved[_HEAD] = _TO_DO

    # -- rules ---------------------------------------------------------------------------------------------

    def rules(self, than: int) -> Mapping[str, Rule]:
        """Return every rule, if one was changed since that version."""
        if self._head.rules <= than:
            return {}
        return {key: rule_of(rule) for key, rule in self._execute("SELECT key, rule FROM limits_rules")}

    def save_rule(self, key: str, rule: Rule) -> None:
        """Keep a rule."""
        self._head.rules += 1
        self._saved[_HEAD] = _TO_DO
        self._execute("INSERT OR REPLACE INTO limits_rules VALUES (?, ?)", (key, rule_text(rule)))

    # -- members -------------------------------------------------------------------------------------------

    def keep(self, member: str, hold: int, kept: Kept) -> None:
        """Remember a hold."""
        shares = ", ".join(f'[{_quoted(key)}, "{kind}", {units}]' for key, kind, units in kept.shares)
        key = f"{_HOLD}{member}:{hold}"
        self._saved[key] = (key, f"[{kept.taken_at}, [{shares}]]", 0)

    def release(self, member: str, hold: int) -> bool:
        """Forget a hold."""
        key = f"{_HOLD}{member}:{hold}"
        return self._saved.pop(key, None) is not None or self._execute(DROP, (key,)).rowcount > 0

    def beat(self, member: str, now: int, lease: int) -> None:
        """A member is alive for so long; written once a second at most."""
        beats, until = self.memory.beats.until, now + lease
        known = beats.get(member)
        if known is not None and abs(until - known) < min(_BEAT, lease // 3):
            return
        head = self._head
        if known is None and self._execute(_THERE, (_MEMBER + member,)).fetchone() is None:
            head.members += 1
        head.soonest = min(head.soonest, until)
        beats[member] = until
        self._saved[_MEMBER + member] = (_MEMBER + member, str(until), 0)
        self._saved[_HEAD] = _TO_DO

    def members(self) -> int:
        """How many are alive."""
        return self._head.members

    def bury(self, now: int) -> Iterable[Kept]:
        """Forget the members that are dead; return what they held."""
        head = self._head
        if now <= head.soonest:
            return ()
        found = {key: int(until) for key, until in self._execute(_SPAN, (_MEMBER, _after(_MEMBER)))}
        dead = [key[len(_MEMBER) :] for key, until in found.items() if until < now]
        alive = [until for until in found.values() if until >= now]
        head.members, head.soonest = len(alive), min(alive, default=_NEVER)
        head.burials += len(dead)
        self._saved[_HEAD] = _TO_DO
        self.memory.beats.burials = head.burials
        return [kept for member in dead for kept in self._buried(member)]

    def _buried(self, member: str) -> list[Kept]:
        prefix = f"{_HOLD}{member}:"
        rows = self._execute(_SPAN, (prefix, _after(prefix))).fetchall()
        self._execute(_DROP_SPAN, (prefix, _after(prefix)))
        self._execute(DROP, (_MEMBER + member,))
        self.memory.beats.until.pop(member, None)
        return [Kept(*json.loads(kept)) for _, kept in rows]

    # -- the end -------------------------------------------------------------------------------------------

    def end(self, sweeper: Sweeper) -> None:
        """Write what has changed."""
        self._write()
        sweeper.due -= 1 + self._new
        if sweeper.due <= 0:
            sweeper.due = _SWEEP_EVERY
            self._sweep(self._head.clock)
            self._write()

    def _write(self) -> None:
        saved = self._saved
        if saved:
            if _HEAD in saved:
                saved[_HEAD] = (_HEAD, self._head.as_text(), 0)
            self._connection.executemany(SAVE, saved.values())
            saved.clear()

    def _sweep(self, now: int) -> None:
        """Look at some of the rows, from where the last look ended, and delete those that have expired."""
        found = self._execute("SELECT value FROM limits_rows WHERE key = ?", (_SWEEPER,)).fetchone()
        start: str = "" if found is None else found[0]
        end, looked_at = self._execute(_STRETCH, (start, _LOOKED_AT)).fetchone()
        self._saved[_SWEEPER] = (_SWEEPER, end if looked_at == _LOOKED_AT else "", 0)
        if self._execute(_SWEEP, (start, end or "", now // HOUR - 1)).rowcount > 0:
            memory = self.memory
            memory.buckets.clear()
            memory.lines = None
            (self._head.queued,) = self._execute(_COUNT, (_LINE, _after(_LINE))).fetchone()
            self._saved[_HEAD] = _TO_DO


@lru_cache(maxsize=64)
def _question(keys: int) -> str:
    return f"SELECT key, value FROM limits_rows WHERE key IN ({', '.join('?' * keys)})"  # noqa: S608 - marks


def _after(prefix: str) -> str:
    """Return what follows all keys that begin with a prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


_quoted = lru_cache(maxsize=4_096)(json.dumps)
