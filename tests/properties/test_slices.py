"""Several limiters that take slices of one store: limits hold to what is said, and no unit is lost."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given, settings, target
from hypothesis import strategies as st

from agent_rate_limiter import Estimate, Limit, Price, RateLimiter, Reservation, Usage
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.testing import ManualClock

PROCESSES = 3
LEASE = 8
"""Requests, where limits count no tokens."""
AMOUNT, PERIOD_MS = 480, 12_000
TOKENS, DOLLARS = 40_000, 0.05


@dataclass(frozen=True)
class Step:
    """One process makes calls, and ends one or the other."""

    who: int
    calls: int
    tokens: int
    pause: int
    """Milliseconds, before."""
    late: bool
    """Nobody looks after slices meanwhile: the thread that should has no time."""
    ends: int
    used: float
    cancels: bool


steps = st.lists(
    st.builds(
        Step,
        who=st.integers(0, PROCESSES - 1),
        calls=st.integers(1, 12),
        tokens=st.integers(1, 200),
        pause=st.one_of(st.just(0), st.integers(0, 40), st.integers(0, 1_500)),
        late=st.booleans(),
        ends=st.integers(0, 12),
        used=st.floats(0, 1),
        cancels=st.booleans(),
    ),
    max_size=40,
)


@dataclass(frozen=True)
class Round:
    """All processes take up a pace, pause with what lies in their slices, and then take all that they are given."""

    warm: int
    """Calls of each, 2 ms apart."""
    pause: int
    late: bool
    """As a Step's."""


rounds = st.lists(
    st.builds(Round, warm=st.integers(0, 12), pause=st.integers(0, 1_100), late=st.booleans()), min_size=1, max_size=6
)


class Run:
    """Walks the steps; calls that are admitted stay in flight until a step ends them."""

    def __init__(self, uri: str, *limits: Limit, lease: int, price: Price | None = None) -> None:
        self.clock = ManualClock()
        self.lease = lease
        self.limiters = [
            RateLimiter(limits, price=price, store=uri, clock=self.clock, ledger="memory://", lease_tokens=lease)
            for _ in range(PROCESSES)
        ]
        self.moments: list[int] = []  # of admission
        self.in_flight: list[tuple[Reservation, int]] = []
        self.used = 0

    def rush(self, plan: list[Round], offset: int) -> None:
        self.clock.jump(offset / 1000)
        for turn in plan:
            for _ in range(turn.warm):
                self.clock.advance(0.002)
                self.moments += [self.clock.now() for one in self.limiters if one.try_acquire()]
            self.wait(turn.pause, late=turn.late)
            self.drain()
        for _ in range(40):
            self.clock.advance(PERIOD_MS / 40_000)
            self.drain()

    def drain(self) -> None:
        for one in self.limiters:
            while one.try_acquire():
                self.moments.append(self.clock.now())

    def wait(self, milliseconds: int, *, late: bool) -> None:
        engines = [cast("Any", one)._calls.engine for one in self.limiters]
        assert all(engine._lying + engine._owed <= self.lease for engine in engines)
        if late:
            self.clock.jump(milliseconds / 1000)
        else:
            self.clock.advance(milliseconds / 1000)

    def walk(self, plan: list[Step]) -> None:
        for step in plan:
            self.wait(step.pause, late=step.late)
            for _ in range(step.calls):
                call = self.limiters[step.who].try_acquire(Estimate(input_tokens=step.tokens, max_output_tokens=1))
                if isinstance(call, Reservation):
                    self.in_flight.append((call, step.tokens))
            for _ in range(min(step.ends, len(self.in_flight))):
                self.end(step)

    def end(self, step: Step) -> None:
        call, tokens = self.in_flight.pop()
        if step.cancels:
            call.cancel()
            return
        used = int(tokens * step.used)
        self.used += used
        call.settle(Usage(1, used))

    def available(self, resource: str) -> float:
        one = self.limiters[0]
        one.explain()
        return next(limit.available for limit in one.snapshot().limits if limit.resource == resource)

    def close(self) -> None:
        for one in self.limiters:
            one.close()
            cast("Any", one)._calls.engine._shared.close()


def beyond_refill(moments: list[int]) -> float:
    """Return how many calls any stretch of time holds at most, beside those for which units came in meanwhile."""
    worst = debt = 0.0
    last = moments[0] if moments else 0
    for moment in moments:
        debt = max(0.0, debt - (moment - last) * AMOUNT / PERIOD_MS) + 1
        last = moment
        worst = max(worst, debt)
    return worst


def most(moments: list[int]) -> int:
    """Return how many calls any stretch of a period holds at most."""
    found = first = 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - PERIOD_MS:
            first += 1
        found = max(found, last - first + 1)
    return found


def per_window(moments: list[int]) -> int:
    """Return how many calls any period of the clock holds at most."""
    return max(Counter(moment // PERIOD_MS for moment in moments).values(), default=0)


@pytest.mark.parametrize(
    ("strategy", "measure", "bound"),
    [
        pytest.param("token_bucket", beyond_refill, AMOUNT + PROCESSES * LEASE, id="a bucket, by the allowances"),
        pytest.param("sliding_window", most, AMOUNT, id="a sliding window, by nothing"),
        pytest.param("fixed_window", per_window, AMOUNT, id="a window of the clock, by nothing"),
    ],
)
def test_a_limit_is_exceeded_by_no_more_than_is_said(strategy: Any, measure: Any, bound: int) -> None:
    limit = Limit(Resource.REQUESTS, AMOUNT, PERIOD_MS / 1000, strategy=strategy)

    @settings(max_examples=12, deadline=None)
    @given(rounds, st.integers(0, PERIOD_MS))
    @example([Round(7, 950, late=True)], PERIOD_MS - 150)
    @example([Round(5, 500, late=True)], PERIOD_MS - 130)
    def check(plan: list[Round], offset: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = Run(f"sqlite:///{Path(folder) / 'limits.db'}", limit, lease=LEASE)
            run.rush(plan, offset)
            run.close()
        target(float(measure(run.moments)))
        assert measure(run.moments) <= bound

    check()


@settings(max_examples=60, deadline=None)
@given(steps)
def test_budgets_hold_and_units_are_conserved(plan: list[Step]) -> None:
    limits = (
        Limit(Resource.TOKENS, TOKENS, "day", strategy="fixed_window"),
        Limit(Resource.COST, DOLLARS, "day"),
        Limit(Resource.COST, DOLLARS, "day", strategy="sliding_window", name="rolling"),
    )
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{Path(folder) / 'limits.db'}"
        run = Run(uri, *limits, lease=LEASE * 400, price=Price(1, 0))
        run.walk(plan)
        held = sum(tokens + 1 for _, tokens in run.in_flight)  # and one of output
        assert run.used + held <= min(TOKENS, DOLLARS * 1e6)
        run.clock.advance(2)
        assert run.available("tokens") == TOKENS - run.used - held, "what lay in slices is back"
        for call, tokens in run.in_flight:
            call.settle(Usage(1, tokens // 2))
            run.used += tokens // 2
        run.clock.advance(2)
        assert run.available("tokens") == TOKENS - run.used
        assert round(run.available("cost") * 1e6) == round(DOLLARS * 1e6) - run.used
        for one in run.limiters:
            engine = cast("Any", one)._calls.engine
            assert not engine._slices
            assert not engine._kept
            assert engine._lying == 0
        run.close()
