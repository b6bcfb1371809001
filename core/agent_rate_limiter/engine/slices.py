"""A local allowance: units that a process takes from a shared store at once, and serves from its memory.

A slice is one ordinary reservation of a path, made for several calls. Whatever is served from it was taken from every
limit on the path before. What its calls did not use makes room in it; when it is over, the rest goes back.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent_rate_limiter.admission import Bucket, Path
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.strategies import Concurrency, FixedWindow, Gate, SlidingWindow

LASTS = 1_000
"""Milliseconds after which what a slice still has goes back, so that others are not starved."""
NEVER = 1 << 62
_SHORTEST = LASTS // 10
"""A slice that could not last as long is not worth it."""
_GROWTH = 4
"""A slice is for no more than as many times the calls that there were since the last: two calls are no pace yet."""
_TOKENS = (Resource.TOKENS, Resource.INPUT_TOKENS, Resource.OUTPUT_TOKENS)


class Slice:
    """Units of one path, taken at once.

    Args:
        path: the limits.
        each: units of each limit that the call takes for which it was made.
        calls: how many such calls it is for.
        number: its reservation's, in the store.

    Attributes:
        tokens: what it counts of the allowance.
        heaviest: the place of the limit that says so.
        taken: units of each limit.
        taken_at: epoch milliseconds of its reservation.
        until: when it is over.
        live: whether calls are served from it.
        gone: nobody waits for the store's answer any more.
        flights: calls that were served from it, and have not ended.
    """

    __slots__ = (
        "_limits",
        "_room",
        "_used",
        "calls",
        "each",
        "flights",
        "gone",
        "heaviest",
        "live",
        "number",
        "path",
        "served",
        "taken",
        "taken_at",
        "tokens",
        "until",
    )

    def __init__(self, path: Path, each: Sequence[int], calls: int, number: int) -> None:
        self.path = path
        self.each = each
        self.calls = calls
        tokens, self.heaviest = weight(path, each)
        self.tokens = calls * tokens
        self.number = number
        self.taken = [calls * amount for amount in each]
        self.taken_at = self.until = 0
        self.live = self.gone = False
        self.flights = self.served = 0
        self._limits = [bucket.limit for bucket in path]
        self._room = self.taken  # replaced, never changed
        self._used = [0] * len(path)  # by calls that have ended, and not told to the store yet

    def begin(self, now: int) -> None:
        """The store has granted it."""
        self.taken_at, self.until, self.live = now, lasting(self.path, now), True

    def take(self, amounts: Sequence[int]) -> bool:
        """Serve a call, if all that it takes is there."""
        room = [left - amount for left, amount in zip(self._room, amounts)]  # noqa: B905 - one path; the hot path
        if min(room) < 0:
            return False
        self._room = room
        self.flights += 1
        self.served += 1
        return True

    def used_up(self, amounts: Sequence[int]) -> bool:
        """Whether a call does not fit that is no larger than those it was made for."""
        return all(amount <= each for amount, each in zip(amounts, self.each, strict=True))

    def settle(self, amounts: Sequence[int], used: Sequence[int]) -> None:
        """A call of it has ended: what it did not use makes room, what it used beyond its estimate is owed."""
        self._room = [left + n - units for left, n, units in zip(self._room, amounts, used)]  # noqa: B905 - `used` may
        self._used = [total + units for total, units in zip(self._used, used)]  # noqa: B905 - know further limits
        self.flights -= 1

    @property
    def left(self) -> int:
        """Units of the heaviest limit that nobody uses."""
        return self._room[self.heaviest]

    @property
    def overdrawn(self) -> bool:
        """Whether more was used of it than was taken."""
        return min(self._room) < 0

    def sound(self, now: int) -> bool:
        """Whether the limits are those that it was taken from, and its target's gate is open."""
        same = all(bucket.limit is limit for bucket, limit in zip(self.path, self._limits, strict=True))
        return same and not any(shut(bucket, now) for bucket in self.path)

    def report(self) -> tuple[list[int], list[int]]:
        """Return what the store is still to be told: units of each limit that are over, and those that were used.

        For one that is not live any more; what its calls in flight hold follows when they end.
        """
        used = self._used
        gone = [left + units for left, units in zip(self._room, used, strict=True)]
        self._room = self._used = [0] * len(self.path)
        return gone, used


class Lane:
    """What is known of a path that calls are made on.

    Attributes:
        slice: what calls are served from.
        ready: the slice that comes after it.
        asked: the slice that the store is being asked for.
        shut_until: epoch milliseconds before which no slice is asked for.
        seen_at: when a call was made last.
    """

    __slots__ = ("_calls", "_since", "asked", "heard_at", "ready", "seen_at", "shut_until", "slice")

    def __init__(self, now: int) -> None:
        self.slice: Slice | None = None
        self.ready: Slice | None = None
        self.asked: Slice | None = None
        self.shut_until = self.heard_at = 0
        self.seen_at = self._since = now
        self._calls = 0

    @property
    def idle(self) -> bool:
        """Whether it has nothing."""
        return self.slice is None and self.ready is None and self.asked is None

    def called(self, now: int) -> None:
        """A call was made."""
        self._calls += 1
        self.seen_at = now

    def expects(self, now: int) -> int:
        """How many calls it is likely to need while a slice lasts, by its pace since the last; 0 if it has none."""
        if self._calls < 2:  # noqa: PLR2004 - one call is no pace
            return 0
        return min(_GROWTH * self._calls, self._calls * LASTS // max(1, now - self._since) + 1)

    def grant(self, piece: Slice, now: int) -> None:
        """A slice was taken."""
        if self.slice is None:
            self.slice = piece
        else:
            self.ready = piece
        self._calls, self._since = 0, now

    def drop(self, piece: Slice) -> None:
        """A slice is over."""
        if self.slice is piece:
            self.slice, self.ready = self.ready, None
        elif self.ready is piece:
            self.ready = None


def weight(path: Path, amounts: Sequence[int]) -> tuple[int, int]:
    """Return what a call takes of the allowance, and the place of the limit that says so.

    That is the most tokens that any limit counts for it; its requests, where none counts tokens; else 1.
    """
    for resources in (_TOKENS, (Resource.REQUESTS,)):
        counted = [(n, place) for place, n in enumerate(amounts) if n and path[place].limit.resource in resources]
        if counted:
            return max(counted)
    return 1, 0


def affordable(path: Path, amounts: Sequence[int], members: int, now: int) -> int:
    """Return for how many calls a slice may be, by the copies: this process's share of half of what is left.

    0 where a unit must be exact at once: slots, a gate that counts, limits that are still learned, or waited for.
    """
    most = 1 << 30
    for bucket, amount in zip(path, amounts, strict=True):
        if not amount:
            continue
        if bucket.queue is not None or bucket.learned or isinstance(bucket.strategy, Concurrency):
            return 0
        if shut(bucket, now):
            return 0
        if bucket.limit.enforced and not isinstance(bucket.strategy, Gate):
            most = min(most, bucket.strategy.available(bucket.state, now) // (2 * members * amount))
    return most if lasting(path, now) - now >= _SHORTEST else 0


def shut(bucket: Bucket, now: int) -> bool:
    """Whether it is a gate that is closed, or counts who passes."""
    return isinstance(bucket.strategy, Gate) and (now < bucket.state.closed_until or Gate.counts(bucket.state))


def lasting(path: Path, now: int) -> int:
    """Return when a slice taken now is over: at the latest with the window, or the part of one, that it was taken in.

    So windows hold what is sent in them, exactly; only a bucket that refills has a spread.
    """
    until = now + LASTS
    for bucket in path:
        strategy = bucket.strategy
        if isinstance(strategy, FixedWindow):
            until = min(until, (bucket.state if now < bucket.state[1] else strategy.initial(now))[1])
        elif isinstance(strategy, SlidingWindow):
            until = min(until, (now // strategy.width + 1) * strategy.width)
    return until
