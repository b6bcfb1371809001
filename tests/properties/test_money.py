"""Money is conserved: whatever happens to calls, each budget holds exactly what was spent and what may still be."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from agent_rate_limiter import EACH, Budget, Estimate, MultiProviderLimiter, Provider, Reservation, Scope, Usage
from agent_rate_limiter.strategies.calendar import window
from agent_rate_limiter.testing import ManualClock

LEASE = 600
CENT = 10_000_000
"""Nano-dollars."""
ZONE = "America/New_York"
DAY, TOTAL, EACH_AGENT = 50, 400, 200
"""Cents."""
DAILY, IN_TOTAL, ROLLING = "budget $0.50/day", "budget $4.00 in total", "budget $0.50/rolling day"
START = 1_772_900_000_000  # 2026-03-07 16:13 UTC: the next day has 23 hours in New York


@dataclass
class Call:
    """One admitted call, and what the model of the world knows of it."""

    reservation: Reservation | None
    agent: str
    held: int
    at: int
    open: bool = True
    charged: int = 0


class Money(RuleBasedStateMachine):
    """Random lives of calls under four budgets at once, against a model that only adds and subtracts."""

    calls = Bundle("calls")

    @initialize()
    def start(self) -> None:
        self.clock = ManualClock(START)
        self.limiter = MultiProviderLimiter(
            [Provider("p", {"m": {"cost_per_1k": 1.0, "rpm": 10**9}})],
            clock=self.clock,
            lease=LEASE,
            budget_limit=DAY / 100,
            timezone=ZONE,
            budgets=[
                Budget(TOTAL / 100, "total"),
                Budget(EACH_AGENT / 100, "total", scope=Scope(agent=EACH)),
                Budget(DAY / 100, "day", rolling=True),
            ],
        )
        self.all: list[Call] = []
        self.booked = 0
        self.opened = window(START, "day", ZONE)
        self.today = 0  # settled in the calendar's day

    # -- what happens --------------------------------------------------------------------------------------

    @rule(target=calls, agent=st.sampled_from("ab"), cents=st.integers(1, 60))
    def reserve(self, agent: str, cents: int) -> object:
        room = self.room(agent)
        with self.limiter.scope(agent=agent):
            reservation = self.limiter.try_acquire("p:m", Estimate(cost=cents / 100))
        if not isinstance(reservation, Reservation):
            assert cents > room
            return multiple()
        assert cents <= room
        call = Call(reservation, agent, cents, self.clock.now())
        self.all.append(call)
        return call

    @rule(call=consumes(calls), share=st.floats(0, 1))
    def settle(self, call: Call, share: float) -> None:
        self.end(call, round(call.held * share))

    @rule(call=consumes(calls), more=st.integers(1, 10))
    def settle_above_the_estimate(self, call: Call, more: int) -> None:
        self.end(call, call.held + more)

    @rule(call=consumes(calls))
    def cancel(self, call: Call) -> None:
        assert call.reservation is not None
        call.reservation.cancel()
        self.charge(call, 0)

    @rule(call=consumes(calls))
    def break_off(self, call: Call) -> None:
        """A stream that broke, or a bug in the user's code: it may have been sent."""
        assert call.reservation is not None
        call.reservation.fail(RuntimeError("a bug"))
        self.charge(call, call.held)
        self.booked += call.held

    @rule(call=consumes(calls))
    def drop(self, call: Call) -> None:
        call.reservation = None  # the last reference
        self.charge(call, call.held)
        self.booked += call.held

    @rule(seconds=st.sampled_from([1, 60, 3_600, 5 * 3_600, 86_400, 3 * 86_400]))
    def wait(self, seconds: int) -> None:
        """Time passes; what is not settled within its lease is lost, as a crashed process's calls are."""
        self.clock.advance(seconds)
        self.limiter._calls.engine.advance()
        for call in self.all:
            if call.open and self.clock.now() >= call.at + LEASE * 1000:
                self.charge(call, call.held)

    # -- the model -----------------------------------------------------------------------------------------

    def end(self, call: Call, cents: int) -> None:
        assert call.reservation is not None
        call.reservation.settle(Usage(cost=cents / 100))
        self.charge(call, cents)
        self.booked += cents

    def charge(self, call: Call, cents: int) -> None:
        """Charge an open call, or correct one that was taken for lost."""
        self.turn_day()
        before = 0 if call.open else call.charged
        if call.at >= self.opened[0]:
            self.today += cents - before
        else:  # yesterday's: only what it used beyond its estimate counts today
            self.today += max(0, cents - call.held) if call.open else max(0, cents - before)
        call.open, call.charged = False, cents

    def turn_day(self) -> None:
        if self.clock.now() >= self.opened[1]:
            self.opened, self.today = window(self.clock.now(), "day", ZONE), 0

    def sums(self, agent: str | None = None) -> int:
        return sum(
            call.held if call.open else call.charged for call in self.all if agent is None or call.agent == agent
        )

    def held_today(self) -> int:
        self.turn_day()
        return sum(call.held for call in self.all if call.open and call.at >= self.opened[0])

    def room(self, agent: str) -> int:
        """What every budget has left for an agent, as the limiter says; the invariants say it is right."""
        left = self.left()
        return min(left[DAILY], left[IN_TOTAL], left[ROLLING], left[f"agent={agent}"])

    def left(self) -> dict[str, int]:
        """Cents that each budget has left."""
        found = {f"agent={agent}": EACH_AGENT for agent in "ab"}
        found |= {DAILY: DAY, IN_TOTAL: TOTAL, ROLLING: DAY}
        for limit in self.limiter.snapshot().limits:
            if limit.resource == "cost":
                assert abs(limit.available * 100 - round(limit.available * 100)) < 1e-6
                found[limit.scope or limit.name] = round(limit.available * 100)
        return found

    @invariant()
    def budgets_hold_what_was_spent_and_what_may_still_be(self) -> None:
        left = self.left()
        assert left[IN_TOTAL] == TOTAL - self.sums()
        for agent in "ab":
            assert left[f"agent={agent}"] == EACH_AGENT - self.sums(agent)
        held = self.held_today()
        assert left[DAILY] == DAY - self.today - held

    @invariant()
    def a_rolling_day_counts_what_was_taken_within_it(self) -> None:
        """Up to a sixtieth of the period longer; and what was used beyond an estimate, from when that was known."""
        now, day = self.clock.now(), 86_400_000
        surely = sum(
            min(call.held, call.held if call.open else call.charged) for call in self.all if now - call.at < day
        )
        assert self.left()[ROLLING] <= DAY - surely

    @invariant()
    def the_books_say_what_was_settled(self) -> None:
        assert round(self.limiter.costs.total * 100) == self.booked
        rows = self.limiter.costs.report(by=("agent",)).to_dicts()
        assert sum(round(float(str(row["cost"])) * 100) for row in rows) == self.booked

    @invariant()
    def what_is_in_flight_is_counted(self) -> None:
        assert self.limiter.snapshot().in_flight == sum(call.open for call in self.all)

    def teardown(self) -> None:
        """In the end everything comes back that was not spent."""
        if not hasattr(self, "all"):
            return
        self.wait(86_400 * 3)
        self.budgets_hold_what_was_spent_and_what_may_still_be()
        assert self.left()[DAILY] == DAY
        assert self.left()[ROLLING] == DAY


TestMoney = Money.TestCase
TestMoney.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
