"""The books of one target and one set of labels: what its calls cost, and where they are noted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agent_rate_limiter.costs.quotes import Quote
from agent_rate_limiter.limits import NANO_PER_DOLLAR, Target
from agent_rate_limiter.usage import Estimate, Usage

if TYPE_CHECKING:
    from agent_rate_limiter.cost_tracker import CostTracker
    from agent_rate_limiter.pricing import Price

OK, ESTIMATED, ABANDONED, REFUSED, FAILED = "ok", "estimated", "abandoned", "refused", "failed"
"""How calls end: with their usage, with a guess of it, dropped by their caller, refused by the provider, or failed."""


class Account:
    """Prices calls and notes them; made by `CostTracker.account`.

    Args:
        tracker: whose books these are.
        target: where the calls go.
        labels: who makes them.
        quote: finds the price at an epoch millisecond, or now; called when one is first needed.

    Attributes:
        price: the price that was found last.
        source: where it is from; empty before one was needed.
        place: what the ledger remembers of it.
    """

    __slots__ = (
        "_flat_rates",
        "_late",
        "_quote",
        "_tracker",
        "_until",
        "_worst_rates",
        "labels",
        "place",
        "price",
        "source",
        "target",
    )

    def __init__(
        self,
        tracker: CostTracker,
        target: Target,
        labels: tuple[tuple[str, str], ...],
        quote: Callable[[int | None], Quote],
    ) -> None:
        self._tracker = tracker
        self._late = tracker.late
        self._quote = quote
        self._until = 0  # when to ask for a price again: at first, as soon as one is needed
        self._flat_rates: tuple[int, int, int] | None = None
        self._worst_rates: tuple[int, int, int] | None = None
        self.target = target
        self.labels = labels
        self.price: Price | None = None
        self.source = ""
        self.place: Any = None

    # -- what calls cost -----------------------------------------------------------------------------------

    @property
    def priced(self) -> bool:
        """Whether its price was asked for yet."""
        return self._until > 0

    def find_price(self, at: int | None = None) -> None:
        """Ask for the price at an epoch millisecond, or now."""
        quote = self._quote(at)
        self.price = quote.price
        self._flat_rates = None if quote.price is None else quote.price.flat_rates
        self._worst_rates = None if quote.price is None else quote.price.worst_rates
        self.source = quote.source
        self._until = quote.until

    def cost(self, usage: Usage, at: int) -> int:
        """What a call of that time cost, in nano-dollars, rounded up; what the provider stated wins."""
        if usage.cost is None:
            if at >= self._until:
                self.find_price(at)
            rates = self._flat_rates
            if rates is not None:  # the usual case, in one step
                requests, sent, produced = rates
                millionths = usage.requests * requests + usage.input_tokens * sent + usage.output_tokens * produced
                return -(-millionths // 1_000_000)
        return self.known_cost(usage)

    def known_cost(self, usage: Usage) -> int:
        """The same by the price that was found last: safe in a finalizer, for nothing is looked up."""
        if self.price is not None:
            return self.price.nano(usage)
        return round((usage.cost or 0) * NANO_PER_DOLLAR)

    def worst(self, requests: int, input_tokens: int, output_tokens: int) -> int:
        """The most that a call can cost, in nano-dollars; 0 when nobody knows."""
        rates = self._worst_rates
        if rates is None:  # the first call, or one whose price depends on more than that
            if not self._until:
                self.find_price()
            return 0 if self.price is None else self.price.worst_nano(requests, input_tokens, output_tokens)
        return -(-(requests * rates[0] + input_tokens * rates[1] + output_tokens * rates[2]) // 1_000_000)

    def expected(self, estimate: Estimate | None) -> int:
        """What a call was expected to cost, in nano-dollars; 0 when nobody knows."""
        if estimate is None:
            return 0
        if estimate.cost is not None:
            return round(estimate.cost * NANO_PER_DOLLAR)
        if self.price is None:
            return 0
        return self.price.expected_nano(estimate.requests, estimate.input_tokens, estimate.expected_output_tokens)

    # -- the books -----------------------------------------------------------------------------------------

    def book(  # noqa: PLR0917 - on the hot path
        self,
        usage: Usage,
        nano: int,
        at: int,
        took: int = 0,
        outcome: str = OK,
        attempts: int = 1,
        estimate: Estimate | None = None,
    ) -> float:
        """Book one call; return its cost in dollars. With a ledger in a file, it is there when this returns.

        Args:
            usage: what it used.
            nano: what it cost, in nano-dollars.
            at: epoch milliseconds at which it was admitted.
            took: milliseconds from then until it ended.
            outcome: how it ended.
            attempts: which attempt of its call this was.
            estimate: what was expected.
        """
        late = self._late
        late.append((self, usage, nano, at, took, outcome, attempts, estimate))
        if len(late) >= self._tracker.batch:
            self._tracker.add_up(at_once=False)
        return nano / NANO_PER_DOLLAR

    def book_later(self, usage: Usage, nano: int | None, at: int, attempts: int, estimate: Estimate) -> None:
        """Note a call that was dropped without a lock: safe in a finalizer, which may run while the lock is held.

        Without a cost, that is found out when the books are added up.
        """
        self._late.append((self, usage, nano, at, 0, ABANDONED, attempts, estimate))
