"""A bucket that refills continuously: what OpenAI, Anthropic and Groq do (provider docs, November 2026)."""

from __future__ import annotations

from math import gcd

State = tuple[int, int]
"""Debt in fractions of a unit, and the millisecond at which it was true."""


class TokenBucket:
    """At most `burst` at once, refilled by `amount` per `period`.

    The state is what is owed, not what is left: owed units leak away with time, so a full bucket is plain 0
    and nothing overflows. One unit is counted as `period / gcd` fractions and each millisecond pays off
    `amount / gcd` of them, so every step is exact in integers, and stays below 2^53 for any real limit
    (a store whose numbers are doubles computes the same).

    Args:
        amount: units per period.
        period: milliseconds.
        burst: units that may be taken at once.

    Attributes:
        unit: the fractions that one unit is counted in.
        leak: the fractions that each millisecond pays off.
    """

    __slots__ = ("_ceiling", "capacity", "leak", "unit")

    holds = False

    def __init__(self, amount: int, period: int, burst: int | None = None) -> None:
        shared = gcd(amount, period)
        self.capacity = amount if burst is None else burst
        self.unit = period // shared
        self.leak = amount // shared
        self._ceiling = self.capacity * self.unit

    def initial(self, now: int) -> State:
        """Nothing owed."""
        return (0, now)

    def take(self, state: State, amount: int, now: int) -> State | None:
        """Owe `amount` more, unless that is more than the bucket holds."""
        debt, last = state
        if now > last:
            debt -= (now - last) * self.leak
            if debt < 0:  # noqa: PLR1730 - max() is slower, and this is the hot path
                debt = 0
        debt += amount * self.unit
        return (debt, now) if debt <= self._ceiling else None

    def settle(self, state: State, taken: int, used: int, taken_at: int, now: int) -> State:  # noqa: ARG002 - one shape for all
        """Pay back what was not used, or owe what was used beyond the estimate."""
        debt, last = state
        if now > last:
            debt -= (now - last) * self.leak
            if debt < 0:  # noqa: PLR1730 - max() is slower, and this is the hot path
                debt = 0
        debt += (used - taken) * self.unit
        return (debt if debt > 0 else 0, now)  # noqa: FURB136 - as above

    def wait(self, state: State, amount: int, now: int) -> int:
        """Milliseconds until the leak has made room: `deficit / rate`, rounded up."""
        excess = self._debt(state, now) + amount * self.unit - self._ceiling
        return -(-excess // self.leak) if excess > 0 else 0

    def may_free(self, state: State, amount: int, now: int) -> bool:  # noqa: ARG002
        """Time alone frees a bucket; a refund only makes it sooner."""
        return False

    def available(self, state: State, now: int) -> int:
        """Whole units that fit now."""
        return (self._ceiling - self._debt(state, now)) // self.unit

    def idle_in(self, state: State, now: int) -> int:
        """Milliseconds until nothing is owed."""
        debt, last = state
        if now > last:
            debt -= (now - last) * self.leak
        return -(-debt // self.leak) if debt > 0 else 0

    def _debt(self, state: State, now: int) -> int:
        debt, last = state
        return max(0, debt - (now - last) * self.leak) if now > last else debt
