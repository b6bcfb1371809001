"""What the engine asks of the world: a store for the limits' states, and a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from agent_rate_limiter.admission import Bucket, Path, Refusal
from agent_rate_limiter.limits import Limit


class Hold:
    """What one call has taken, from its admission until it is settled.

    Args:
        path: the limits it takes from.
        amounts: units taken from each, in the path's order.
    """

    __slots__ = ("amounts", "attempt", "expires_at", "final", "id", "lost", "open", "path", "taken_at")

    def __init__(self, path: Path, amounts: Sequence[int]) -> None:
        self.path = path
        self.amounts = amounts
        self.attempt = 1  # of its logical call
        self.id = 0
        self.taken_at = 0  # epoch milliseconds, like every time in here
        self.expires_at = 0
        self.open = False
        self.lost = False  # its lease ran out, and its estimate was charged
        self.final: Sequence[int] | None = None  # what to charge, if it was abandoned with more than its estimate known

    @property
    def nothing(self) -> Sequence[int]:
        """What a call that never was is settled with."""
        return [0] * len(self.path)


class Store(Protocol):
    """Where the limits' states live. Every method is one atomic step."""

    def bucket(self, key: str, limit: Limit, scope: str, now: int) -> Bucket:
        """Return the bucket of that key, made on first use."""
        ...

    def reserve(self, hold: Hold, now: int) -> Refusal | None:
        """Take the hold's amounts from all of its path, or nothing; then say what binds."""
        ...

    def settle(self, hold: Hold, used: Sequence[int], now: int) -> None:
        """Replace what the hold has taken by what was used."""
        ...

    def correct(self, hold: Hold, changes: Sequence[int], now: int) -> None:
        """Add to what a hold was settled with: it was settled for its caller, who then came back."""
        ...

    def refusal(self, hold: Hold, now: int) -> Refusal | None:
        """Say what would bind if the hold were reserved now. Changes nothing."""
        ...

    def buckets(self) -> Iterable[Bucket]:
        """Every bucket there is, for reports."""
        ...

    def recall(self, key: str) -> str | None:
        """Return the text that was remembered under a key; None when there is none. Never on a call's way."""
        ...

    def remember(self, key: str, text: str) -> None:
        """Keep a text under a key, for every process that shares the store. Never on a call's way."""
        ...

    def first(self, key: str, until: int, now: int) -> bool:
        """Claim a key until an epoch millisecond: True for one caller alone among all that share the store."""
        ...


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> int:
        """Epoch milliseconds; it may jump, in either direction."""
        ...


@runtime_checkable
class VirtualClock(Clock, Protocol):
    """A clock that makes time, too: it does the waking, and nothing waits for real time."""

    def waker(self, advance: Callable[[], None]) -> Waker:
        """Return a timer that calls `advance` when virtual time has come."""
        ...


class Waker(Protocol):
    """A timer that calls the engine's `advance` when time has come."""

    def arm(self, at: int | None) -> None:
        """Fire at that epoch millisecond or before; None: no need. Called under the engine's lock."""
        ...
