"""What one limiter wants of a store that it shares: noted under the engine's lock, sent as batches, and heard."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from agent_rate_limiter.admission import Bucket
from agent_rate_limiter.engine.port import Batch, Command, Place

PlaceOf = Callable[[Bucket], int]
Hear = Callable[[Any, int], object]
"""Told of the store's answer to a command, and of the time."""

_MOST = 256
"""Commands in one batch: it is one step, and holds everybody else up meanwhile."""


class Wish:
    """One command, once its batch is made.

    Args:
        make: returns it, given how to number the limits that it is about; None: those are only to be read.
        hear: told of the answer, under the engine's lock.
        lost: told that the store is lost, under the lock; True when the wish is to be kept for its return.
    """

    __slots__ = ("hear", "lost", "make")

    def __init__(
        self, make: Callable[[PlaceOf], Command | None], hear: Hear | None, lost: Callable[[int], bool] | None = None
    ) -> None:
        self.make = make
        self.hear = hear
        self.lost = lost


class Parcel:
    """A batch on its way, and who waits for the answer."""

    __slots__ = ("batch", "buckets", "wishes")

    def __init__(self, batch: Batch, buckets: list[Bucket], wishes: list[tuple[Wish, bool]]) -> None:
        self.batch = batch
        self.buckets = buckets
        self.wishes = wishes  # and whether each is a command of the batch


class Outbox:
    """Wishes in order.

    Args:
        member: who sends them.
        lease: milliseconds for which a batch proves that the member is alive.
    """

    def __init__(self, member: str, lease: int) -> None:
        self.member = member
        self.wishes: deque[Wish] = deque()
        self._lease = lease
        self._number = 0

    def put(
        self,
        make: Callable[[PlaceOf], Command | None],
        hear: Hear | None = None,
        lost: Callable[[int], bool] | None = None,
    ) -> None:
        """Note a wish."""
        self.wishes.append(Wish(make, hear, lost))

    def read(self, buckets: Iterable[Bucket], hear: Hear, lost: Callable[[int], bool] | None = None) -> None:
        """Note that limits are to be read."""

        def number(place: PlaceOf) -> None:
            for bucket in buckets:
                place(bucket)

        self.put(number, hear, lost)

    def pack(self) -> Parcel:
        """Make a batch of what is noted; without any, it only says that the member is alive."""
        places: dict[Bucket, int] = {}

        def place_of(bucket: Bucket) -> int:
            return places.setdefault(bucket, len(places))

        taken = [self.wishes.popleft() for _ in range(min(_MOST, len(self.wishes)))]
        commands = [(wish, wish.make(place_of)) for wish in taken]
        self._number += 1
        batch = Batch(
            self.member,
            self._number,
            self._lease,
            [Place(bucket.key, bucket.strategy, bucket.rev) for bucket in places],
            [command for _, command in commands if command is not None],
        )
        return Parcel(batch, list(places), [(wish, command is not None) for wish, command in commands])
