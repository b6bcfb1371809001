"""Rate-limiting strategies as pure transitions: `(state, request, now) → (state, decision)`.

Amounts are whole numbers, times are whole milliseconds since the epoch, and states are immutable, so any
store can keep them and every step can be tried without being taken.
"""

from __future__ import annotations

from typing import Any, Protocol

from agent_rate_limiter.limits import Limit, Resource
from agent_rate_limiter.strategies.concurrency import Concurrency
from agent_rate_limiter.strategies.fixed_window import FixedWindow
from agent_rate_limiter.strategies.gate import OPEN, SLOW_START, Gate
from agent_rate_limiter.strategies.sliding_window import SlidingWindow
from agent_rate_limiter.strategies.token_bucket import TokenBucket

__all__ = [
    "GATE",
    "NARROW_GATE",
    "Concurrency",
    "FixedWindow",
    "Gate",
    "SlidingWindow",
    "Strategy",
    "TokenBucket",
    "strategy_for",
]

GATE = Limit(Resource.CONCURRENCY, OPEN, name="gate")
"""What every target's path begins with: closed while its provider refuses."""
NARROW_GATE = Limit(Resource.CONCURRENCY, OPEN, name="slow start")
"""The same for a target whose limits nobody knows yet."""


class Strategy(Protocol):
    """How one limit counts. `State` is the strategy's own; callers only carry it."""

    @property
    def capacity(self) -> int:
        """The most that one request may ever take."""
        ...

    @property
    def holds(self) -> bool:
        """Whether what calls in flight have taken is kept apart from what is used for good.

        If not, a call that used what it took changes nothing when it is settled.
        """
        ...

    def initial(self, now: int) -> Any:
        """Return the state of a limit that nobody has drawn on."""
        ...

    def take(self, state: Any, amount: int, now: int) -> Any | None:
        """Return the state after taking `amount`, or None when it does not fit now."""
        ...

    def settle(self, state: Any, taken: int, used: int, taken_at: int, now: int) -> Any:
        """Correct an earlier take to what was really used (0: the call never was)."""
        ...

    def wait(self, state: Any, amount: int, now: int) -> int | None:
        """Milliseconds until `amount` fits if nobody else takes; None: only once somebody gives back."""
        ...

    def may_free(self, state: Any, amount: int, now: int) -> bool:
        """Whether calls in flight could still give enough back for `amount` to fit before time alone does."""
        ...

    def available(self, state: Any, now: int) -> int:
        """Units that could be taken now; negative while in debt."""
        ...

    def idle_in(self, state: Any, now: int) -> int | None:
        """Milliseconds until the state equals a fresh one; None while calls are in flight or it never does."""
        ...


def strategy_for(limit: Limit) -> Strategy:
    """Build the strategy that a limit asks for."""
    if limit is GATE or limit is NARROW_GATE:
        return Gate() if limit is GATE else Gate(SLOW_START)
    if limit.strategy == "concurrency":
        return Concurrency(limit.units)
    if limit.strategy == "fixed_window":
        return FixedWindow(limit.units, limit.per, limit.timezone, enforced=limit.enforced)
    period = limit.period_ms
    assert period is not None  # noqa: S101 - Limit refuses these strategies without a period
    if limit.strategy == "sliding_window":
        money = limit.resource is Resource.COST
        return SlidingWindow(limit.units, period, refunds=money, enforced=limit.enforced)
    return TokenBucket(limit.units, period, limit.burst_units)
