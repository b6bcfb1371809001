"""What happens while a shared store cannot be reached."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from agent_rate_limiter.admission import Bucket, Refusal, take_all
from agent_rate_limiter.engine.port import Answer, Hold
from agent_rate_limiter.strategies import TokenBucket

FAIL_CLOSED, FAIL_OPEN, LOCAL = POLICIES = ("fail_closed", "fail_open", "local")
_FIRST, _LAST = 100, 2_000
"""Milliseconds until the store is tried again; doubled each time, with jitter."""
_MEANS = {
    FAIL_CLOSED: "calls are refused",
    FAIL_OPEN: "calls are admitted without limits",
    LOCAL: "calls are admitted by this process's share of the limits",
}
_dice = Random()  # noqa: S311 - no secrets; our own, so that a program that seeds the module keeps its numbers
_log = logging.getLogger("agent_rate_limiter")


class Loss:
    """Whether the store is lost, and what is done then. Used under the engine's lock.

    Args:
        policy: "fail_closed" refuses calls, "fail_open" admits them without limits, "local" admits by this
            process's share: the limits divided by how many processes there were.
        share: makes a process's own limit of a shared one, given how many processes there are and the time.

    Attributes:
        since: epoch milliseconds of the loss; None while the store is there.
        retry_at: when the store is tried again.
        reason: the error's sentence.
    """

    def __init__(self, policy: str, share: Callable[[Bucket, int, int], Bucket]) -> None:
        self.policy = policy
        self.since: int | None = None
        self.retry_at = 0
        self.reason = ""
        self.told: Callable[[str, float | None], object] = lambda reason, seconds: None  # noqa: ARG005
        self._share = share
        self._members = 1
        self._tries = 0
        self._own: dict[Bucket, Bucket] = {}
        self._drawn: dict[Bucket, Any] = {}  # states as they would be, had the store heard of it

    def lost(self, error: Exception, now: int) -> bool:
        """Note that the store cannot be reached. True if it could before."""
        self.reason = str(error)
        delay = min(_LAST, _FIRST << min(self._tries, 10))
        self.retry_at = now + round(_dice.uniform(0.5, 1) * delay)  # spreads the processes
        self._tries += 1
        if self.since is not None:
            return False
        self.since = now
        _log.warning("%s Until it is back, %s (on_store_error=%r).", self.reason, _MEANS[self.policy], self.policy)
        self.told(self.reason, None)
        return True

    def found(self, answer: Answer) -> bool:
        """Note that the store has answered. True if it was lost before."""
        self._members = max(1, answer.members)
        self._tries = 0
        if self.since is None:
            return False
        seconds = (answer.now - self.since) / 1000
        _log.warning("The store is back after %.1f s.", seconds)
        self.told("", seconds)
        self.since, self.reason = None, ""
        self._own.clear()
        return True

    def decide(self, hold: Hold, now: int) -> Refusal | str | None:
        """Decide a call without the store: None admits it, a text says why that cannot be."""
        if self.policy == FAIL_CLOSED:
            return self.reason
        if self.policy == FAIL_OPEN:
            return None
        own = tuple(self._mine(bucket, now) for bucket in hold.path)
        refusal = take_all(Hold(own, hold.amounts), now)
        return refusal and refusal._replace(bucket=hold.path[own.index(refusal.bucket)])

    def settle(self, hold: Hold, used: Sequence[int], now: int) -> None:
        """End a hold that was admitted without the store."""
        for bucket, taken, amount in zip(hold.path, hold.amounts, used, strict=False):
            mine = self._own.get(bucket)
            if mine is not None:
                mine.state = mine.settle(mine.state, taken, amount, hold.taken_at, now)

    def unheard(self, hold: Hold, used: Sequence[int]) -> Sequence[int]:
        """Note what the store has to hear of later; return the rest, which it is told as it is.

        What a token bucket was drawn on meanwhile has been refilled meanwhile, too: only what is still owed when the
        store is back is charged.
        """
        if self.since is None:
            return used
        rest = list(used)
        for place, bucket in enumerate(hold.path):
            if isinstance(bucket.strategy, TokenBucket) and used[place]:
                state = self._drawn.get(bucket, bucket.state)
                at = max(hold.taken_at, state[1])
                self._drawn[bucket] = bucket.strategy.settle(state, 0, used[place], at, at)
                rest[place] = 0
        return rest

    def owed(self, now: int) -> list[tuple[Bucket, int]]:
        """Return what token buckets owe for what the store has not heard of; before they are refreshed."""
        drawn, self._drawn = self._drawn, {}
        found = [(b, b.strategy.available(b.state, now) - b.strategy.available(s, now)) for b, s in drawn.items()]
        return [(bucket, units) for bucket, units in found if units > 0]

    def _mine(self, bucket: Bucket, now: int) -> Bucket:
        found = self._own.get(bucket)
        if found is None:
            found = self._own[bucket] = self._share(bucket, self._members, now)
        return found
