"""What a SQLite ledger says to its file. All tables begin with `ledger_`: a limiter's store may be in the same file."""

# ruff: noqa: S608 - everything here is made of constants, values are bound
from __future__ import annotations

from agent_rate_limiter.ledger import COLUMNS, DAY, HOUR

VERSION = 1
"""Of the tables."""
TABLES = f"""
CREATE TABLE IF NOT EXISTS ledger_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger_accounts (
    id INTEGER PRIMARY KEY, provider TEXT NOT NULL, model TEXT NOT NULL, labels TEXT NOT NULL, source TEXT NOT NULL,
    UNIQUE (provider, model, labels, source)
);
CREATE TABLE IF NOT EXISTS ledger_rows (
    id INTEGER PRIMARY KEY, account INTEGER NOT NULL, at INTEGER NOT NULL,
    requests INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL, cache_write_1h_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL, input_audio_tokens INTEGER NOT NULL, output_audio_tokens INTEGER NOT NULL,
    cost INTEGER NOT NULL, estimate INTEGER NOT NULL, latency INTEGER NOT NULL, outcome TEXT NOT NULL,
    attempts INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS ledger_hours (
    account INTEGER, start INTEGER, requests INTEGER NOT NULL, input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, cached_input_tokens INTEGER NOT NULL, cost INTEGER NOT NULL,
    PRIMARY KEY (account, start)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger_days (
    account INTEGER, start INTEGER, requests INTEGER NOT NULL, input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, cached_input_tokens INTEGER NOT NULL, cost INTEGER NOT NULL,
    PRIMARY KEY (account, start)
) WITHOUT ROWID;
INSERT OR IGNORE INTO ledger_meta VALUES ('version', '{VERSION}');
"""
_PLUS = ", ".join(f"{name} = {name} + excluded.{name}" for name in COLUMNS)
INSERT = f"INSERT INTO ledger_rows VALUES (NULL, {', '.join('?' * 16)})"
ADD_HOUR = f"INSERT INTO ledger_hours VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (account, start) DO UPDATE SET {_PLUS}"
ADD_DAYS = f"""
    INSERT INTO ledger_days
    SELECT ?, start - start % {DAY} AS day, sum(requests), sum(input_tokens), sum(output_tokens),
           sum(cached_input_tokens), sum(cost)
    FROM ledger_hours WHERE account = ? AND start < ? GROUP BY day
    ON CONFLICT (account, start) DO UPDATE SET {_PLUS}
"""
_SUMS = ", ".join(f"sum({name})" for name in COLUMNS)
_TABLES = (("ledger_hours", HOUR), ("ledger_days", DAY))
TOTALS = " UNION ALL ".join(
    f"SELECT account, 0, {_SUMS} FROM {table} WHERE start > :since - {length} AND start <= :until GROUP BY account"
    for table, length in _TABLES
)
PERIODS = "CREATE TEMP TABLE IF NOT EXISTS ledger_periods (start INTEGER PRIMARY KEY, number INTEGER NOT NULL)"
DROP_PERIODS = "DELETE FROM temp.ledger_periods"
ADD_PERIOD = "INSERT OR IGNORE INTO temp.ledger_periods VALUES (?, ?)"
BOUNDS = "SELECT min(start), max(start) FROM {table} WHERE start > :since - {length} AND start <= :until"
BY_PERIOD = " UNION ALL ".join(
    f"SELECT account, number, {_SUMS} FROM {table} JOIN temp.ledger_periods USING (start) "
    f"WHERE start > :since - {length} AND start <= :until GROUP BY account, number"
    for table, length in _TABLES
)
ROWS = "SELECT * FROM ledger_rows WHERE at >= :since AND at <= :until ORDER BY id DESC LIMIT :last"
FIND_ID = "SELECT id FROM ledger_accounts WHERE provider = ? AND model = ? AND labels = ? AND source = ?"
ADD_ID = "INSERT OR IGNORE INTO ledger_accounts VALUES (NULL, ?, ?, ?, ?)"
KEYS = "SELECT * FROM ledger_accounts WHERE id IN (SELECT value FROM json_each(?))"
OLDEST = "SELECT id, at FROM ledger_rows ORDER BY id LIMIT 1"
DROP_ROWS = "DELETE FROM ledger_rows WHERE id < ? AND at < ?"
NEXT_HOURS = "SELECT account, start FROM ledger_hours WHERE account > ? ORDER BY account, start LIMIT 1"
DROP_HOURS = "DELETE FROM ledger_hours WHERE account = ? AND start < ?"
