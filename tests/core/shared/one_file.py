"""Limiters whose limits and books are in one SQLite file, and what is to be seen of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

from agent_rate_limiter import Estimate, MultiProviderLimiter, Provider, Usage
from agent_rate_limiter.stores.sqlite.store import SQLiteStore

MODEL = {"rpm": 10**6, "tpm": 10**9, "input_per_1m": 1, "output_per_1m": 2}
DOLLAR = Usage(input_tokens=10**6)
ONE, NOTHING = Estimate(input_tokens=10**6, max_output_tokens=1), Estimate(requests=0, max_output_tokens=1)


def make(path: Path, **options: Any) -> MultiProviderLimiter:
    options = {"budget_limit": 10**6, "store": f"sqlite:///{path}", **options}
    return MultiProviderLimiter([Provider("p", {"m": MODEL})], **options)


def call(limiter: MultiProviderLimiter) -> None:
    limiter.acquire("p:m", ONE).settle(DOLLAR)


def spent(limiter: MultiProviderLimiter) -> tuple[float, float]:
    """Dollars that the budget has lost, and dollars in the books."""
    limiter.acquire("p:m", NOTHING).cancel()
    (budget,) = (limit for limit in limiter.snapshot().limits if limit.resource == "cost")
    return round(budget.amount - budget.available, 3), round(limiter.costs.total, 3)


def rows(path: Path, like: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT count(*) FROM limits_rows WHERE key LIKE ?", (like,)).fetchone()
    return int(found[0])


@contextmanager
def statements(store: SQLiteStore) -> Iterator[list[str]]:
    """Note what is said to the file."""
    said: list[str] = []
    with store.file.reading(store, 1) as connection:
        connection.set_trace_callback(said.append)
    yield said
    with store.file.reading(store, 1) as connection:
        connection.set_trace_callback(None)


def store_of(limiter: Any) -> SQLiteStore:
    return cast("SQLiteStore", limiter._calls.engine._shared)
