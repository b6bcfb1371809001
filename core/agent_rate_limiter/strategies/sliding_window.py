"""Never more than the amount in any window of the period, wherever the window begins."""

from __future__ import annotations

_SLOTS = 60
"""Slots per window: bounds the state, and holds units back for at most 1/60 of the period too long."""

State = tuple[int, tuple[tuple[int, int], ...], int]
"""Units in the window, (slot number, units) of each slot in use, oldest first, and units held by calls in flight."""


class SlidingWindow:
    """A log of what was taken, rounded up to slots so that it stays small however many calls there are.

    Args:
        amount: units per period.
        period: milliseconds.
        refunds: whether calls in flight usually give something back, as of money: then it is worth waiting for.
        enforced: False only counts.
    """

    __slots__ = ("_most", "_period", "_refunds", "_width", "capacity")

    holds = True

    def __init__(self, amount: int, period: int, *, refunds: bool = False, enforced: bool = True) -> None:
        self.capacity = amount
        self._most = amount if enforced else float("inf")
        self._refunds = refunds
        self._period = period
        self._width = max(1, period // _SLOTS)

    @property
    def refunds(self) -> bool:
        """Whether what calls in flight hold is worth waiting for."""
        return self._refunds

    @property
    def enforced(self) -> bool:
        """Whether it refuses anything."""
        return self._most == self.capacity

    @property
    def width(self) -> int:
        """Milliseconds of a slot."""
        return self._width

    @property
    def period(self) -> int:
        """Milliseconds."""
        return self._period

    def initial(self, now: int) -> State:  # noqa: ARG002 - one shape for all strategies
        """Nothing taken."""
        return (0, (), 0)

    def take(self, state: State, amount: int, now: int) -> State | None:
        """Log `amount` in the current slot, if the window has room."""
        total, slots, held = self._current(state, now)
        if total + amount > self._most:
            return None
        return (total + amount, self._add(slots, now // self._width, amount), held + amount)

    def settle(self, state: State, taken: int, used: int, taken_at: int, now: int) -> State:
        """Correct the slot in which it was taken; if that has left the window, only further use counts, now."""
        total, slots, held = self._current(state, now)
        slot, change = taken_at // self._width, used - taken
        if self._leaves(slot) <= now:
            slot, change = now // self._width, max(0, change)
        return (total + change, self._add(slots, slot, change) if change else slots, held - taken)

    def wait(self, state: State, amount: int, now: int) -> int:
        """Milliseconds until enough slots have left the window."""
        total, slots, _ = self._current(state, now)
        rounds, amount = divmod(amount, self.capacity) if amount > self.capacity else (0, amount)
        excess = total + amount - self.capacity
        for slot, units in slots:
            if excess <= 0:
                break
            excess -= units
            if excess <= 0:
                return rounds * self._period + self._leaves(slot) - now
        return rounds * self._period

    def may_free(self, state: State, amount: int, now: int) -> bool:
        """Whether it fits once every call in flight has given back all it holds, where that is to be expected."""
        total, _, held = self._current(state, now)
        return self._refunds and held > 0 and total - held + amount <= self.capacity

    def available(self, state: State, now: int) -> int:
        """Units that fit now."""
        return self.capacity - self._current(state, now)[0]

    def idle_in(self, state: State, now: int) -> int | None:
        """Milliseconds until the last slot has left the window; None while calls are in flight."""
        _, slots, held = self._current(state, now)
        if held:
            return None
        return self._leaves(slots[-1][0]) - now if slots else 0

    def _leaves(self, slot: int) -> int:
        return (slot + 1) * self._width + self._period

    def _current(self, state: State, now: int) -> State:
        total, slots, held = state
        gone = 0
        while gone < len(slots) and self._leaves(slots[gone][0]) <= now:
            total -= slots[gone][1]
            gone += 1
        return (total, slots[gone:], held) if gone else state

    @staticmethod
    def _add(slots: tuple[tuple[int, int], ...], slot: int, units: int) -> tuple[tuple[int, int], ...]:
        place = len(slots)
        while place and slots[place - 1][0] > slot:
            place -= 1
        if place and slots[place - 1][0] == slot:
            place -= 1
            units += slots[place][1]
            after = slots[place + 1 :]
        else:
            after = slots[place:]
        return (*slots[:place], (slot, units), *after) if units else (*slots[:place], *after)
