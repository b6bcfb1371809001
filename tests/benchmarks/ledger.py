"""What the books cost on every call, and how long a report takes."""

from __future__ import annotations

import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from pathlib import Path

from agent_rate_limiter import CostTracker, Estimate, MultiProviderLimiter, Provider, Usage
from agent_rate_limiter.costs.accounts import Account
from agent_rate_limiter.costs.quotes import Quote
from agent_rate_limiter.ledger import DAY, HOUR, Note
from agent_rate_limiter.ledger import statements as say
from agent_rate_limiter.limits import NANO_PER_DOLLAR, Target
from agent_rate_limiter.stores.sqlite.rows import DROP, SAVE
from tests.benchmarks import measure
from tests.benchmarks.measure import Contender, interleave, timed
from tests.benchmarks.report import Cell, Goal, Report, Table

ABOUT = "the same call with and without its books; a transaction of the same rows; a report over a million rows"
TARGET = "openai:gpt-4"
ROWS = 1_000_000
TURN_SECONDS = 0.002
WITHOUT, MEMORY, FILE = "without books", "books in memory", "books in a file"
STORE, BARE = "limits and books on one file", "bare transaction: a row and its hour's sums"
BARE_BOTH = "two bare transactions: as limits and books on one file"


def run(*, quick: bool) -> Report:
    """Time calls in the same rounds, and reports over a file that is filled first."""
    report = Report("ledger", ABOUT)
    with tempfile.TemporaryDirectory() as folder:
        group = {name: Contender(name, timed(turn)) for name, turn in _contenders(Path(folder))}
        for contender in group.values():
            contender.turn(1_000)  # the first calls make what the rest shares
        interleave(list(group.values()), 40 if quick else 300, TURN_SECONDS)
        report.tables.append(_calls(group))
        report.goals += _goals(group)
        rows = ROWS // 10 if quick else ROWS
        with _filled(Path(folder) / "rows.db", rows) as costs:
            slowest = _reports(costs, rows, report)
    what = "the slowest of these reports over a million rows"
    report.goals.append(
        Goal(what, None, 1, unit=" s", why="only without --quick") if quick else Goal(what, slowest, 1, unit=" s")
    )
    report.notes += [
        f"Turns of {TURN_SECONDS * 1000:.0f} ms taken in rotation; {measure.CLOCK_NOTE}.",
        "Reports: wall-clock time, the median of 5. Goals use the median of each round's ratio.",
    ]
    return report


# -- calls -----------------------------------------------------------------------------------------------------


class _NoBooks(Account):
    __slots__ = ()

    def book(  # noqa: PLR0917 - as what it stands for
        self,
        usage: Usage,
        nano: int,
        at: int,
        took: int = 0,
        outcome: str = "",
        attempts: int = 1,
        estimate: Estimate | None = None,
    ) -> float:
        return nano / NANO_PER_DOLLAR


class _Unkept(CostTracker):
    def account(
        self, target: Target, labels: Mapping[str, str], quote: Callable[[int | None], Quote] | None = None
    ) -> Account:
        made = super().account(target, labels, quote)
        return _NoBooks(self, target, made.labels, made._quote)


def _contenders(folder: Path) -> Iterator[tuple[str, Callable[[int], None]]]:
    yield WITHOUT, _calls_of(_limiter(ledger=_Unkept()))
    yield MEMORY, _calls_of(_limiter())
    yield FILE, _calls_of(_limiter(ledger=f"sqlite:///{folder}/ledger.db"))
    yield STORE, books_on_one_file(folder / "both.db")
    yield BARE, _bare(folder / "bare.db")
    yield BARE_BOTH, bare_of_both(folder / "bare_of_both.db")


def _limiter(**options: object) -> MultiProviderLimiter:
    model = {"rpm": 10**9, "tpm": 10**12, "input_per_1m": 10, "output_per_1m": 30}
    return MultiProviderLimiter([Provider("openai", {"gpt-4": model})], budget_limit=1e9, **options)  # type: ignore[arg-type]


def _calls_of(limiter: MultiProviderLimiter) -> Callable[[int], None]:
    def run_calls(calls: int) -> None:
        for _ in repeat(None, calls):
            call = limiter.acquire(TARGET, Estimate(input_tokens=800, max_output_tokens=400))
            call.settle(Usage(input_tokens=800, output_tokens=300))

    return run_calls


def books_on_one_file(path: Path) -> Callable[[int], None]:
    """Return what makes calls whose limits, budget and books share a file."""
    return _calls_of(_limiter(store=f"sqlite:///{path}"))


def _bare(path: Path) -> Callable[[int], None]:
    """The same row and the same sums, on the same tables, by nothing but the sqlite3 module."""
    CostTracker(f"sqlite:///{path}").close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    row, hour = _row_and_hour()

    def run_calls(calls: int) -> None:
        execute = connection.execute
        for _ in repeat(None, calls):
            execute("BEGIN IMMEDIATE")
            execute(say.INSERT, row)
            execute(say.ADD_HOUR, hour)
            execute("COMMIT")

    return run_calls


def bare_of_both(path: Path) -> Callable[[int], None]:
    """Write what one call writes where limits and books share a file, by nothing but the sqlite3 module.

    One transaction for its admission: the limits, the time, the call in flight. One for its end: the limits, the
    time, the call in flight deleted, its row, and the sums of its hour. Nothing is read, checked or worked out.
    """
    limiter = _limiter(store=f"sqlite:///{path}")
    _calls_of(limiter)(20)
    call = limiter.acquire(TARGET, Estimate(input_tokens=800, max_output_tokens=400))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    found = connection.execute("SELECT * FROM limits_rows WHERE key >= 'bucket:' AND key < 'i'").fetchall()
    call.settle()
    limiter.close()
    held = [row for row in found if row[0].startswith("hold:")]
    limits = [row for row in found if row not in held]
    row, hour = _row_and_hour()

    def run_calls(calls: int) -> None:
        execute, many = connection.execute, connection.executemany
        for _ in repeat(None, calls):
            execute("BEGIN IMMEDIATE")
            many(SAVE, limits + held)
            execute("COMMIT")
            execute("BEGIN IMMEDIATE")
            many(SAVE, limits)
            execute(DROP, held[0][:1])
            execute(say.INSERT, row)
            execute(say.ADD_HOUR, hour)
            execute("COMMIT")

    return run_calls


def _row_and_hour() -> tuple[tuple[int | str, ...], tuple[int, ...]]:
    at = time.time_ns() // 10**6
    row = (1, at, 1, 800, 300, 0, 0, 0, 0, 0, 0, 17_000_000, 20_000_000, 812, "ok", 1)
    return row, (1, at - at % HOUR, 1, 800, 300, 0, 17_000_000)


def _calls(group: dict[str, Contender]) -> Table:
    columns = {
        "acquire + settle of one call": "",
        "µs a call": ".2f",
        "spread": "",
        "x without": ".2f",
        "x bare": ".2f",
    }
    rows: list[list[Cell]] = [
        [it.name, it.median * 1e6, f"±{it.spread:.0%}", it.times(group[WITHOUT]), it.times(group[BARE])]
        for it in group.values()
    ]
    return Table("calls", columns, rows)


def _goals(group: dict[str, Contender]) -> Iterator[Goal]:
    yield Goal("memory: with books beside without", group[MEMORY].times(group[WITHOUT]), 1.2)
    yield Goal("file: acquire + settle beside one bare transaction", group[FILE].times(group[BARE]), 2)
    yield Goal("limits and books on one file, beside two bare transactions", group[STORE].times(group[BARE_BOTH]), 2)


# -- reports ---------------------------------------------------------------------------------------------------


def _filled(path: Path, rows: int) -> CostTracker:
    """A month of calls of 200 agents to 5 models, at random: a million of them make half a million sums."""
    costs = CostTracker(f"sqlite:///{path}", on_unknown_price="zero", keep_rows=40, keep_hours=40)
    now = time.time_ns() // 10**6
    accounts = [costs.account(Target("p", f"m{k % 5}"), {"agent": f"a{k // 5}"}) for k in range(1_000)]
    usage = Usage(input_tokens=800, output_tokens=300)
    for start in range(0, rows, 10_000):
        measure.progress(f"{start:,} of {rows:,} rows")
        notes: list[Note] = [
            (random.choice(accounts), usage, 17_000_000, now - random.randrange(30 * DAY), 812, "ok", 1, None)
            for _ in range(10_000)
        ]
        costs._ledger.write(notes, now)
    return costs


def _reports(costs: CostTracker, rows: int, report: Report) -> float:
    asked: dict[str, Callable[[], object]] = {
        "by provider and model": costs.report,
        "by agent and model": lambda: costs.report(("agent", "model")),
        "by agent, of the last week": lambda: costs.report(("agent",), since=time.time() - 7 * 86_400),
        "the last 1,000 calls": lambda: costs.rows(1_000),
        "the total": lambda: costs.total,
        "by model and day": lambda: costs.report(("model",), every="day"),
    }
    found = {name: _seconds(ask) for name, ask in asked.items()}
    table: list[list[Cell]] = [[name, seconds] for name, seconds in found.items()]
    report.tables.append(Table(f"reports over {rows:,} rows", {"report": "", "seconds": ".3f"}, table))
    return max(found.values())


def _seconds(ask: Callable[[], object]) -> float:
    taken: list[float] = []
    for _ in range(5):
        start = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[2]
