"""A store that can be lost."""

from __future__ import annotations

from typing import Any

from agent_rate_limiter import RateLimiter, StoreUnavailable
from agent_rate_limiter.engine.port import Answer, Batch, SharedStore


class Fragile:
    """Lost at a moment, or in the middle of an answer; it counts its steps."""

    def __init__(self, store: SharedStore) -> None:
        self.store = store
        self.lost = False
        self.deaf = False
        self.runs = 0

    def run(self, batch: Batch, now: int | None) -> Answer:
        if self.lost:
            raise StoreUnavailable("The store is gone.")
        self.runs += 1
        answer = self.store.run(batch, now)
        if self.deaf:
            raise StoreUnavailable("The answer is gone.")
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def tokens_left(of: RateLimiter) -> float:
    of.try_acquire(requests=0)
    (found,) = (limit.available for limit in of.snapshot().limits if limit.resource == "tokens")
    return found
