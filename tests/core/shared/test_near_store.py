"""A store that is near: the short way of calls, what leaves it, and what a step remembers of the last one."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from agent_rate_limiter import Limit, LimiterClosed, RateLimiter, Resource, StoreUnavailable, Usage
from agent_rate_limiter.engine.near import NearEngine
from agent_rate_limiter.engine.port import Answer, Batch, Hold, Place, Reserve, Rule, SharedStore, Write
from agent_rate_limiter.providers.model import Failure, FailureKind
from agent_rate_limiter.stores import open_store
from agent_rate_limiter.stores.sqlite import rows
from agent_rate_limiter.stores.sqlite.file import SQLiteFile
from agent_rate_limiter.stores.sqlite.store import SQLiteStore
from agent_rate_limiter.strategies import strategy_for
from agent_rate_limiter.testing import ManualClock
from tests.contract.direct import Direct

NOW = 1_767_225_600_000
RPM = Limit(Resource.REQUESTS, 10, "minute")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "limits.db"


@pytest.fixture
def limiter(path: Path, manual_clock: ManualClock) -> RateLimiter:
    return RateLimiter(rpm=10, store=f"sqlite:///{path}", clock=manual_clock, ledger="memory://")


def short_ways(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note of each call whether it went the short way."""
    found: list[bool] = []
    reserve = NearEngine.reserve_now

    def spy(self: NearEngine, hold: Hold, priority: int) -> bool:
        found.append(reserve(self, hold, priority))
        return found[-1]

    monkeypatch.setattr(NearEngine, "reserve_now", spy)
    return found


def left(limiter: RateLimiter) -> float:
    return limiter.snapshot().limits[0].available


# ---------------------------------------------------------------- the short way


def test_calls_that_need_not_wait_go_the_short_way(limiter: RateLimiter, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = short_ways(monkeypatch)

    async def main() -> None:
        (await limiter.acquire_async(timeout=1)).settle()

    limiter.acquire(timeout=1).settle()
    asyncio.run(main())
    assert limiter.try_acquire()
    assert ways == [True, True, True]
    assert left(limiter) == 7


def test_what_does_not_fit_goes_round_and_hears_why(limiter: RateLimiter, monkeypatch: pytest.MonkeyPatch) -> None:
    held = [limiter.acquire() for _ in range(10)]
    ways = short_ways(monkeypatch)
    decision = limiter.try_acquire()
    assert not decision
    assert "'10 requests/minute'" in str(decision)
    assert ways == [False]
    assert len(held) == 10


def test_nobody_overtakes_who_waits(limiter: RateLimiter, manual_clock: ManualClock) -> None:
    for _ in range(9):
        limiter.acquire().settle()

    async def main() -> list[str]:
        order: list[str] = []

        async def call(name: str, requests: int) -> None:
            (await limiter.acquire_async(requests=requests)).settle(Usage(requests=requests))
            order.append(name)

        big = asyncio.ensure_future(call("big", 2))
        await asyncio.sleep(0)
        small = asyncio.ensure_future(call("small", 1))  # it would fit
        await asyncio.sleep(0)
        manual_clock.advance(30)
        await asyncio.gather(big, small)
        return order

    assert asyncio.run(asyncio.wait_for(main(), 10)) == ["big", "small"]


def test_a_closed_limiter_says_so(limiter: RateLimiter) -> None:
    held = limiter.acquire()
    limiter.close()
    with pytest.raises(LimiterClosed, match="This limiter is closed"):
        limiter.acquire()
    held.settle()
    with pytest.raises(LimiterClosed):
        limiter.try_acquire()


def test_whatever_goes_wrong_on_the_short_way_the_long_one_is_left(
    limiter: RateLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter.acquire().settle()
    attempt = SQLiteStore.attempt

    def fail(self: SQLiteStore, batch: Batch, now: int | None) -> Answer | None:
        monkeypatch.setattr(SQLiteStore, "attempt", attempt)
        raise ZeroDivisionError

    monkeypatch.setattr(SQLiteStore, "attempt", fail)
    ways = short_ways(monkeypatch)
    for _ in range(3):
        limiter.acquire().settle()
    assert ways == [False, True, True]
    assert left(limiter) == 6


def test_a_rule_that_another_process_has_learned_is_obeyed(limiter: RateLimiter, path: Path) -> None:
    limiter.acquire().settle()
    bucket = limiter._calls.route(limiter.target).path[1]
    other = Direct(cast("SharedStore", open_store(f"sqlite:///{path}")), "other")
    lower = Limit(Resource.REQUESTS, 2, "minute", name="2 requests/minute (lowered)")
    theirs = other.bucket(bucket.key, bucket.limit, "", NOW)
    other.refresh([theirs], NOW)
    rule = Rule(1, lower, "", False)  # noqa: FBT003 - not searched for
    strategy = strategy_for(lower)
    after = strategy.settle(strategy.initial(NOW), 0, 1, NOW, NOW)
    assert other.step(lambda place: Write(place(theirs), theirs.state, after, strategy, rule), NOW)
    limiter.acquire().settle()
    assert bucket.limit.name == "2 requests/minute (lowered)"
    assert not limiter.try_acquire()


def test_a_refusal_closes_the_gate_for_all(limiter: RateLimiter, path: Path, manual_clock: ManualClock) -> None:
    other = RateLimiter(rpm=10, store=f"sqlite:///{path}", clock=manual_clock, ledger="memory://")
    other.acquire().cancel()
    call = limiter.acquire()
    call.fail(Failure(FailureKind.WAIT, retry_after=5.0, sent=True))
    assert not other.try_acquire()
    assert not limiter.try_acquire()
    manual_clock.advance(5)
    assert other.try_acquire()


# ---------------------------------------------------------------- what is remembered from step to step


def as_another_process(path: Path) -> SQLiteStore:
    """Return a store with a connection of its own."""
    store = SQLiteStore(path)
    store.file = SQLiteFile(path)
    return store


def step(store: SQLiteStore, now: int, member: str = "me", limit: Limit = RPM, lease: int = 10_000) -> Answer:
    place = Place(limit.name, strategy_for(limit), 0)
    return store.run(Batch(member, 0, lease, [place], [Reserve(1, 5, -1, ((0, 1),))]), now)


@pytest.mark.parametrize("make", [SQLiteStore, as_another_process])
def test_time_does_not_go_back_unless_far(path: Path, make: Callable[[Path], SQLiteStore]) -> None:
    one, other = SQLiteStore(path), make(path)
    assert step(one, NOW).now == NOW
    assert step(other, NOW - 30_000).now == NOW
    assert step(one, NOW - 120_000).now == NOW - 120_000
    assert step(other, NOW - 120_001).now == NOW - 120_000


def test_members_are_counted_and_who_was_taken_for_dead_comes_back(path: Path) -> None:
    one, other = SQLiteStore(path), as_another_process(path)
    assert step(one, NOW, "one").members == 1
    assert step(other, NOW + 500, "other").members == 2
    assert step(one, NOW + 600, "one").members == 2
    assert step(other, NOW + 10_001, "other").members == 1, "nothing was heard of one"
    assert step(one, NOW + 10_100, "one").members == 2
    assert step(other, NOW + 10_200, "third", lease=100).members == 3
    assert step(one, NOW + 10_301, "one").members == 2


def test_no_more_is_remembered_than_makes_sense(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_MOST_KNOWN", 3)
    monkeypatch.setattr(rows, "_AT_ONCE", 2)
    store = SQLiteStore(path)
    limits = [Limit(Resource.REQUESTS, 10, "minute", name=f"limit {number}") for number in range(8)]
    for times in (1, 2):
        for limit in limits:
            ((_, (debt, _)),) = step(store, NOW, limit=limit).states
            assert debt == times * 6_000, "of ten a minute"
    places = [Place(limit.name, strategy_for(limit), 0) for limit in limits]
    answer = store.run(Batch("me", 0, 10_000, places, []), NOW)
    assert [state[0] for _, state in answer.states] == [12_000] * 8


def test_rows_that_have_expired_are_swept_a_stretch_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_LOOKED_AT", 10)
    monkeypatch.setattr(rows, "_SWEEP_EVERY", 5)
    store = SQLiteStore(path)
    for number in range(40):
        step(store, NOW, limit=Limit(Resource.REQUESTS, 10, "minute", name=f"limit {number:02}"))
    later = NOW + 4 * 3_600_000
    for number in range(60):
        step(store, later + number)
    with closing(sqlite3.connect(path)) as connection:
        keys = [key for (key,) in connection.execute("SELECT key FROM limits_rows WHERE key LIKE 'bucket:%'")]
    assert keys == [f"bucket:{RPM.name}"]


# ---------------------------------------------------------------- the file


def test_a_file_that_cannot_be_brought_up_to_date_is_left_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE limits_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
            "INSERT INTO limits_meta VALUES ('schema', 1);"
        )
    with pytest.raises(StoreUnavailable, match="no such table: limits_members"):
        step(SQLiteStore(path), NOW)
    with closing(sqlite3.connect(path)) as connection:
        assert [name for (name,) in connection.execute("SELECT name FROM sqlite_master")] == ["limits_meta"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_in_the_middle_of_a_step_takes_no_connection_along(path: Path) -> None:
    store = SQLiteStore(path)
    with store.file.transaction(store, 1):
        child = os.fork()
        if child == 0:
            os._exit(0 if not store.file.is_ready(store) and not store.file.is_mine() else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert store.file.is_mine()
    assert step(store, NOW).now == NOW


class Guests:
    """Go along with others' transactions."""

    def __init__(self, file: SQLiteFile) -> None:
        self.told: list[bool] = []
        self.fails = False
        file.take_along(self.calm)
        file.take_along(self.clumsy)

    def calm(self, _: sqlite3.Connection) -> Callable[[bool], None]:
        return self.told.append

    def clumsy(self, _: sqlite3.Connection) -> Callable[[bool], None]:
        if self.fails:
            raise ZeroDivisionError

        def arrive(_: bool) -> None:
            raise ZeroDivisionError

        return arrive


def test_guests_hear_how_it_ended_and_who_fails_spoils_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = SQLiteStore(path)
    guests = Guests(store.file)

    def write(key: str) -> None:
        with store.file.transaction(store, 1, company=True) as connection:
            connection.execute("INSERT INTO limits_texts VALUES (?, 'text')", (key,))

    write("first")
    assert "could not be told how it ended" in caplog.text
    guests.fails = True
    write("second")
    with pytest.raises(sqlite3.IntegrityError):
        write("second")
    assert guests.told == [True, False, False], "the second time, it went alone"
    assert [store.recall(key) for key in ("first", "second")] == ["text", "text"]
    del guests
    write("third")


def test_the_way_of_who_is_not_near_is_the_long_one(path: Path) -> None:
    """What wraps a store may want to see everything."""

    class Wrapped:
        def __init__(self, store: SQLiteStore) -> None:
            self.store = store
            self.batches = 0

        def run(self, batch: Batch, now: int | None) -> Answer:
            self.batches += 1
            return self.store.run(batch, now)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

    wrapped = Wrapped(SQLiteStore(path))
    limiter = RateLimiter(rpm=10, store=cast("Any", wrapped), ledger="memory://")
    limiter.acquire().settle()
    assert wrapped.batches >= 1
    assert not isinstance(limiter._calls.engine, NearEngine)
