"""What the tests of a ledger in a file share."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from agent_rate_limiter import CostTracker, Price, Usage

PRICES = {"p:a": Price(1, 2)}
MILLION = Usage(input_tokens=10**6)


def reopened(path: Path) -> CostTracker:
    return CostTracker(f"sqlite:///{path}")


def count(path: Path, table: str = "ledger_rows") -> int:
    with sqlite3.connect(path) as connection:
        (found,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - a constant
    connection.close()
    return int(found)
