"""What closes a target: a refusal, an overload, an exhausted day. Then it opens gradually.

Also the slow start of a target whose limits nobody knows yet: few calls at once until the provider tells them,
or until enough have succeeded. Growth and decrease are AIMD, as TCP's (RFC 5681): doubling per round up to a threshold,
one more per round beyond it, only while the window is what binds; four fifths of it after a refusal.
"""

from __future__ import annotations

from typing import NamedTuple

OPEN = 1 << 30
"""A window that binds nobody."""
_DECREASE = (4, 5)
_TRUSTED = 64
"""A window that has grown this wide binds nobody any more, where the limits are known."""
SLOW_START = 3
"""Calls at once that a target begins with whose limits nobody knows."""
_PROBES = 24
"""Successes before it is given more: the first burst is the most likely to be refused, and at once by as many."""
TRIP_AFTER = 3
"""Overloads in a row that open the circuit breaker."""
_REOPENED = 8
"""The window at which a gate that bound nobody before counts as open again."""


class State(NamedTuple):
    """How a gate stands.

    Args:
        closed_until: epoch milliseconds before which nobody passes.
        window: calls that may be in flight.
        in_flight: calls that are, of those admitted since the last closing; not counted while nobody is bound.
        threshold: the window up to which it doubles per round; beyond, it grows by one.
        progress: successes since the window grew last.
        strikes: refusals or overloads in a row.
        closed_at: epoch milliseconds of the last closing; calls admitted before it tell nothing new.
    """

    closed_until: int
    window: int
    in_flight: int
    threshold: int
    progress: int
    strikes: int
    closed_at: int


FREE = State(0, OPEN, 0, OPEN, 0, 0, 0)
"""A gate that was never closed: this very object, so that calls need not look into it."""


class Gate:
    """Closed for everybody until a time, then opened call by call.

    Args:
        window: calls at once to begin with; OPEN for a target whose limits are known.
    """

    __slots__ = ("_window", "capacity")

    holds = True

    def __init__(self, window: int = OPEN) -> None:
        self.capacity = OPEN
        self._window = window

    @staticmethod
    def counts(state: State) -> bool:
        """Whether it is known how many calls are in flight."""
        return state.window < OPEN

    def initial(self, now: int) -> State:  # noqa: ARG002 - one shape for all strategies
        """Open, as wide as a fresh target is."""
        return FREE if self._window >= OPEN else FREE._replace(window=self._window)

    def take(self, state: State, amount: int, now: int) -> State | None:
        """Pass, if it is open and the window has room."""
        if now < state[0]:
            return None
        if state[1] >= OPEN:  # nobody counts: the usual case, on every call's way
            return state
        in_flight = state.in_flight + amount
        return state._replace(in_flight=in_flight) if in_flight <= state.window else None

    def settle(self, state: State, taken: int, used: int, taken_at: int, now: int) -> State:  # noqa: ARG002
        """Leave, whatever the call did; those that passed before the last closing were not counted."""
        if state[1] >= OPEN or taken_at < state.closed_at:
            return state
        return state._replace(in_flight=max(0, state.in_flight - taken))

    def wait(self, state: State, amount: int, now: int) -> int | None:
        """Milliseconds until it opens; None while the window is full of calls in flight."""
        if now < state.closed_until:
            return state.closed_until - now
        return 0 if state.in_flight + amount <= state.window else None

    def may_free(self, state: State, amount: int, now: int) -> bool:  # noqa: ARG002
        """Whether a call that ends makes room."""
        return now >= state.closed_until and state.in_flight > 0

    def available(self, state: State, now: int) -> int:
        """Calls that may pass now."""
        return 0 if now < state.closed_until else max(0, state.window - state.in_flight)

    def idle_in(self, state: State, now: int) -> int | None:
        """Fresh if it binds nobody, or never did anything else."""
        return 0 if (state.window >= OPEN and now >= state.closed_until) or state == self.initial(now) else None


def succeeded(state: State, *, known: bool) -> State:
    """Return the gate after a call went through.

    Args:
        state: before.
        known: whether the target's limits are known: then its window needs only to reopen, not to search.
    """
    if state.window >= OPEN:
        return state._replace(strikes=0) if state.strikes else state
    if known and state.window >= min(state.threshold, _TRUSTED):
        return state._replace(closed_until=0, window=OPEN, threshold=OPEN, progress=0, strikes=0)
    if 4 * (state.in_flight + 1) < state.window:  # not saturated: success proves nothing
        return state._replace(strikes=0)
    progress = state.progress + 1
    needed = (
        _PROBES
        if state.window == SLOW_START and state.threshold >= OPEN
        else 1
        if state.window < state.threshold
        else state.window
    )
    if progress >= needed:
        return state._replace(window=state.window + 1, progress=0, strikes=0)
    return state._replace(progress=progress, strikes=0)


def closed(state: State, until: int, now: int) -> State:
    """Return the gate after a refusal: shut until then, and opened again by one call at first.

    Args:
        state: before.
        until: epoch milliseconds.
        now: epoch milliseconds.
    """
    threshold = _REOPENED if state.window >= OPEN else max(2, state.window * _DECREASE[0] // _DECREASE[1])
    return state._replace(
        closed_until=max(until, state.closed_until),
        window=1,
        in_flight=0,
        threshold=threshold,
        progress=0,
        strikes=state.strikes + 1,
        closed_at=now,
    )


def prolonged(state: State, until: int) -> State:
    """Return the gate after another refusal of the wave that closed it.

    Args:
        state: before.
        until: epoch milliseconds.
    """
    return state._replace(closed_until=max(until, state.closed_until))


def struck(state: State, now: int | None = None) -> State:
    """Return the gate after a failure that does not close it yet.

    Args:
        state: before.
        now: epoch milliseconds, if calls that were admitted before tell nothing new; as after a closing, those that
            are counted are forgotten.
    """
    if now is None:
        return state._replace(strikes=state.strikes + 1)
    return state._replace(strikes=state.strikes + 1, closed_at=now, in_flight=0)
