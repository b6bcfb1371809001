"""The tables that limits are kept in, and how those of an earlier version are brought up to date."""

from __future__ import annotations

import sqlite3

from agent_rate_limiter.stores.sqlite.rows import Head

# ruff: noqa: S608 - everything here is made of constants

SCHEMA = 2
_TABLES = (
    "CREATE TABLE IF NOT EXISTS limits_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE IF NOT EXISTS limits_rows (
        key TEXT PRIMARY KEY, value TEXT NOT NULL, expires INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS limits_rules (key TEXT PRIMARY KEY, rule TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS limits_texts (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS limits_claims (key TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID",
    f"INSERT OR IGNORE INTO limits_meta VALUES ('schema', {SCHEMA})",
)
_FROM_1 = (
    """INSERT INTO limits_rows
        SELECT 'bucket:' || key, '[' || rev || ', ' || substr(state, 2), expires FROM limits_buckets""",
    "INSERT INTO limits_rows SELECT 'hold:' || member || ':' || hold, kept, 0 FROM limits_holds",
    "INSERT INTO limits_rows SELECT 'member:' || member, until, 0 FROM limits_members",
    "DROP TABLE limits_buckets",
    "DROP TABLE limits_lines",
    "DROP TABLE limits_holds",
    "DROP TABLE limits_members",
    "DELETE FROM limits_meta WHERE name <> 'schema'",
    "UPDATE limits_meta SET value = 2 WHERE name = 'schema'",
)


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables, or bring those of an earlier version up to date, with all that lasts in them.

    Raises:
        sqlite3.DatabaseError: they are of a later version.
    """
    if _schema(connection) == SCHEMA:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        schema = _schema(connection)  # others may have been faster
        for statement in _TABLES if schema in {0, 1} else ():
            connection.execute(statement)
        if schema == 1:
            _bring_up_to_date(connection)
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise
    if schema > SCHEMA:
        message = f"its tables are of version {schema}, this library knows {SCHEMA}: upgrade the library"
        raise sqlite3.DatabaseError(message)


def _schema(connection: sqlite3.Connection) -> int:
    """Return the version of the tables; 0 where there are none."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'limits_meta'").fetchone() is None:
        return 0
    found = connection.execute("SELECT value FROM limits_meta WHERE name = 'schema'").fetchone()
    return 0 if found is None else int(found[0])


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    meta = dict(connection.execute("SELECT name, value FROM limits_meta"))
    members, soonest = connection.execute("SELECT count(*), min(until) FROM limits_members").fetchone()
    for statement in _FROM_1:
        connection.execute(statement)
    head = Head(meta.get("clock", 0), meta.get("rules", 0), 0, members, soonest or 0)
    connection.execute("INSERT INTO limits_rows VALUES ('head', ?, 0)", (head.as_text(),))
