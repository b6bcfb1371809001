"""Random lives of many calls on virtual time: nothing is overdrawn, lost, or settled twice."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from agent_rate_limiter import AcquireTimeout, Limit, Price, RateLimiter, Usage
from agent_rate_limiter.errors import BudgetExceeded, LimitExceeded
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.testing import ManualClock, run_virtual


@dataclass(frozen=True)
class Life:
    """One call: when it comes, what it asks, and how it ends."""

    after: float
    agent: str
    tokens: int
    used: int
    priority: int
    timeout: float | None
    cancelled_after: float | None
    lasts: float
    ends: str


lives = st.lists(
    st.builds(
        Life,
        after=st.integers(0, 30).map(lambda tenths: tenths / 10),
        agent=st.sampled_from("abc"),
        tokens=st.integers(1, 60),
        used=st.integers(0, 90),
        priority=st.integers(0, 3),
        timeout=st.one_of(st.none(), st.floats(0, 30)),
        cancelled_after=st.one_of(st.none(), st.none(), st.floats(0, 5)),
        lasts=st.floats(0, 3),
        ends=st.sampled_from(["settle", "settle", "cancel", "drop", "error"]),
    ),
    max_size=25,
)


class Run:
    """Lives its lives, and checks after every step."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.limiter = RateLimiter(
            [
                Limit(Resource.REQUESTS, 120, "minute", burst=5),
                Limit(Resource.TOKENS, 1_200, "minute", burst=60),
                Limit(Resource.CONCURRENCY, 3),
                Limit(Resource.COST, 0.000_9, "day"),
            ],
            price=Price(1.0, 0.0),  # answers are free: what a call costs at most is known
            clock=self.clock,
        )
        self.in_flight = 0
        self.spent = 0
        self.ended = 0

    async def live(self, life: Life) -> None:
        await asyncio.sleep(life.after)
        try:
            with self.limiter.scope(agent=life.agent):
                reservation = await asyncio.wait_for(
                    self.limiter.acquire_async(input_tokens=life.tokens, priority=life.priority, timeout=life.timeout),
                    life.cancelled_after,
                )
        except (LimitExceeded, asyncio.TimeoutError):
            return
        self.in_flight += 1
        assert self.in_flight <= 3
        await asyncio.sleep(life.lasts)
        self.in_flight -= 1
        used = min(life.used, life.tokens)  # a hard budget holds while the maximum is known
        if life.ends == "settle":
            reservation.settle(Usage(1, used))
            self.spent += used
        elif life.ends == "cancel":
            reservation.cancel()
        elif life.ends == "error":
            reservation.fail(RuntimeError("a bug in the user's code"))
            self.spent += life.tokens
        else:
            self.spent += life.tokens
            del reservation
        self.check()

    def check(self) -> None:
        for limit in self.limiter.snapshot().limits:
            if limit.resource == "cost":
                assert limit.available >= 0
            if limit.resource == "concurrency":
                assert limit.amount - limit.available == self.limiter.snapshot().in_flight <= 3

    async def all(self, plan: list[Life]) -> None:
        await asyncio.gather(*(self.live(life) for life in plan))


@settings(max_examples=150, deadline=None)
@given(lives)
def test_random_lives(plan: list[Life]) -> None:
    run = Run()
    run_virtual(run.all(plan), run.clock)  # a lost wake-up is a deadlock, and told as such
    snapshot = run.limiter.snapshot()
    assert snapshot.in_flight == snapshot.waiting == 0
    for cost in (
        limit for limit in snapshot.limits if limit.resource == "cost"
    ):  # money is conserved: what is gone from the budget is what was spent
        assert round((cost.amount - cost.available) * 1e6) == run.spent
        assert run.spent <= 900


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2_000), st.integers(1, 20)), min_size=1, max_size=40), st.integers(1, 50))
def test_what_waiters_are_given_never_exceeds_burst_plus_refill(calls: list[tuple[int, int]], burst: int) -> None:
    clock = ManualClock()
    limiter = RateLimiter(Limit(Resource.TOKENS, 10, "second", burst=burst), clock=clock)
    taken: list[tuple[int, int]] = []

    async def call(after: int, tokens: int) -> None:
        await asyncio.sleep(after / 1000)
        try:
            await limiter.acquire_async(input_tokens=tokens)
        except (AcquireTimeout, BudgetExceeded, LimitExceeded):
            assert tokens > burst
            return
        taken.append((clock.now(), tokens))

    async def main() -> None:
        await asyncio.gather(*(call(after, tokens) for after, tokens in calls))

    run_virtual(main(), clock)
    assert len(taken) == sum(tokens <= burst for _, tokens in calls)
    for start, _ in taken:
        for end in (at for at, _ in taken if at >= start):
            inside = sum(tokens for at, tokens in taken if start <= at <= end)
            assert inside * 1000 <= burst * 1000 + 10 * (end - start)
