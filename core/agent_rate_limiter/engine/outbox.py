"""What one limiter wants of a store that it shares: noted under the engine's lock, sent as batches, and heard."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from agent_rate_limiter.admission import Bucket
from agent_rate_limiter.engine.port import Batch, Command, Place
from agent_rate_limiter.engine.wishes import Hear, Noted, PlaceOf, Read, Wish

_MOST = 256
"""Commands in one batch: it is one step, and holds everybody else up meanwhile."""


class Parcel:
    """A batch on its way, and who waits for the answer."""

    __slots__ = ("batch", "buckets", "wishes")

    def __init__(self, batch: Batch, buckets: list[Bucket], wishes: list[Wish]) -> None:
        self.batch = batch
        self.buckets = buckets
        self.wishes = wishes


class Outbox:
    """Wishes in order.

    Args:
        member: who sends them.
        lease: milliseconds for which a batch proves that the member is alive.

    Attributes:
        number: of the last batch.
    """

    def __init__(self, member: str, lease: int) -> None:
        self.member = member
        self.wishes: deque[Wish] = deque()
        self._lease = lease
        self.number = 0

    def put(
        self,
        make: Callable[[PlaceOf], Command | None],
        hear: Hear | None = None,
        lost: Callable[[int], bool] | None = None,
    ) -> None:
        """Note a wish."""
        self.wishes.append(Noted(make, hear, lost))

    def read(self, buckets: Iterable[Bucket], hear: Hear, lost: Callable[[int], bool] | None = None) -> None:
        """Note that limits are to be read."""
        self.wishes.append(Read(buckets, hear, lost))

    def pack(self) -> Parcel:
        """Make a batch of what is noted; without any, it only says that the member is alive."""
        places = _Places()
        place = places.__getitem__
        noted = self.wishes
        wishes = [noted.popleft() for _ in range(min(_MOST, len(noted)))]
        made = [wish.make(place) for wish in wishes]
        self.number += 1
        batch = Batch(
            self.member,
            self.number,
            self._lease,
            [Place(bucket.key, bucket.strategy, bucket.rev) for bucket in places],
            [command for command in made if command is not None],
        )
        return Parcel(batch, list(places), wishes)


class _Places(dict[Bucket, int]):
    """Limits, numbered as they come."""

    def __missing__(self, bucket: Bucket) -> int:
        number = self[bucket] = len(self)
        return number
