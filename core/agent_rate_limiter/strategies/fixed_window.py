"""A counter that starts anew with each period: Azure's minutes, Gemini's days, everybody's budgets."""

from __future__ import annotations

from agent_rate_limiter.strategies.calendar import CALENDAR_WORDS, FOREVER, window

State = tuple[int, int, int, int]
"""Start and end of the window in epoch milliseconds, units used for good, units held by calls in flight."""


class FixedWindow:
    """At most `amount` in each window of the clock or calendar.

    What calls in flight hold is counted apart from what is used for good: a budget knows what may still
    come back.

    Args:
        amount: units per window.
        per: seconds, a word ("minute" … "month"), or None for one window without end.
        timezone: whose days, weeks and months.
        enforced: False only counts.
    """

    __slots__ = ("_around", "_most", "_per", "_timezone", "capacity")

    holds = True

    def __init__(self, amount: int, per: float | str | None, timezone: str = "UTC", *, enforced: bool = True) -> None:
        self.capacity = amount
        self._most = amount if enforced else float("inf")
        self._per = per
        self._timezone = timezone
        self._around: tuple[int, ...] = (0, 0, 0, 0, 0)  # what `bounds` said last: calendars take long

    @property
    def enforced(self) -> bool:
        """Whether it refuses anything."""
        return self._most == self.capacity

    def bounds(self, now: int, lasting: int) -> tuple[int, ...]:
        """Say when windows begin, for who knows no calendar: a length, or 0 and the windows around `now`.

        Args:
            now: epoch milliseconds.
            lasting: what follows the -1 of a window without end.
        """
        if self._per is None:
            return (-1, lasting)
        if not self._around[2] <= now < self._around[3]:
            start, end = window(now, self._per, self._timezone)
            if self._per not in CALENDAR_WORDS:
                return (end - start,)
            before = window(start - 1, self._per, self._timezone)[0]
            after = window(end, self._per, self._timezone)[1]
            self._around = (0, before, start, end, after)
        return self._around

    def initial(self, now: int) -> State:
        """Nothing used in the window that `now` is in."""
        return (*window(now, self._per, self._timezone), 0, 0)

    def take(self, state: State, amount: int, now: int) -> State | None:
        """Hold `amount`, if the window has room."""
        start, end, used, held = state if now < state[1] else self.initial(now)
        held += amount
        return (start, end, used, held) if used + held <= self._most else None

    def settle(self, state: State, taken: int, used: int, taken_at: int, now: int) -> State:
        """Turn the hold into use. A call that outlived its window was counted there; only excess counts here."""
        start, end, total, held = state if now < state[1] else self.initial(now)
        if taken_at >= start:
            return (start, end, total + used, held - taken)
        return (start, end, total + max(0, used - taken), held)

    def wait(self, state: State, amount: int, now: int) -> int | None:
        """Milliseconds until a window has room; None when no window ever will by itself."""
        start, end, used, held = state if now < state[1] else self.initial(now)
        excess = used + held + amount - self.capacity
        if excess <= 0:
            return 0
        if end >= FOREVER:
            return None
        windows_after = max(0, -(-amount // self.capacity) - 1)
        return end - now + windows_after * (end - start)

    def may_free(self, state: State, amount: int, now: int) -> bool:
        """Whether it fits once every call in flight has given back all it holds."""
        return now < state[1] and state[3] > 0 and state[2] + amount <= self.capacity

    def available(self, state: State, now: int) -> int:
        """Units that fit now."""
        return self.capacity - state[2] - state[3] if now < state[1] else self.capacity

    def spent(self, state: State, now: int) -> int:
        """Units that were used for good, without what calls in flight hold."""
        return state[2] if now < state[1] else 0

    def idle_in(self, state: State, now: int) -> int | None:
        """Milliseconds until the window ends; None for a window without end that has been drawn on."""
        if state[2] == 0 and state[3] == 0:
            return 0
        return None if state[1] >= FOREVER else max(0, state[1] - now)
