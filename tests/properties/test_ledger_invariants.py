"""Whatever happens to calls, the books add up: rows, sums of every grouping and period, and what calls were told."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_rate_limiter import CostTracker, MultiProviderLimiter, Provider, Usage
from agent_rate_limiter.providers import Failure, FailureKind
from agent_rate_limiter.testing import ManualClock

PROVIDERS = [
    Provider("p", {"a": {"input_per_1m": 3, "output_per_1m": 15, "cached_input_per_1m": 0.3}, "b": {"cost_per_1k": 1}}),
    Provider("q", {"a": {"concurrency": 1_000}}),
]
LABELS = ("agent", "run", "team")

targets = st.sampled_from(["p:a", "p:b", "q:a"])
scopes = st.dictionaries(st.sampled_from(LABELS), st.sampled_from("xyz"))
tokens = st.integers(0, 10**6)
usages = st.builds(
    lambda sent, cached, made, cost, exact: Usage(1, sent + cached, made, cached, cost=cost, exact=exact),
    tokens,
    tokens,
    tokens,
    st.none() | st.integers(0, 10**9).map(lambda nano: nano / 10**9),
    exact=st.booleans(),
)
endings = st.one_of(
    st.tuples(st.just("settle"), usages),
    st.tuples(st.sampled_from(["silent", "refused", "unsent", "cancel", "drop", "open"]), st.none()),
)
calls = st.tuples(st.just("call"), st.tuples(targets, scopes, tokens, endings))
steps = st.lists(
    st.one_of(
        calls,
        calls,
        calls,
        st.tuples(st.just("record"), st.tuples(targets, scopes, usages)),
        st.tuples(st.just("advance"), st.integers(1, 3 * 86_400)),
        st.tuples(st.sampled_from(["compact", "report", "reopen"]), st.none()),
    ),
    max_size=30,
)


class Books:
    """A limiter whose books are kept twice: by itself, and by adding up what each call was told."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.clock = ManualClock()
        self.told = 0  # nano-dollars
        self.requests = 0
        self.held: list[Any] = []
        self.kept_all = True  # no row was old enough to go
        self.open()

    def open(self) -> None:
        self.costs = CostTracker(self.uri, clock=self.clock, on_unknown_price="zero", keep_rows=4, keep_hours=2)
        self.limiter = MultiProviderLimiter(
            PROVIDERS, clock=self.clock, ledger=self.costs, on_unknown_price="zero", lease=1e9
        )

    def tell(self, cost: float, requests: int) -> None:
        self.told += round(cost * 10**9)
        self.requests += requests

    def call(self, target: str, labels: dict[str, Any], size: int, ending: tuple[str, Usage | None]) -> None:
        how, usage = ending
        with self.limiter.scope(**labels):
            call = self.limiter.acquire(target, input_tokens=size, max_output_tokens=size)
        if how == "settle":
            call.settle(usage)
        elif how == "silent":
            call.settle()
        elif how == "refused":
            call.fail(Failure(FailureKind.FATAL, status=400))
        elif how == "unsent":
            call.fail(Failure(FailureKind.TRANSIENT, sent=False))
        elif how == "cancel":
            call.cancel()
        elif how == "drop":
            self.tell(self.estimate(target, size), 1)
            return
        else:
            self.held.append(call)
            return
        self.tell(call.cost or 0.0, call.usage.requests if call.usage else 0)

    @staticmethod
    def estimate(target: str, size: int) -> float:
        return size * {"p:a": 18, "p:b": 2_000, "q:a": 0}[target] / 10**6

    def record(self, target: str, labels: dict[str, Any], usage: Usage) -> None:
        self.tell(self.costs.record(target, usage, **labels), 1)

    def advance(self, seconds: int) -> None:
        self.clock.advance(seconds)

    def compact(self, _: None) -> None:
        self.costs.compact()
        self.kept_all = False

    def report(self, _: None) -> None:
        self.check()

    def reopen(self, _: None) -> None:
        """The process ends; with a file, the books go on where they were."""
        if self.uri != "memory://":
            self.finish()
            self.open()

    def finish(self) -> None:
        for call in self.held:
            call.cancel()
        self.held.clear()
        self.limiter.close()
        self.costs.close()

    def check(self) -> None:
        """Every way to look at the books says the same."""
        for by in itertools.chain.from_iterable(itertools.combinations(("model", *LABELS), n) for n in range(4)):
            assert self.sums(self.costs.report(by)) == (self.told, self.requests), by
        for every in ("hour", "day", "week", "month"):
            assert self.sums(self.costs.report(("agent",), every=every)) == (self.told, self.requests), every
            days = self.costs.report(every=every, timezone="Asia/Kolkata")
            assert self.sums(days) == (self.told, self.requests)
        rows = self.costs.rows(last=10**6)
        if self.kept_all:
            assert self.sums(rows) == (self.told, self.requests)

    @staticmethod
    def sums(report: Any) -> tuple[int, int]:
        pairs = [(round(row["cost"] * 10**9), row["requests"]) for row in report]
        return sum(cost for cost, _ in pairs), sum(requests for _, requests in pairs)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@settings(max_examples=40, deadline=None)
@given(steps)
def test_sums_of_reports_equal_the_ledger(kind: str, steps: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        books = Books("memory://" if kind == "memory" else f"sqlite:///{Path(folder) / 'costs.db'}")
        for name, arguments in steps:
            if isinstance(arguments, tuple):
                getattr(books, name)(*arguments)
            else:
                getattr(books, name)(arguments)
        books.check()
        books.finish()
