"""What a process knows of a store that it shares: copies of the limits, and access to what is remembered there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import RLock
from typing import TypeVar

from agent_rate_limiter.admission import Bucket
from agent_rate_limiter.engine.port import Place, SharedStore
from agent_rate_limiter.limits import Limit, Resource
from agent_rate_limiter.stores.memory import MemoryStore
from agent_rate_limiter.strategies import GATE, NARROW_GATE

T = TypeVar("T")


class KnownStore(MemoryStore):
    """Copies of the buckets, as of the store's last answers.

    Args:
        shared: where texts and claims are kept.
    """

    def __init__(self, shared: SharedStore) -> None:
        super().__init__()
        self._shared = shared
        self.io = RLock()  # the shared store serves one thread at a time
        self.errands: dict[str, str] = {}  # texts that are still to be sent
        self.released: Callable[[], object] = lambda: None

    def bucket(self, key: str, limit: Limit, scope: str, now: int) -> Bucket:
        """Return the copy of that key's bucket, made on first use.

        Raises:
            ConfigError: the store cannot keep such a limit.
        """
        found = self._buckets.get(key)
        if found is None:
            found = super().bucket(key, limit, scope, now)
            self._shared.check(Place(key, found.strategy, 0))
        return found

    def recall(self, key: str) -> str | None:
        """Ask the store for a text, unless it is still to be sent."""
        text = self.errands.get(key)
        return self._ask(lambda: self._shared.recall(key)) if text is None else text

    def remember(self, key: str, text: str) -> None:
        """Have the store keep a text, in a moment: the last one of a key counts."""
        self.errands[key] = text
        self.released()

    def first(self, key: str, until: int, now: int) -> bool:
        """Claim a key among all processes."""
        return self._ask(lambda: self._shared.first(key, until, now))

    def _ask(self, question: Callable[[], T]) -> T:
        try:
            with self.io:
                return question()
        finally:
            self.released()  # whoever wanted to send meanwhile has gone away again


def share_of(bucket: Bucket, members: int, now: int) -> Bucket:
    """Return a process's own limit, while the shared one cannot be reached: an equal share of what is left of it."""
    limit = bucket.limit
    if limit is GATE or limit is NARROW_GATE:
        return bucket  # nobody has a share of it: what a provider says meanwhile counts at once
    available = max(0, bucket.strategy.available(bucket.state, now)) // members
    own = Bucket(bucket.key, _divided(limit, members), bucket.scope, now)
    strategy = own.strategy
    if limit.resource is Resource.CONCURRENCY:
        return own
    own.state = strategy.settle(strategy.initial(now), 0, max(0, strategy.capacity - available), now, now)
    return own


def _divided(limit: Limit, members: int) -> Limit:
    burst = limit.amount if limit.burst is None and limit.strategy == "token_bucket" else limit.burst
    amount = limit.amount / members if limit.resource is Resource.COST else max(1, int(limit.amount) // members)
    return replace(limit, amount=amount, burst=burst)
