"""Several limiters on one store, as several processes are: on virtual time, and with a store that can be lost."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from agent_rate_limiter import (
    AcquireTimeout,
    BudgetExceeded,
    ConfigError,
    Limit,
    LimiterClosed,
    MultiProviderLimiter,
    Provider,
    RateLimiter,
    RequestTooLarge,
    Reservation,
    ReservationError,
    Scope,
    StoreUnavailable,
    Usage,
)
from agent_rate_limiter.engine.port import Answer, Batch, SharedStore
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.providers.model import Failure, FailureKind, Quota
from agent_rate_limiter.stores import open_store
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.contract.opened import SHARED

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


class Fragile:
    """A store that can be lost, at a moment or in the middle of an answer."""

    def __init__(self, store: SharedStore) -> None:
        self.store = store
        self.lost = False
        self.deaf = False

    def run(self, batch: Batch, now: int | None) -> Answer:
        if self.lost:
            raise StoreUnavailable("The store is gone.")
        answer = self.store.run(batch, now)
        if self.deaf:
            raise StoreUnavailable("The answer is gone.")
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@pytest.fixture(params=SHARED)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Make stores of one place, each as a process would have its own."""
    opened: list[Fragile] = []

    def make() -> Fragile:
        opened.append(Fragile(cast("SharedStore", open_store(SHARED[request.param](tmp_path)))))
        return opened[-1]

    yield make
    for store in opened:
        store.store.close()


Make = Callable[..., RateLimiter]


@pytest.fixture
def limiter(stores: Callable[[], Any], manual_clock: ManualClock) -> Make:
    def make(*limits: Limit | str, **options: Any) -> RateLimiter:
        return RateLimiter(limits, clock=manual_clock, **{"store": stores(), **options})

    return make


def test_two_processes_draw_on_one_limit(limiter: Make) -> None:
    one, other = limiter("3 requests/minute"), limiter("3 requests/minute")
    for each in (one, other, one):
        assert each.try_acquire()
    refusal = other.try_acquire()
    assert not refusal
    assert "3 requests/minute" in refusal.reason
    assert refusal.retry_after == 20


def test_calls_wait_in_order_across_processes(limiter: Make, manual_clock: ManualClock) -> None:
    limiters = [limiter(Limit(Resource.REQUESTS, 1, per=1)) for _ in range(3)]
    limiters[0].acquire().settle()
    order: list[tuple[int, int]] = []

    async def call(place: int) -> None:
        (await limiters[place].acquire_async()).settle()
        order.append((place, manual_clock.now()))

    async def main() -> None:
        await asyncio.gather(*(call(place) for _ in range(2) for place in range(3)))

    start = manual_clock.now()
    run_virtual(main(), manual_clock)
    assert [place for place, _ in order] == [0, 1, 2, 0, 1, 2]
    assert [at - start for _, at in order] == pytest.approx([1_000, 2_000, 3_000, 4_000, 5_000, 6_000], abs=20)


def test_an_urgent_call_of_another_process_goes_first(limiter: Make, manual_clock: ManualClock) -> None:
    one, other = limiter(Limit(Resource.REQUESTS, 1, per=1)), limiter(Limit(Resource.REQUESTS, 1, per=1))
    one.acquire().settle()
    order: list[str] = []

    async def call(who: RateLimiter, name: str, priority: int, after: float) -> None:
        await asyncio.sleep(after)
        (await who.acquire_async(priority=priority)).settle()
        order.append(name)

    async def main() -> None:
        await asyncio.gather(call(one, "calm", 5, 0), call(other, "urgent", 0, 0.1))

    run_virtual(main(), manual_clock)
    assert order == ["urgent", "calm"]


def test_a_big_call_is_not_starved_by_another_process(limiter: Make, manual_clock: ManualClock) -> None:
    one, other = limiter(Limit(Resource.TOKENS, 100, per=10)), limiter(Limit(Resource.TOKENS, 100, per=10))
    one.acquire(input_tokens=100).settle(Usage(input_tokens=100))
    served: list[str] = []

    async def big() -> None:
        (await one.acquire_async(input_tokens=80)).settle(Usage(input_tokens=80))
        served.append("big")

    async def small() -> None:
        await asyncio.sleep(0.1)
        for _ in range(10):
            (await other.acquire_async(input_tokens=10)).settle(Usage(input_tokens=10))
            served.append("small")

    async def main() -> None:
        await asyncio.gather(big(), small())

    run_virtual(main(), manual_clock)
    assert served.index("big") <= 1


def test_a_slot_that_one_frees_another_takes(limiter: Make, manual_clock: ManualClock) -> None:
    one, other = limiter(concurrency=1), limiter(concurrency=1)
    held = one.acquire()

    async def main() -> float:
        asyncio.get_running_loop().call_later(3, held.settle)
        async with other.reserve() as call:
            return call.waited

    assert run_virtual(main(), manual_clock) == pytest.approx(3, abs=1)


def test_a_refund_is_worth_waiting_for(limiter: Make, manual_clock: ManualClock) -> None:
    one, other = limiter(Limit(Resource.TOKENS, 100, per="hour")), limiter(Limit(Resource.TOKENS, 100, per="hour"))
    held = one.acquire(input_tokens=100)

    async def main() -> float:
        asyncio.get_running_loop().call_later(2, held.cancel)
        async with other.reserve(input_tokens=50) as call:
            return call.waited

    assert run_virtual(main(), manual_clock) <= 7.1


def test_a_deadline_ends_the_wait_and_leaves_no_trace(limiter: Make, manual_clock: ManualClock) -> None:
    one, other = limiter(concurrency=1), limiter(concurrency=1)
    held = one.acquire()

    async def main() -> None:
        with pytest.raises(AcquireTimeout):
            await other.acquire_async(timeout=2)

    run_virtual(main(), manual_clock)
    assert other.snapshot().waiting == 0
    held.settle()
    assert one.try_acquire()


def test_a_cancelled_wait_leaves_no_trace(limiter: Make, manual_clock: ManualClock) -> None:
    one, other = limiter(Limit(Resource.REQUESTS, 2, per="minute")), limiter(Limit(Resource.REQUESTS, 2, per="minute"))
    one.acquire().settle()
    one.acquire().settle()

    async def main() -> None:
        waiting = asyncio.ensure_future(other.acquire_async())
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    run_virtual(main(), manual_clock)
    manual_clock.advance(29)
    assert one.try_acquire(), "nobody stands in line any more"


def test_what_never_fits_is_refused_at_once(limiter: Make) -> None:
    with pytest.raises(RequestTooLarge, match="never holds more than 100 tokens"):
        limiter(tpm=100).acquire(input_tokens=101)


def test_a_reservation_is_settled_once(limiter: Make) -> None:
    one = limiter(rpm=2)
    call = one.acquire()
    call.settle()
    with pytest.raises(ReservationError):
        call.settle()
    with pytest.raises(ReservationError):
        one._calls.engine.settle(call._hold, [1, 1])


def test_a_lost_call_is_charged_and_may_still_come_back(limiter: Make, manual_clock: ManualClock) -> None:
    one = limiter(tpm=100, concurrency=1, lease=5)
    call = one.acquire(input_tokens=60)
    manual_clock.advance(5)
    assert one.try_acquire(input_tokens=10), "its slot is free"
    call.settle(Usage(input_tokens=10))
    assert tokens_left(one) == 100 - 10 - 10 + 8, "corrected to what it used; five seconds have refilled eight"


def tokens_left(of: RateLimiter) -> float:
    of.try_acquire(requests=0)
    (found,) = (limit.available for limit in of.snapshot().limits if limit.resource == "tokens")
    return found


def test_a_dropped_reservation_frees_its_slot(limiter: Make) -> None:
    one = limiter(concurrency=1)
    call: Reservation | None = one.acquire()
    del call
    assert one.try_acquire()


def test_a_closed_limiter_sends_everybody_away(limiter: Make, manual_clock: ManualClock) -> None:
    one = limiter(concurrency=1)
    held = one.acquire()

    async def main() -> None:
        waiting = asyncio.ensure_future(one.acquire_async())
        await asyncio.sleep(0.1)
        one.close()
        with pytest.raises(LimiterClosed):
            await waiting

    run_virtual(main(), manual_clock)
    with pytest.raises(LimiterClosed):
        one.acquire()
    held.settle()


# -- what providers say ----------------------------------------------------------------------------------------


def providers(stores: Callable[[], Any], clock: ManualClock, **options: Any) -> MultiProviderLimiter:
    models = {"gpt": {"rpm": 60, "tpm": 10_000, "input_per_1m": 1_000, "output_per_1m": 0}}
    return MultiProviderLimiter([Provider("openai", models)], store=stores(), clock=clock, **options)


def test_a_refusal_that_one_process_sees_closes_the_gate_for_all(
    stores: Callable[[], Any], manual_clock: ManualClock
) -> None:
    one, other = providers(stores, manual_clock), providers(stores, manual_clock)
    assert other.try_acquire("openai:gpt").settle() is None  # type: ignore[union-attr]
    one.acquire("openai:gpt").fail(Failure(FailureKind.WAIT, retry_after=30))
    refusal = other.try_acquire("openai:gpt")
    assert not refusal
    assert "openai:gpt is closed: its provider refused calls" in refusal.reason
    assert refusal.retry_after == 30
    manual_clock.advance(30)
    assert other.try_acquire("openai:gpt")
    assert not one.try_acquire("openai:gpt"), "it opens call by call, for all of them together"


def test_limits_that_headers_lower_bind_every_process(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    one, other = providers(stores, manual_clock), providers(stores, manual_clock)
    assert other.try_acquire("openai:gpt").settle() is None  # type: ignore[union-attr]
    call = one.acquire("openai:gpt")
    call.observe([Quota(Resource.REQUESTS, "minute", limit=10, remaining=3)])
    call.settle()
    assert [bool(other.try_acquire("openai:gpt")) for _ in range(4)] == [True, True, True, False]
    names = {limit.name for limit in other.snapshot().limits}
    assert "10 requests/minute (lowered from 60)" in names


def test_limits_that_one_process_learns_the_others_know(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    one, other = (MultiProviderLimiter(store=stores(), clock=manual_clock) for _ in range(2))
    assert other.try_acquire("openai:new").settle() is None  # type: ignore[union-attr]
    call = one.acquire("openai:new")
    call.observe([Quota(Resource.REQUESTS, "minute", limit=10, remaining=1)])
    call.settle()
    assert [bool(other.try_acquire("openai:new")) for _ in range(3)] == [True, True, False]
    assert any(limit.name == "10 requests/minute (learned)" for limit in other.snapshot().limits)


def test_one_budget_for_all(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    alerts: list[str] = []
    one, other = (
        providers(stores, manual_clock, budget_limit=1, on_alert=lambda alert: alerts.append(str(alert)))
        for _ in range(2)
    )
    one.acquire("openai:gpt", input_tokens=500).settle(Usage(input_tokens=500))  # $0.5
    held = other.acquire("openai:gpt", input_tokens=400)
    with pytest.raises(BudgetExceeded):
        other.acquire("openai:gpt", input_tokens=200, timeout=0)
    held.settle(Usage(input_tokens=400))
    with pytest.raises(BudgetExceeded):
        one.acquire("openai:gpt", input_tokens=200)
    assert one.alerts.flush(5)
    assert other.alerts.flush(5)
    assert sum("$0.90 of $1.00 is used, past 80%" in alert for alert in alerts) == 1, "told once by all of them"
    assert sum("it is exhausted" in alert for alert in alerts) == 1


def test_scopes_of_different_processes_are_different(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    one, other = providers(stores, manual_clock), providers(stores, manual_clock)
    with one.scope(budget=0.5):
        one.acquire("openai:gpt", input_tokens=400).settle(Usage(input_tokens=400))
    with other.scope(budget=0.5):
        assert other.try_acquire("openai:gpt", input_tokens=400)


# -- loss ------------------------------------------------------------------------------------------------------


def test_a_lost_store_refuses_calls_unless_told_otherwise(
    stores: Callable[[], Any], manual_clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = stores()
    one = RateLimiter(rpm=2, store=store, clock=manual_clock)
    held = one.acquire()
    store.lost = True
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="The store is gone"):
            one.acquire()
    held.settle()
    assert "Until it is back, calls are refused (on_store_error='fail_closed')" in caplog.text
    store.lost = False
    manual_clock.advance(10)
    assert "The store is back after " in caplog.text
    assert one.try_acquire()
    assert one.snapshot().in_flight == 0


def test_waiting_calls_are_told_of_the_loss(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    store = stores()
    one = RateLimiter(concurrency=1, store=store, clock=manual_clock)
    held = one.acquire()

    async def main() -> None:
        waiting = [asyncio.ensure_future(one.acquire_async()) for _ in range(3)]
        await asyncio.sleep(0.1)
        store.lost = True
        for found in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(found, StoreUnavailable)

    run_virtual(main(), manual_clock)
    held.settle()


def test_open_without_the_store_and_charged_afterwards(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    store = stores()
    one = RateLimiter(tpm=100, store=store, clock=manual_clock, on_store_error="fail_open")
    store.lost = True
    calls = [one.acquire(input_tokens=60) for _ in range(3)]
    for call in calls:
        call.settle(Usage(input_tokens=30))
    store.lost = False
    manual_clock.advance(1)
    assert tokens_left(one) <= 12, "what they used was charged when the store was back"


def test_a_share_without_the_store(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    store = stores()
    one, other = (
        RateLimiter(rpm=10, concurrency=4, store=each, clock=manual_clock, on_store_error="local")
        for each in (store, stores())
    )
    other.acquire().settle()
    one.acquire().settle()
    store.lost = True
    admitted = [one.try_acquire() for _ in range(5)]
    assert [bool(call) for call in admitted] == [True, True, False, False, False], "half of four slots"
    for call in admitted[:2]:
        call.settle()  # type: ignore[union-attr]
    admitted = [one.try_acquire() for _ in range(5)]
    assert [bool(call) for call in admitted] == [True, True, False, False, False], "and half of ten requests, less two"


def test_what_was_used_without_the_store_is_owed_less_what_was_refilled(
    stores: Callable[[], Any], manual_clock: ManualClock
) -> None:
    store = stores()
    one = RateLimiter(Limit(Resource.REQUESTS, 10, per=10), store=store, clock=manual_clock, on_store_error="local")
    one.acquire().settle()
    store.lost = True
    for _ in range(30):  # as fast as its share allows
        manual_clock.advance(1)
        one.acquire(timeout=5).settle()
    store.lost = False
    manual_clock.advance(5)
    assert one.snapshot().limits[0].available >= 9
    one.acquire().settle()


def test_calls_wait_for_their_share(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    store = stores()
    one = RateLimiter(concurrency=1, store=store, clock=manual_clock, on_store_error="local")

    async def call() -> None:
        async with one.reserve():
            await asyncio.sleep(1)

    async def main() -> None:
        await call()
        store.lost = True
        await asyncio.gather(*(call() for _ in range(3)))

    start = manual_clock.now()
    run_virtual(main(), manual_clock)
    assert (manual_clock.now() - start) / 1000 == pytest.approx(4, abs=0.1)


def test_a_call_in_doubt_is_given_back(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    store = stores()
    one = RateLimiter(concurrency=1, store=store, clock=manual_clock)
    store.deaf = True
    with pytest.raises(StoreUnavailable):
        one.acquire()
    store.deaf = False
    manual_clock.advance(20)
    assert one.try_acquire(), "the slot that was taken unheard is free again"


def test_a_snapshot_says_where_the_limits_live_and_is_fresh(
    stores: Callable[[], Any], manual_clock: ManualClock
) -> None:
    store = stores()
    one, other = (RateLimiter(rpm=10, store=each, clock=manual_clock) for each in (store, stores()))
    one.acquire().settle()
    other.acquire().settle()
    assert one.snapshot().limits[0].available == 8
    assert one.snapshot().store.startswith(("sqlite:///", "redis://"))
    assert "8 free" in str(one.explain())
    store.lost = True
    with pytest.raises(StoreUnavailable):
        one.acquire()
    assert one.snapshot().store.endswith("(lost: The store is gone.)")
    assert "on sqlite" in str(one.snapshot()) or "on redis" in str(one.snapshot())


def test_policies_are_checked() -> None:
    with pytest.raises(ConfigError, match="on_store_error is 'ignore': it is one of fail_closed, fail_open, local"):
        RateLimiter(rpm=1, on_store_error="ignore")


# -- SQLite itself ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_bytes(b"not a database at all" * 100), "Move the file away"),
        (lambda path: path.parent.joinpath("limits.db").mkdir(), "name a file"),
        (lambda path: None, "Make its directory"),
    ],
)
def test_what_is_wrong_with_the_file_is_said(spoil: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    spoil(tmp_path / "limits.db")
    path = tmp_path / ("limits.db" if says != "Make its directory" else "missing/limits.db")
    with pytest.raises((StoreUnavailable, ConfigError), match=says):
        RateLimiter(rpm=1, store=f"sqlite:///{path}", ledger="memory://").acquire()


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "limits.db"
    RateLimiter(rpm=1, store=f"sqlite:///{path}").acquire().settle()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE limits_meta SET value = 99 WHERE name = 'schema'")
    connection.close()
    with pytest.raises(StoreUnavailable, match="of version 99, this library knows 1: upgrade"):
        RateLimiter(rpm=1, store=f"sqlite:///{path}", ledger="memory://").acquire()


def test_a_locked_file_is_unavailable_not_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_rate_limiter.stores.sqlite._BUSY", 0.02)
    path = tmp_path / "limits.db"
    limiter = RateLimiter(rpm=5, store=f"sqlite:///{path}", ledger="memory://")
    limiter.acquire().settle()
    locked = sqlite3.connect(path, isolation_level=None)
    locked.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable, match="Another process keeps it locked"):
        limiter.acquire()
    locked.close()


def test_state_survives_the_process(tmp_path: Path, manual_clock: ManualClock) -> None:
    for left in (2, 1, 0):
        limiter = RateLimiter("3 requests/day", store=f"sqlite:///{tmp_path / 'limits.db'}", clock=manual_clock)
        limiter.acquire().settle()
        assert limiter.snapshot().limits[0].available == left


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_limiter_made_before_a_fork_works_in_both(tmp_path: Path) -> None:
    limiter = RateLimiter("3 requests/day", store=f"sqlite:///{tmp_path / 'limits.db'}")
    held = limiter.acquire()
    child = os.fork()
    if child == 0:
        try:
            limiter.acquire(timeout=5).settle()
            try:
                held.settle()
            except ReservationError:
                os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    held.settle()
    assert limiter.try_acquire()
    assert not limiter.try_acquire()


@pytest.mark.parametrize("uri", ["sqlite://agents.db", "sqlite:///", "sqlite:///:memory:"])
def test_what_is_no_file_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="store is 'sqlite"):
        RateLimiter(rpm=1, store=uri)


def test_each_agent_has_a_row_of_its_own(stores: Callable[[], Any], manual_clock: ManualClock) -> None:
    store = stores()
    one = RateLimiter(
        Limit(Resource.REQUESTS, 1, per="minute", scope=Scope(agent="each")), store=store, clock=manual_clock
    )
    for agent in ("a", "b"):
        with one.scope(agent=agent):
            assert one.try_acquire()
            assert not one.try_acquire()


logging.getLogger("agent_rate_limiter").setLevel(logging.WARNING)


def test_whoever_holds_the_store_up_is_not_waited_for_in_vain(tmp_path: Path) -> None:
    limiter = RateLimiter(rpm=1_000, store=f"sqlite:///{tmp_path / 'limits.db'}", ledger="memory://")
    limiter.acquire().settle()
    known = limiter._calls.engine.store
    slow = Slow(known._shared)  # type: ignore[attr-defined]
    known._shared = slow  # type: ignore[attr-defined]

    async def main() -> None:
        asking = asyncio.get_running_loop().run_in_executor(None, known.recall, "text")
        await asyncio.to_thread(slow.began.wait)
        calls = [asyncio.ensure_future(limiter.acquire_async()) for _ in range(3)]
        await asyncio.sleep(0.03)  # the courier has found the store busy, and gone to sleep
        slow.go.set()
        await asking
        for call in await asyncio.wait_for(asyncio.gather(*calls), 5):
            call.settle()

    asyncio.run(main())


class Slow:
    """A store whose texts take long."""

    def __init__(self, store: SharedStore) -> None:
        self.store = store
        self.began, self.go = threading.Event(), threading.Event()

    def recall(self, key: str) -> str | None:
        self.began.set()
        self.go.wait(10)
        return self.store.recall(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def test_texts_are_remembered_in_a_moment(tmp_path: Path) -> None:
    limiter = RateLimiter(rpm=1_000, store=f"sqlite:///{tmp_path / 'limits.db'}", ledger="memory://")
    known = limiter._calls.engine.store
    known.remember("text", "kept")
    assert known.recall("text") == "kept"
    shared = known._shared  # type: ignore[attr-defined]
    deadline = time.monotonic() + 5
    while shared.recall("text") != "kept":
        assert time.monotonic() < deadline
        time.sleep(0.005)
