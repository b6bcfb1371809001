"""A limit whose units come back: calls at once."""

from __future__ import annotations


class Concurrency:
    """At most `amount` calls in flight. The state is how many are.

    Args:
        amount: calls at once.
    """

    __slots__ = ("capacity",)

    holds = True

    def __init__(self, amount: int) -> None:
        self.capacity = amount

    def initial(self, now: int) -> int:  # noqa: ARG002 - one shape for all strategies
        """Nobody in flight."""
        return 0

    def take(self, state: int, amount: int, now: int) -> int | None:  # noqa: ARG002
        """Take a slot, if one is free."""
        state += amount
        return state if state <= self.capacity else None

    def settle(self, state: int, taken: int, used: int, taken_at: int, now: int) -> int:  # noqa: ARG002
        """Give the slot back, whatever the call did."""
        return state - taken

    def wait(self, state: int, amount: int, now: int) -> int | None:  # noqa: ARG002
        """Nobody knows when a call ends: None, unless a slot is free."""
        return 0 if state + amount <= self.capacity else None

    def may_free(self, state: int, amount: int, now: int) -> bool:  # noqa: ARG002
        """Slots always come back, by the lease at the latest."""
        return state > 0

    def available(self, state: int, now: int) -> int:  # noqa: ARG002
        """Free slots."""
        return self.capacity - state

    def idle_in(self, state: int, now: int) -> int | None:  # noqa: ARG002
        """Idle only with nobody in flight."""
        return None if state else 0
