"""The same trace, at epoch time, on memory and on every shared store: the same decisions and the same states.

A store whose numbers are doubles computes as we do only as long as it stays below 2^53; at time 0 everything does.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from agent_rate_limiter.admission import Bucket
from agent_rate_limiter.engine.port import Hold, Store
from agent_rate_limiter.limits import Limit, Resource
from agent_rate_limiter.stores import is_shared, open_store
from agent_rate_limiter.strategies import GATE
from tests.contract.direct import Direct
from tests.contract.opened import SHARED

NOW = 1_795_667_123_457
STEPS = 3_000
LIMITS = [
    GATE,
    Limit(Resource.REQUESTS, 97, "minute"),
    Limit(Resource.TOKENS, 30_011, "minute"),
    Limit(Resource.TOKENS, 10_000_019, "day"),
    Limit(Resource.INPUT_TOKENS, 1_009, 7.3, burst=2_003),
    Limit(Resource.OUTPUT_TOKENS, 20_011, "minute", strategy="sliding_window"),
    Limit(Resource.REQUESTS, 1_013, 61.7, strategy="sliding_window"),
    Limit(Resource.REQUESTS, 131, "minute", strategy="fixed_window", name="clock"),
    Limit(Resource.COST, 97.53, "day", timezone="America/Los_Angeles"),
    Limit(Resource.COST, 1_000_003.0, "month", timezone="Europe/Berlin"),
    Limit(Resource.COST, 5_003.0, None),
    Limit(Resource.COST, 31.0, "hour", strategy="sliding_window"),
    Limit(Resource.COST, 0.5, "hour", enforced=False, name="counted"),
    Limit(Resource.CONCURRENCY, 23),
]
UNITS = [1, 1, 700, 5_000, 90, 900, 3, 2, 10**9, 10**12, 10**10, 10**8, 10**7, 1]
"""About what a call takes of each."""


class Twin:
    """One trace on one store."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.random = random.Random(seed)
        self.now = NOW
        self.buckets = [store.bucket(f"{number} {limit.name}", limit, "", NOW) for number, limit in enumerate(LIMITS)]
        self.open: list[Hold] = []
        self.done: list[Hold] = []

    def step(self) -> object:
        chance = self.random.random()
        self.now += self.random.choice((0, 0, 1, 17, 250, 4_003, 61_001 if chance < 0.02 else 90))
        if self.random.random() < 0.001:
            self.now += 26 * 3_600_000
        if self.open and chance < 0.35:
            return self._settle()
        if self.done and chance < 0.4:
            return self._correct()
        return self._reserve()

    def _reserve(self) -> object:
        chosen = sorted(self.random.sample(range(len(LIMITS)), self.random.randint(1, 6)))
        hold = Hold(
            tuple(self.buckets[place] for place in chosen),
            [self.random.randint(0 if place else 1, 3 * UNITS[place]) if place else 1 for place in chosen],
        )
        if not any(hold.amounts):
            return None
        refusal = self.store.reserve(hold, self.now)
        if refusal is None:
            hold.taken_at = self.now
            self.open.append(hold)
            return "admitted", self._states(hold.path)
        return refusal[1:], refusal.bucket.key

    def _settle(self) -> object:
        hold = self.open.pop(self.random.randrange(len(self.open)))
        used = [0 if b.limit.resource is Resource.CONCURRENCY else self._used(n) for b, n in self._rows(hold)]
        self.store.settle(hold, used, self.now)
        self.done = [*self.done[-20:], hold]
        return "settled", self._states(hold.path)

    def _correct(self) -> object:
        hold = self.random.choice(self.done)
        self.store.correct(hold, [self.random.randint(-n, n) for n in hold.amounts], self.now)
        return "corrected", self._states(hold.path)

    def _used(self, amount: int) -> int:
        return self.random.randint(0, amount + amount // 4)

    @staticmethod
    def _rows(hold: Hold) -> list[tuple[Bucket, int]]:
        return list(zip(hold.path, hold.amounts, strict=True))

    def _states(self, path: tuple[Bucket, ...]) -> list[object]:
        """As they are now: a store need not touch a bucket in which nothing changes but the time."""
        return [bucket.settle(bucket.state, 0, 0, self.now, self.now) for bucket in path]


@pytest.mark.parametrize("name", SHARED)
def test_the_same_trace_is_decided_alike(name: str, tmp_path: Path) -> None:
    shared = open_store(SHARED[name](tmp_path))
    assert is_shared(shared)
    memory = open_store("memory://")
    assert not is_shared(memory)
    ours, theirs = Twin(memory, 7), Twin(Direct(shared, lease=10**9), 7)  # type: ignore[arg-type]
    for number in range(STEPS):
        expected, found = ours.step(), theirs.step()
        assert found == expected, f"step {number}"
    shared.close()
    assert sum(hold is not None for hold in ours.done) > 10
