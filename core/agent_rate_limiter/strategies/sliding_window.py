"""Never more than the amount in any window of the period, wherever the window begins."""

from __future__ import annotations

_SLOTS = 60
"""Slots per window: bounds the state, and holds units back for at most 1/60 of the period too long."""

State = tuple[int, tuple[tuple[int, int], ...]]
"""Units in the window, and (slot number, units) of each slot in use, oldest first."""


class SlidingWindow:
    """A log of what was taken, rounded up to slots so that it stays small however many calls there are.

    Args:
        amount: units per period.
        period: milliseconds.
    """

    __slots__ = ("_period", "_width", "capacity")

    def __init__(self, amount: int, period: int) -> None:
        self.capacity = amount
        self._period = period
        self._width = max(1, period // _SLOTS)

    def initial(self, now: int) -> State:  # noqa: ARG002 - one shape for all strategies
        """Nothing taken."""
        return (0, ())

    def take(self, state: State, amount: int, now: int) -> State | None:
        """Log `amount` in the current slot, if the window has room."""
        total, slots = self._current(state, now)
        if total + amount > self.capacity:
            return None
        return (total + amount, self._add(slots, now // self._width, amount))

    def settle(self, state: State, taken: int, used: int, taken_at: int, now: int) -> State:
        """Correct the slot in which it was taken; if that has left the window, only further use counts, now."""
        total, slots = self._current(state, now)
        slot, change = taken_at // self._width, used - taken
        if self._leaves(slot) <= now:
            slot, change = now // self._width, max(0, change)
        return (total + change, self._add(slots, slot, change)) if change else (total, slots)

    def wait(self, state: State, amount: int, now: int) -> int:
        """Milliseconds until enough slots have left the window."""
        total, slots = self._current(state, now)
        rounds, amount = divmod(amount, self.capacity) if amount > self.capacity else (0, amount)
        excess = total + amount - self.capacity
        for slot, units in slots:
            if excess <= 0:
                break
            excess -= units
            if excess <= 0:
                return rounds * self._period + self._leaves(slot) - now
        return rounds * self._period

    def may_free(self, state: State, amount: int, now: int) -> bool:  # noqa: ARG002
        """Time alone frees a window; a refund only makes it sooner."""
        return False

    def available(self, state: State, now: int) -> int:
        """Units that fit now."""
        return self.capacity - self._current(state, now)[0]

    def idle_in(self, state: State, now: int) -> int:
        """Milliseconds until the last slot has left the window."""
        slots = self._current(state, now)[1]
        return self._leaves(slots[-1][0]) - now if slots else 0

    def _leaves(self, slot: int) -> int:
        return (slot + 1) * self._width + self._period

    def _current(self, state: State, now: int) -> State:
        total, slots = state
        gone = 0
        while gone < len(slots) and self._leaves(slots[gone][0]) <= now:
            total -= slots[gone][1]
            gone += 1
        return (total, slots[gone:]) if gone else state

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
