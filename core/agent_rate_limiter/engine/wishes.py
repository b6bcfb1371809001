"""What one limiter wants of a store that it shares: each a command, once its batch is made, and ears for the answer.

What every call wants keeps no functions: it is made, and heard, a hundred times per batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from agent_rate_limiter.admission import Bucket
from agent_rate_limiter.engine.port import Command, Reserve, Settle
from agent_rate_limiter.engine.queue import Waiter

PlaceOf = Callable[[Bucket], int]
"""Numbers the limits that a batch is about."""
Hear = Callable[[Any, int], object]
"""Told of the store's answer to a command, and of the time."""


class Wish(Protocol):
    """Used under the engine's lock."""

    asks: bool
    """Whether it has a command, and so an answer of its own."""

    def make(self, place: PlaceOf) -> Command | None:
        """Return its command, given how to number the limits that it is about; None: those are only to be read."""
        ...

    def hear(self, found: Any, now: int) -> object:
        """Take the store's answer."""
        ...

    def lost(self, now: int) -> bool:
        """The store is lost: True when the wish is to be kept for its return."""
        ...


class _Heard:
    """Without functions, nobody hears the answer, and nobody misses it."""

    __slots__ = ("_hear", "_lost")

    def __init__(self, hear: Hear | None, lost: Callable[[int], bool] | None) -> None:
        self._hear = hear
        self._lost = lost

    def hear(self, found: Any, now: int) -> object:
        """As Wish."""
        return None if self._hear is None else self._hear(found, now)

    def lost(self, now: int) -> bool:
        """As Wish."""
        return self._lost is not None and self._lost(now)


class Noted(_Heard):
    """Any command."""

    __slots__ = ("_make",)
    asks = True

    def __init__(
        self, make: Callable[[PlaceOf], Command | None], hear: Hear | None, lost: Callable[[int], bool] | None
    ) -> None:
        super().__init__(hear, lost)
        self._make = make

    def make(self, place: PlaceOf) -> Command | None:
        """As Wish."""
        return self._make(place)


class Read(_Heard):
    """Limits that are to be read."""

    __slots__ = ("_buckets",)
    asks = False

    def __init__(self, buckets: Iterable[Bucket], hear: Hear, lost: Callable[[int], bool] | None) -> None:
        super().__init__(hear, lost)
        self._buckets = buckets

    def make(self, place: PlaceOf) -> None:
        """As Wish."""
        for bucket in self._buckets:
            place(bucket)


class Asker(Protocol):
    """The engine, as far as calls' wishes know it."""

    def decided(self, asked: Asked, found: Any, now: int) -> None:
        """The store has decided on a call."""
        ...

    def without_store(self, waiter: Waiter, now: int) -> bool:
        """Decide a call while the store is lost."""
        ...

    def freed(self, path: Sequence[Bucket], now: int) -> None:
        """Something was given back."""
        ...


class Asked:
    """A call wants to be admitted.

    Args:
        engine: hears the answer.
        waiter: the call.
        number: of the hold that it asks for.
        standing: the limit in whose line it stands.
        rank: its priority, aged.
    """

    __slots__ = ("_engine", "_rank", "_standing", "amounts", "number", "path", "waiter")
    asks = True

    def __init__(self, engine: Asker, waiter: Waiter, number: int, standing: Bucket | None, rank: int) -> None:
        self._engine = engine
        self._standing = standing
        self._rank = rank
        self.waiter = waiter
        self.number = number
        self.path = waiter.hold.path
        self.amounts = waiter.hold.amounts

    def make(self, place: PlaceOf) -> Reserve:
        """Return the command."""
        amounts = tuple([(place(b), n) for b, n in zip(self.path, self.amounts) if n])  # noqa: B905 - as in admit
        return Reserve(self.number, self._rank, -1 if self._standing is None else place(self._standing), amounts)

    def hear(self, found: Any, now: int) -> None:
        """Pass the answer on."""
        self._engine.decided(self, found, now)

    def lost(self, now: int) -> bool:
        """Decide it without the store."""
        return self._engine.without_store(self.waiter, now)


class Ended:
    """A hold is over.

    Args:
        engine: hears that something was given back.
        hold: its number.
        kept: whether the store keeps a record of it.
        taken_at: epoch milliseconds.
        path: the limits that it took from.
        taken: units of each.
        used: units of each.
    """

    __slots__ = ("_engine", "_hold", "_kept", "_path", "_taken", "_taken_at", "_used")
    asks = True

    def __init__(  # noqa: PLR0917 - what the command says
        self,
        engine: Asker,
        hold: int,
        kept: bool,  # noqa: FBT001
        taken_at: int,
        path: Sequence[Bucket],
        taken: Sequence[int],
        used: Sequence[int],
    ) -> None:
        self._engine = engine
        self._hold = hold
        self._kept = kept
        self._taken_at = taken_at
        self._path = path
        self._taken = taken
        self._used = used

    def make(self, place: PlaceOf) -> Settle:
        """Return the command."""
        rows = zip(self._path, self._taken, self._used)  # noqa: B905 - as in admit
        changes = tuple([(place(b), n, u) for b, n, u in rows if n or u])
        return Settle(self._hold, self._kept, self._taken_at, changes)

    def hear(self, found: Any, now: int) -> None:  # noqa: ARG002 - it is never refused
        """Others may fit by now."""
        self._engine.freed(self._path, now)

    def lost(self, now: int) -> bool:  # noqa: ARG002
        """Keep it."""
        return True
