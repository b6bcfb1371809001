"""What a target costs: the user's price, else the price table's; and what is done about one that nobody knows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.estimates import UNSTATED_OUTPUT
from agent_rate_limiter.limits import Target
from agent_rate_limiter.pricing import Price

USER = "user"
"""The source of a price that was configured."""
STATED = "provider"
"""The source of a cost that the provider's response stated."""
UNPRICED = "unpriced"
"""The source where there is no price: the call is booked at $0, and reports say so."""
ON_UNKNOWN = ("warn", "block", "zero")

_EVER = 1 << 62
_log = logging.getLogger("agent_rate_limiter")


class Quote(NamedTuple):
    """What a target costs now.

    Args:
        price: None: nobody knows.
        source: where it is from: "user", "unpriced", or a price table and its version.
        until: the epoch millisecond at which it may change.
    """

    price: Price | None
    source: str
    until: int = _EVER


class Quotes:
    """Finds prices, and says once of each target that it has none.

    Args:
        on_unknown: "warn" logs a warning and books $0, marked as unpriced; "block" refuses the call before it is
            sent; "zero" books $0 and says nothing.
        now: tells the time, in epoch milliseconds.

    Raises:
        ConfigError: `on_unknown` is none of these.
    """

    def __init__(self, on_unknown: str, now: Callable[[], int]) -> None:
        if on_unknown not in ON_UNKNOWN:
            raise ConfigError(f"on_unknown_price is {on_unknown!r}: give 'warn', 'block' or 'zero'.")
        self.blocks = on_unknown == "block"
        self._warns = on_unknown == "warn"
        self._now = now
        self._warned: set[tuple[Target, bool]] = set()
        self._unstated: set[Target] = set()

    def quote(
        self,
        target: Target,
        price: Price | None,
        kind: str | None,
        at: int | None = None,
        budgets: Iterable[str] = (),
    ) -> Quote:
        """Find what a target costs.

        Args:
            target: where calls go.
            price: what the user configured; it wins.
            kind: whose price list it is on; None when it is on nobody's, and that is no surprise.
            at: epoch milliseconds; None is now.
            budgets: what would bind if there were a price; for the warning.

        Raises:
            ConfigError: there is no price, and "block" is wanted.
        """
        if price is not None:
            return Quote(price, USER)
        listed = None
        if kind is not None:
            from agent_rate_limiter.costs.price_table import listed_price

            listed = listed_price(kind, target.model, self._now() if at is None else at)
        if listed is not None:
            return Quote(listed.price, listed.source, _EVER if listed.until is None else listed.until)
        budgets = tuple(budgets)
        if kind is not None or budgets:
            self._unknown(target, budgets)
        return Quote(None, UNPRICED)

    def unstated(self, target: Target, budgets: Iterable[str]) -> None:
        """Say once of a target that its calls state no `max_tokens`, where hard budgets would need it."""
        if target not in self._unstated:
            self._unstated.add(target)
            _log.warning(
                "Calls to %s state no max_tokens: of %s is reserved what such answers usually cost (%s tokens until "
                "one has come), and longer ones can overrun that. State max_tokens to be sure.",
                target,
                ", ".join(map(repr, budgets)),
                f"{UNSTATED_OUTPUT:,}",
            )

    def _unknown(self, target: Target, budgets: tuple[str, ...]) -> None:
        fix = "give it input_per_1m and output_per_1m (or cost_per_1k)"
        if self.blocks:
            raise ConfigError(
                f"{target} has no price, neither yours nor in the price table: {fix}, or set on_unknown_price to "
                "'warn' or 'zero'. It was not sent."
            )
        if self._warns and (target, bool(budgets)) not in self._warned:
            self._warned.add((target, bool(budgets)))
            unbound = f", and do not count against {', '.join(map(repr, budgets))}" if budgets else ""
            _log.warning(
                "%s has no price, neither yours nor in the price table: its calls are booked at $0, marked "
                "'unpriced'%s. To change that, %s, or set on_unknown_price to 'block' or 'zero'.",
                target,
                unbound,
                fix,
            )
