"""One process's limits, in its memory. The engine's lock makes each step atomic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from weakref import WeakValueDictionary

from agent_rate_limiter.admission import Bucket, Refusal, refusal, take_all
from agent_rate_limiter.engine.port import Hold
from agent_rate_limiter.limits import Limit


class MemoryStore:
    """Buckets by name. They live as long as a route, a call in flight or a waiter refers to them."""

    def __init__(self) -> None:
        self._buckets: WeakValueDictionary[str, Bucket] = WeakValueDictionary()
        self._texts: dict[str, str] = {}
        self._claims: dict[str, int] = {}

    def bucket(self, key: str, limit: Limit, scope: str, now: int) -> Bucket:
        """Return the bucket of that key, made on first use."""
        found = self._buckets.get(key)
        if found is None:
            found = self._buckets[key] = Bucket(key, limit, scope, now)
        return found

    reserve = staticmethod(take_all)

    def settle(self, hold: Hold, used: Sequence[int], now: int) -> None:
        """Replace what the hold has taken by what was used."""
        at = hold.taken_at
        for bucket, taken, amount in zip(hold.path, hold.amounts, used):  # noqa: B905 - hot path
            if taken != amount or (taken and bucket.holds):
                bucket.state = bucket.settle(bucket.state, taken, amount, at, now)

    def correct(self, hold: Hold, changes: Sequence[int], now: int) -> None:
        """Add to what a hold was settled with."""
        for bucket, change in zip(hold.path, changes):  # noqa: B905
            bucket.state = bucket.strategy.settle(bucket.state, 0, change, hold.taken_at, now)

    def refusal(self, hold: Hold, now: int) -> Refusal | None:
        """Say what would bind if the hold were reserved now."""
        return refusal(hold.path, hold.amounts, now)

    def buckets(self) -> Iterable[Bucket]:
        """Every bucket there is, for reports."""
        return list(self._buckets.values())

    def recall(self, key: str) -> str | None:
        """Return the text that was remembered under a key."""
        return self._texts.get(key)

    def remember(self, key: str, text: str) -> None:
        """Keep a text under a key, as long as the process lives."""
        self._texts[key] = text

    def first(self, key: str, until: int, now: int) -> bool:
        """Claim a key until an epoch millisecond: True for one caller alone."""
        claimed = self._claims.get(key, 0) <= now
        if claimed:
            self._claims = {name: end for name, end in self._claims.items() if end > now}
            self._claims[key] = until
        return claimed
