"""Many limits, all or nothing: a call takes from every limit on its path, or changes none of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from agent_rate_limiter.limits import Limit
from agent_rate_limiter.strategies import Strategy, strategy_for


class Bucket:
    """One limit for one scope, and its state.

    Args:
        key: its name in the store.
        limit: the rule.
        scope: whom it applies to, in words; empty for everybody.
        now: epoch milliseconds.
    """

    __slots__ = (
        "__weakref__",
        "before",
        "configured",
        "holds",
        "key",
        "learned",
        "limit",
        "merged_at",
        "pace",
        "queue",
        "refused_at",
        "rev",
        "scope",
        "settle",
        "state",
        "strategy",
        "take",
    )

    def __init__(self, key: str, limit: Limit, scope: str, now: int) -> None:
        self.key = key
        self.scope = scope
        self.configured = limit
        self.learned = False  # nobody configured it: the provider's word is all there is
        self.merged_at = 0  # admission of the call whose answer corrected it last, in epoch milliseconds
        self.refused_at = 0  # when the provider last refused though the bucket had room: then headers told too much
        self.rev = 0  # how often a store that is shared had the rule changed
        self.obey(limit, strategy_for(limit))
        self.state: Any = self.strategy.initial(now)
        self.before: Any = None  # the state before the take that is under way
        self.queue: Any = None  # the engine's: who waits for this bucket
        self.pace: Any = None  # the forecast's: how fast it fills

    def obey(self, limit: Limit, strategy: Strategy) -> None:
        """Follow a rule from now on."""
        self.limit = limit
        self.strategy = strategy
        self.take, self.settle, self.holds = strategy.take, strategy.settle, strategy.holds  # for the hot path

    def __repr__(self) -> str:
        """Name the limit and whom it is for."""
        return f"Bucket({self.key!r})"


class Refusal(NamedTuple):
    """Why a call does not fit, from the same step that found out.

    Args:
        bucket: the limit that binds: the one that frees last.
        requested: units asked of it.
        available: units it has.
        wait: milliseconds until it frees if nobody else takes; None: only once somebody gives back.
        never: True when the request is larger than the limit itself.
        may_free: True when calls in flight may give back enough before time does.
        crowd: calls that wait already, where that is why: the queue is full; else None.
    """

    bucket: Bucket
    requested: int
    available: int
    wait: int | None
    never: bool
    may_free: bool
    crowd: int | None = None


Path = tuple[Bucket, ...]


class Taking(Protocol):
    """What wants to take from a path: the engine's holds."""

    path: Path
    amounts: Sequence[int]


def take_all(hold: Taking, now: int) -> Refusal | None:
    """Take from every bucket; or change none, and say which limit binds."""
    for bucket, amount in zip(hold.path, hold.amounts):  # noqa: B905 - the path may have grown; this is the hot path
        if amount:
            bucket.before = state = bucket.state
            state = bucket.take(state, amount, now)
            if state is None:
                _put_back(hold, bucket)
                return refusal(hold.path, hold.amounts, now)
            bucket.state = state
    return None


def _put_back(hold: Taking, end: Bucket) -> None:
    """Undo what was taken before a bucket refused."""
    for bucket, amount in zip(hold.path, hold.amounts, strict=False):
        if bucket is end:
            return
        if amount:
            bucket.state = bucket.before


def refusal(path: Path, amounts: Sequence[int], now: int) -> Refusal | None:
    """Say which of the limits binds, and how long; None: none does. Changes nothing."""
    refusals = [
        refused(bucket, amount, now, may_free=bucket.strategy.may_free(bucket.state, amount, now))
        for bucket, amount in zip(path, amounts)  # noqa: B905
        if amount and bucket.take(bucket.state, amount, now) is None
    ]
    return max(refusals, key=severity, default=None)


def refused(bucket: Bucket, amount: int, now: int, *, may_free: bool, ahead: int = 0) -> Refusal:
    """Return the refusal of a call that has so many units before it; the rest as Refusal says."""
    strategy, state = bucket.strategy, bucket.state
    return Refusal(
        bucket,
        amount,
        strategy.available(state, now) - ahead,
        strategy.wait(state, amount + ahead, now),
        never=amount > strategy.capacity,
        may_free=may_free,
    )


def severity(refusal: Refusal) -> tuple[bool, bool, int]:
    """How long a refusal holds, for comparison: whichever limit frees last binds."""
    return (refusal.never, refusal.wait is None, refusal.wait or 0)
