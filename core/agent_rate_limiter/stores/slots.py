"""A bucket as a store keeps it, and as one step after the other sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_rate_limiter.engine.port import Rule
from agent_rate_limiter.stores.lines import Line
from agent_rate_limiter.strategies import Strategy, strategy_for
from agent_rate_limiter.strategies.numbers import digits, pack, unpack


class Slot:
    """One bucket. It may be remembered from step to step, as long as nobody else changes what is kept.

    Args:
        key: its name.
        rev: its revision, as it is kept; -1: it is not.
        numbers: its state, as it is kept.

    Attributes:
        strategy: how the last sender counts, or the rule that goes before that.
        rev: the revision of that rule.
        state: as that strategy has it.
        fresh: nobody has drawn on it.
        changed: by this step.
        line: who waits for it, if anybody waits for anything.
    """

    __slots__ = (
        "_numbers",
        "_saved",
        "changed",
        "fresh",
        "kept",
        "key",
        "line",
        "line_changed",
        "rev",
        "state",
        "strategy"
    )  # fmt: skip

    def __init__(self, key: str, rev: int = -1, numbers: list[int] | None = None) -> None:
        self.key = key
        self.kept = self.rev = rev
        self.fresh = numbers is None
        self.changed = self.line_changed = False
        self.line: Line | None = None
        self.strategy: Any = None
        self.state: Any = None
        self._numbers = numbers
        self._saved: tuple[Strategy, Any] | None = None

    @property
    def numbers(self) -> list[int]:
        """Its state, as it is kept."""
        if self._numbers is None:
            assert self._saved is not None  # noqa: S101 - one of the two is known of what is kept
            self._numbers = pack(*self._saved)
        return self._numbers

    def turn(self, strategy: Strategy, rev: int, rules: Mapping[str, Rule], now: int) -> None:
        """Let it count as a sender does; or by the rule that is newer than what the sender knows."""
        self.rev = rev
        if self.fresh:
            self.strategy, self.state = strategy, strategy.initial(now)
            return
        if self.kept > rev and (rule := rules.get(self.key)) is not None:
            strategy, self.rev = strategy_for(rule.limit), self.kept
        if strategy is not self.strategy:
            self.strategy, self.state = strategy, unpack(strategy, self.numbers)

    def put(self, state: Any) -> None:
        """Change its state."""
        if state != self.state:
            self.state = state
            self.changed, self.fresh = True, False

    def charge(self, numbers: list[int]) -> None:
        """Change what is kept, whoever counts how."""
        self._numbers = numbers
        self.rev = self.kept
        self.strategy = None

    def text(self) -> str:
        """Return what is to be kept, and take it for kept."""
        strategy, rev = self.strategy, self.rev
        self.kept = rev
        self.changed = self.fresh = False
        if strategy is None:
            return str([rev, *self.numbers])
        self._saved, self._numbers = (strategy, self.state), None
        return f"[{rev}, {digits(strategy, self.state)}]"
