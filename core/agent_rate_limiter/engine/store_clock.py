"""The time of a store that processes share: they must agree on it."""

from __future__ import annotations

from agent_rate_limiter.engine.port import Clock


class StoreClock:
    """The store's time: this machine's, corrected by what the store's answers say.

    Args:
        clock: this machine's.
        own: whether the store tells the time itself.
    """

    def __init__(self, clock: Clock, *, own: bool) -> None:
        self._now = clock.now
        self.own = own
        self.skew = 0

    def now(self) -> int:
        """Epoch milliseconds."""
        return self._now() + self.skew

    def heard(self, told: int, sent: int, received: int) -> int:
        """Follow the store's clock, if it cannot have been that at any time since the question was sent.

        Returns: milliseconds by which it is later than was thought.
        """
        if not self.own or sent <= told <= received + 1:
            return 0
        moved = told - (sent + received) // 2
        self.skew += moved
        return moved
