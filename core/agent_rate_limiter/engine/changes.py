"""What providers say of limits, on its way to a shared store: written unless somebody was faster, else worked in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent_rate_limiter.admission import Bucket
from agent_rate_limiter.engine.outbox import Outbox
from agent_rate_limiter.engine.port import Rule, Write
from agent_rate_limiter.engine.verdicts import merged, translated
from agent_rate_limiter.engine.wishes import PlaceOf
from agent_rate_limiter.limits import Limit
from agent_rate_limiter.strategies import Strategy

Was = tuple[Any, Limit | None, Strategy]
"""State, rule and strategy of a limit before a change."""


class Changes:
    """Changes to limits whose states have just been read. Used under the engine's lock.

    They go out before whatever was wanted meanwhile, while those states still hold; many to one limit go as one.

    Args:
        outbox: where they go.
        is_adaptive: whether a limit is searched for by its refusals.
    """

    def __init__(self, outbox: Outbox, is_adaptive: Callable[[Bucket], bool]) -> None:
        self._outbox = outbox
        self._is_adaptive = is_adaptive
        self._unsent: dict[Bucket, _Change] = {}

    def note(self, bucket: Bucket, was: Was | None) -> None:
        """Have a limit written as it is now; `was` as it had been read, None if it was not known."""
        same_rule = was is not None and was[1] is bucket.limit
        unsent = self._unsent.get(bucket)
        if unsent is not None and same_rule and was is not None and unsent.goes_on(was):
            unsent.after = bucket.state
            return
        change = _Change(self, bucket, was, None if same_rule else self._rule(bucket))
        if unsent is None:
            self._unsent[bucket] = change
            self._outbox.wishes.appendleft(change)
        else:
            self._outbox.wishes.append(change)

    def _rule(self, bucket: Bucket) -> Rule:
        target = bucket.key.partition("|")[0] if bucket.learned else ""
        return Rule(bucket.rev + 1, bucket.limit, target, self._is_adaptive(bucket))

    def gone(self, change: _Change) -> None:
        """It is on its way, or lost: what comes now is another."""
        if self._unsent.get(change.bucket) is change:
            del self._unsent[change.bucket]


class _Change:
    """A change to one limit: a wish."""

    __slots__ = ("_before", "_changes", "_limit", "_rule", "_strategy", "after", "bucket")
    asks = True

    def __init__(self, changes: Changes, bucket: Bucket, was: Was | None, rule: Rule | None) -> None:
        self._changes = changes
        self._limit, self._strategy = bucket.limit, bucket.strategy
        self._rule = rule
        self._before = bucket.state if was is None else translated(was[0], was[2], bucket.strategy)
        self.bucket = bucket
        self.after = bucket.state

    def goes_on(self, was: Was) -> bool:
        """Whether another change begins where this one ends."""
        return self.after == was[0] and self._strategy is was[2]

    def make(self, place: PlaceOf) -> Write:
        """Return the command."""
        self._changes.gone(self)
        return Write(place(self.bucket), self._before, self.after, self._strategy, self._rule)

    def hear(self, found: Any, now: int) -> None:
        """It is written; or else, make the change to what is there by now."""
        bucket, rule = self.bucket, self._rule
        if found:
            if rule is not None:
                bucket.rev, bucket.state = rule.rev, self.after
            return
        current = bucket.state  # as the store has it by now
        bucket.obey(self._limit, self._strategy)
        bucket.state = merged(current, self._before, self.after, self._strategy, now)
        if rule is not None or bucket.state != current:
            self._changes.note(bucket, (current, self._limit if rule is None else None, self._strategy))

    def lost(self, now: int) -> bool:  # noqa: ARG002
        """What was said is old by the time that the store is back."""
        self._changes.gone(self)
        return False
