"""Random lives of calls in several processes on one real store, which is lost now and then: nothing is overdrawn,
lost, or counted twice."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_rate_limiter import (
    Limit,
    LimitExceeded,
    Price,
    RateLimiter,
    Reservation,
    ReservationError,
    StoreUnavailable,
    Usage,
)
from agent_rate_limiter.engine.port import SharedStore
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.stores import open_store
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.contract.opened import SHARED, server
from tests.core.shared.fragile import Fragile

RATE, BURST, SLOTS, BUDGET = 2, 5, 3, 900
"""Requests a second, at once; calls in flight; and millionths of a dollar, of which a token costs one."""
LIMITS = [
    Limit(Resource.REQUESTS, RATE, per=1, burst=BURST),
    Limit(Resource.CONCURRENCY, SLOTS),
    Limit(Resource.COST, BUDGET / 1e6, per=None),
]
PROCESSES = 3
_names = count()


@dataclass(frozen=True)
class Life:
    """One call: when and where it comes, what it asks, and how it ends."""

    after: float
    process: int
    tokens: int
    used: int
    priority: int
    timeout: float | None
    cancelled_after: float | None
    lasts: float
    ends: str


@dataclass(frozen=True)
class Fault:
    """When one process loses the store, for how long, and whether it is only the answers that it loses."""

    after: float
    process: int
    lasts: float
    kind: str


_tenths = st.integers(0, 60).map(lambda tenths: tenths / 10)
_processes = st.integers(0, PROCESSES - 1)
_lives = st.lists(
    st.builds(
        Life,
        after=_tenths,
        process=_processes,
        tokens=st.integers(1, 120),
        used=st.integers(0, 120),
        priority=st.integers(0, 3),
        timeout=st.one_of(st.none(), st.integers(0, 20)),
        cancelled_after=st.one_of(st.none(), st.none(), _tenths),
        lasts=st.integers(0, 30).map(lambda tenths: tenths / 10),
        ends=st.sampled_from(["settle", "settle", "cancel", "drop", "error"]),
    ),
    max_size=20,
)
_faults = st.lists(
    st.builds(
        Fault,
        after=_tenths,
        process=_processes,
        lasts=st.sampled_from([0.01, 0.3, 2, 15]),  # the last: its calls in flight count as lost meanwhile
        kind=st.sampled_from(["lost", "deaf"]),
    ),
    max_size=3,
)


@contextmanager
def places(name: str) -> Iterator[Callable[[], Fragile]]:
    """Make stores of one place, each as a process would have its own."""
    with tempfile.TemporaryDirectory() as folder:
        uri = SHARED[name](Path(folder)) if name == "sqlite" else f"{server(name).uri}?namespace=lives-{next(_names)}"
        opened: list[Fragile] = []

        def make() -> Fragile:
            opened.append(Fragile(cast("SharedStore", open_store(uri))))
            return opened[-1]

        yield make
        for store in opened:
            store.store.close()


class Run:
    """Lives its lives in several limiters, and keeps the books itself."""

    def __init__(self, make: Callable[[], Fragile]) -> None:
        self.clock = ManualClock()
        self.stores = [make() for _ in range(PROCESSES)]
        self.limiters = [
            RateLimiter(LIMITS, store=cast("Any", store), clock=self.clock, price=Price(1.0, 0.0), ledger="memory://")
            for store in self.stores
        ]
        self.in_flight = 0
        self.spent = 0
        self.sent: list[int] = []
        self.dead: set[int] = set()

    async def live(self, life: Life) -> None:
        await asyncio.sleep(life.after)
        limiter = self.limiters[life.process]
        try:
            call = await asyncio.wait_for(
                limiter.acquire_async(input_tokens=life.tokens, priority=life.priority, timeout=life.timeout),
                life.cancelled_after,
            )
        except (LimitExceeded, StoreUnavailable, asyncio.TimeoutError):
            return
        self.in_flight += 1
        at = call._hold.taken_at
        await asyncio.sleep(life.lasts)
        self.in_flight -= 1
        assert self.in_flight < SLOTS or self.dead
        if life.ends == "cancel" and life.process not in self.dead:
            call.cancel()
            return
        self.sent.append(at)
        if life.process in self.dead:  # it cannot say any more how it ended
            self.spent += life.tokens
            return
        self.spent += min(life.used, life.tokens) if life.ends == "settle" else life.tokens
        if life.ends == "settle":
            call.settle(Usage(1, min(life.used, life.tokens)))
            with pytest.raises(ReservationError):
                limiter._calls.engine.settle(call._hold, call._hold.amounts)
        elif life.ends == "error":
            call.fail(RuntimeError("a bug in the user's code"))
        del call

    async def fail(self, fault: Fault) -> None:
        await asyncio.sleep(fault.after)
        store = self.stores[fault.process]
        setattr(store, fault.kind if store.name.startswith("redis") else "lost", True)  # a file loses no answer
        await asyncio.sleep(fault.lasts)
        store.lost = store.deaf = False

    async def die(self, process: int, after: float) -> None:
        await asyncio.sleep(after)
        self.dead.add(process)
        self.stores[process].lost = True

    async def all(self, lives: list[Life], *happenings: Coroutine[Any, Any, None]) -> None:
        await asyncio.gather(*(self.live(life) for life in lives), *happenings)
        await asyncio.sleep(30)  # every store is tried again, and hears what it does not know yet

    def check(self) -> None:
        """What the store says by now is what was really done."""
        for limiter in (limiter for number, limiter in enumerate(self.limiters) if number not in self.dead):
            limiter.try_acquire(requests=0)
            found = {limit.resource: limit.available for limit in limiter.snapshot().limits}
            assert found["concurrency"] == SLOTS
            assert found["requests"] == BURST
            assert round(BUDGET - found["cost"] * 1e6) == self.spent
        assert self.spent <= BUDGET
        moments = sorted(self.sent)
        for number, start in enumerate(moments):
            for more, end in enumerate(moments[number:], 1):
                assert more * 1000 <= BURST * 1000 + RATE * (end - start)


@pytest.mark.parametrize("name", SHARED)
@settings(max_examples=25, deadline=None)
@given(lives=_lives, faults=_faults)
def test_random_lives(name: str, lives: list[Life], faults: list[Fault]) -> None:
    with places(name) as make:
        run = Run(make)
        run_virtual(run.all(lives, *map(run.fail, faults)), run.clock)  # a lost wake-up is a deadlock, and told as such
        run.check()


@pytest.mark.parametrize("name", SHARED)
@settings(max_examples=15, deadline=None)
@given(lives=_lives, process=_processes, after=_tenths)
def test_a_process_that_dies_leaves_its_slots_and_is_charged(
    name: str, lives: list[Life], process: int, after: float
) -> None:
    with places(name) as make:
        run = Run(make)
        run_virtual(run.all(lives, run.die(process, after)), run.clock)
        run.check()


@pytest.mark.parametrize("name", SHARED)
@settings(max_examples=15, deadline=None)
@given(waiting=st.lists(st.tuples(_processes, st.integers(0, 9)), min_size=1, max_size=10))
def test_the_most_urgent_goes_first_wherever_it_waits(name: str, waiting: list[tuple[int, int]]) -> None:
    clock = ManualClock()
    served: list[int] = []
    with places(name) as make:
        one = Limit(Resource.CONCURRENCY, 1)
        limiters = [RateLimiter(one, store=cast("Any", make()), clock=clock, ageing=10**6) for _ in range(PROCESSES)]

        async def call(number: int, process: int, priority: int) -> None:
            await asyncio.sleep(number / 100)
            async with limiters[process].reserve(priority=priority):
                served.append(priority)
                await asyncio.sleep(0.1)

        async def main() -> None:
            first = await limiters[0].acquire_async()
            asyncio.get_running_loop().call_later(1, first.settle)
            await asyncio.gather(*(call(number, *who) for number, who in enumerate(waiting)))

        run_virtual(main(), clock)
    assert served == sorted(served)
    assert len(served) == len(waiting)


@pytest.mark.parametrize("name", SHARED)
@settings(max_examples=15, deadline=None)
@given(calls=st.lists(st.tuples(_processes, st.integers(1, 500), st.sampled_from([0, 0, 70, 900])), max_size=20))
def test_a_refusal_changes_nothing(name: str, calls: list[tuple[int, int, int]]) -> None:
    with places(name) as make:
        run = Run(make)
        held: list[Reservation] = []
        for process, tokens, pause in calls:
            run.clock.advance(pause / 1000)
            witness = run.limiters[(process + 1) % PROCESSES]
            before = witness.snapshot().limits
            found = run.limiters[process].try_acquire(input_tokens=tokens)
            if isinstance(found, Reservation):
                held.append(found)
            else:
                assert witness.snapshot().limits == before
        for call in held:
            call.cancel()
