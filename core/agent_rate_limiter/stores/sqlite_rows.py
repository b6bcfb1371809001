"""The rows of one SQLite transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from agent_rate_limiter.engine.port import Rule
from agent_rate_limiter.stores.codec import rule_of, rule_text
from agent_rate_limiter.stores.lines import Line
from agent_rate_limiter.stores.steps import HOUR, Kept, Row

SCHEMA = 1
TABLES = """
CREATE TABLE IF NOT EXISTS limits_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS limits_buckets (
    key TEXT PRIMARY KEY, rev INTEGER NOT NULL, state TEXT NOT NULL, expires INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS limits_buckets_expires ON limits_buckets (expires);
CREATE TABLE IF NOT EXISTS limits_lines (key TEXT PRIMARY KEY, line TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS limits_rules (key TEXT PRIMARY KEY, rule TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS limits_members (member TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS limits_holds (
    member TEXT, hold INTEGER, kept TEXT NOT NULL, PRIMARY KEY (member, hold)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS limits_texts (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS limits_claims (key TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID;
"""
_MARGIN = HOUR
"""Milliseconds that a bucket's row is kept after it has become as good as a fresh one."""
SWEEP_EVERY, _SWEEP = 512, 1_000
"""Steps after which rows that have expired are looked for, and how many are deleted at once."""


class Rows:
    """The tables of one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        meta = dict(self._execute("SELECT name, value FROM limits_meta"))
        self._clock = meta.get("clock", 0)
        self.version = meta.get("rules", 0)

    def latest(self, now: int) -> int:
        """Time does not go back by less than a minute; a clock that was set back by more is believed."""
        now = max(now, self._clock) if self._clock - now < 60_000 else now  # noqa: PLR2004 - a minute
        if now != self._clock:
            self._set("clock", now)
        return now

    def _set(self, name: str, value: int) -> None:
        self._execute("INSERT OR REPLACE INTO limits_meta VALUES (?, ?)", (name, value))

    def buckets(self, keys: Sequence[str]) -> Mapping[str, Row]:
        """Return those of the buckets that are there."""
        found = self._execute(
            "SELECT key, rev, state FROM limits_buckets WHERE key IN (SELECT value FROM json_each(?))",
            (json.dumps(keys),),
        )
        return {key: (rev, json.loads(state)) for key, rev, state in found}

    def save_bucket(self, key: str, row: Row, idle_in: int, now: int) -> None:
        """Keep a bucket until it is idle, and a while longer."""
        expires = (now + idle_in + _MARGIN) // HOUR + 1  # in hours: the index changes seldom
        self._execute(
            "INSERT OR REPLACE INTO limits_buckets VALUES (?, ?, ?, ?)", (key, row[0], json.dumps(row[1]), expires)
        )

    def lines(self, keys: Sequence[str]) -> Mapping[str, Line]:
        """Return those of the lines that are there."""
        found = self._execute(
            "SELECT key, line FROM limits_lines WHERE key IN (SELECT value FROM json_each(?))", (json.dumps(keys),)
        )
        return {key: Line.of(line) for key, line in found}

    def save_line(self, key: str, line: Line) -> None:
        """Keep a line, or drop it if nobody stands there."""
        if line.tickets:
            self._execute("INSERT OR REPLACE INTO limits_lines VALUES (?, ?)", (key, line.as_text()))
        else:
            self._execute("DELETE FROM limits_lines WHERE key = ?", (key,))

    def rules(self, than: int) -> Mapping[str, Rule]:
        """Return every rule, if one was changed since that version."""
        if self.version <= than:
            return {}
        return {key: rule_of(rule) for key, rule in self._execute("SELECT key, rule FROM limits_rules")}

    def save_rule(self, key: str, rule: Rule) -> None:
        """Keep a rule."""
        self.version += 1
        self._set("rules", self.version)
        self._execute("INSERT OR REPLACE INTO limits_rules VALUES (?, ?)", (key, rule_text(rule)))

    def keep(self, member: str, hold: int, kept: Kept) -> None:
        """Remember a hold."""
        self._execute("INSERT OR REPLACE INTO limits_holds VALUES (?, ?, ?)", (member, hold, json.dumps(kept)))

    def release(self, member: str, hold: int) -> bool:
        """Forget a hold."""
        return self._execute("DELETE FROM limits_holds WHERE member = ? AND hold = ?", (member, hold)).rowcount > 0

    def beat(self, member: str, until: int) -> None:
        """A member is alive; written once a second at most."""
        self._execute(
            "INSERT INTO limits_members VALUES (?1, ?2) ON CONFLICT DO UPDATE SET until = ?2 WHERE until <= ?2 - 1000",
            (member, until),
        )

    def members(self) -> int:
        """How many are alive."""
        return int(self._execute("SELECT count(*) FROM limits_members").fetchone()[0])

    def bury(self, now: int) -> Iterable[Kept]:
        """Forget the members that are dead; return what they held."""
        dead = self._execute("SELECT member FROM limits_members WHERE until < ?", (now,)).fetchall()
        held: list[Kept] = []
        for member in dead:
            rows = self._execute("SELECT kept FROM limits_holds WHERE member = ?", member)
            held += [Kept(*json.loads(kept)) for (kept,) in rows]
            self._execute("DELETE FROM limits_holds WHERE member = ?", member)
            self._execute("DELETE FROM limits_members WHERE member = ?", member)
        return held

    def sweep(self, now: int) -> None:
        """Delete some of the rows that have expired."""
        self._execute(
            "DELETE FROM limits_buckets WHERE key IN (SELECT key FROM limits_buckets WHERE expires < ? LIMIT ?)",
            (now // HOUR, _SWEEP),
        )
