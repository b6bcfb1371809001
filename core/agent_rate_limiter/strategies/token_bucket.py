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
    """

    __slots__ = ("_ceiling", "_leak", "_unit", "capacity")

    holds = False

    def __init__(self, amount: int, period: int, burst: int | None = None) -> None:
        shared = gcd(amount, period)
        self.capacity = amount if burst is None else burst
        self._unit = period // shared
        self._leak = amount // shared
        self._ceiling = self.capacity * self._unit

    @property
    def unit(self) -> int:
        """The fractions that one unit is counted in."""
        return self._unit

    @property
    def leak(self) -> int:
        """The fractions that each millisecond pays off."""
        return self._leak

    def initial(self, now: int) -> State:
        """Nothing owed."""
        return (0, now)

    def take(self, state: State, amount: int, now: int) -> State | None:
        """Owe `amount` more, unless that is more than the bucket holds."""
        debt, last = state
        if now > last:
            debt -= (now - last) * self._leak
            if debt < 0:  # noqa: PLR1730 - max() is slower, and this is the hot path
                debt = 0
        debt += amount * self._unit
        return (debt, now) if debt <= self._ceiling else None

    def settle(self, state: State, taken: int, used: int, taken_at: int, now: int) -> State:  # noqa: ARG002 - one shape for all
        """Pay back what was not used, or owe what was used beyond the estimate."""
        debt, last = state
        if now > last:
            debt -= (now - last) * self._leak
            if debt < 0:  # noqa: PLR1730 - max() is slower, and this is the hot path
                debt = 0
        debt += (used - taken) * self._unit
        return (debt if debt > 0 else 0, now)  # noqa: FURB136 - as above

    def wait(self, state: State, amount: int, now: int) -> int:
        """Milliseconds until the leak has made room: `deficit / rate`, rounded up."""
        excess = self._debt(state, now) + amount * self._unit - self._ceiling
        return -(-excess // self._leak) if excess > 0 else 0

    def may_free(self, state: State, amount: int, now: int) -> bool:  # noqa: ARG002
        """Time alone frees a bucket; a refund only makes it sooner."""
        return False

    def available(self, state: State, now: int) -> int:
        """Whole units that fit now."""
        return (self._ceiling - self._debt(state, now)) // self._unit

    def idle_in(self, state: State, now: int) -> int:
        """Milliseconds until nothing is owed."""
        return -(-self._debt(state, now) // self._leak)

    def _debt(self, state: State, now: int) -> int:
        debt, last = state
        return max(0, debt - (now - last) * self._leak) if now > last else debt
