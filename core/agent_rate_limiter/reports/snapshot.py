"""What a limiter says about itself: `snapshot()` and `explain()`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from agent_rate_limiter.admission import Bucket
from agent_rate_limiter.decision import Decision
from agent_rate_limiter.learning.sizes import EstimateStatus
from agent_rate_limiter.limits import from_units
from agent_rate_limiter.reports.forecast import gone_in
from agent_rate_limiter.reports.holders import Holder, holders_text
from agent_rate_limiter.reports.verdict import dollars_text, duration_text
from agent_rate_limiter.strategies.gate import Gate


@dataclass(frozen=True)
class LimitStatus:
    """One limit as it stands.

    Args:
        owner: what it belongs to: a target, a provider, a budget, a scope.
        name: the limit, as messages call it.
        scope: whom it is for; empty for everybody.
        resource: what it counts.
        amount: how much it holds: requests, tokens, slots or dollars.
        available: how much of that is free now; negative while more was used than estimated.
        used_share: 0 to 1, or above while in debt.
        waiting: calls that wait for it.
        idle_in: seconds until all of it is free, if nobody takes more; None: not by time alone.
        exhausted_in: seconds until it is used up at the recent pace, which is known from the second look on (of a
            budget's calendar window from the first); None: at that pace it lasts.
        per: seconds in which the amount comes back; None for slots, and for totals that never reset.
    """

    owner: str
    name: str
    scope: str
    resource: str
    amount: float
    available: float
    used_share: float
    waiting: int
    idle_in: float | None
    exhausted_in: float | None = None
    per: float | None = None

    def wait_for(self, amount: float) -> float | None:
        """Return the seconds until such an amount of it is free if nobody else takes any, even one that it never holds.

        None when it never does by time alone.
        """
        missing = amount - self.available
        if missing <= 0:
            return 0.0
        return None if self.per is None else missing * self.per / self.amount

    def __str__(self) -> str:
        """On one line."""
        bar = "█" * round(10 * min(1, max(0, self.used_share)))
        who = f" ({self.scope})" if self.scope else ""
        waiting = f", {self.waiting} waiting" if self.waiting else ""
        gone = "" if not self.exhausted_in else f", gone in {duration_text(self.exhausted_in)}"
        free = dollars_text(self.available) if self.resource == "cost" else f"{self.available:,.0f}"
        return (
            f"{self.owner:<24} {self.name + who:<32} {bar:<10} {self.used_share:>4.0%} used, {free} free{gone}{waiting}"
        )


@dataclass(frozen=True)
class Snapshot:
    """Everything at one moment.

    Args:
        at: epoch seconds.
        limits: every limit that has been drawn on.
        in_flight: calls admitted and not settled yet.
        waiting: calls in the queue.
        spend: dollars spent since the limiter was made.
        estimates: how good the guesses of what calls use are, by model and agent.
        store: where the limits live if processes share them, and whether it is lost; empty for one process's own.
    """

    at: float
    limits: tuple[LimitStatus, ...]
    in_flight: int
    waiting: int
    spend: float
    estimates: tuple[EstimateStatus, ...] = ()
    store: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        """As lines for a terminal."""
        head = f"{self.in_flight} in flight, {self.waiting} waiting, ${self.spend:,.4f} spent"
        if self.store:
            head = f"{head}, on {self.store}"
        return "\n".join([head, *(f"  {line}" for line in (*self.limits, *self.estimates))])


@dataclass(frozen=True)
class Explanation:
    """Why a call would, or would not, be admitted now.

    Args:
        target: where it would go.
        decision: the verdict for one such call.
        limits: every limit on its path.
        holders: where it is refused, who used the limit that binds in its period (an hour at least) or holds it.
    """

    target: str
    decision: Decision
    limits: tuple[LimitStatus, ...]
    holders: tuple[Holder, ...] = ()

    def __str__(self) -> str:
        """As a paragraph."""
        verdict = f"{self.target} admits such a call at once." if self.decision.admitted else self.decision.reason
        held = holders_text(self.holders)
        lines = [verdict, *([f"  taken by: {held}"] if held else []), *(f"  {limit}" for limit in self.limits)]
        return "\n".join(lines if self.limits else [*lines, "  no limits are configured for it"])


@dataclass(frozen=True)
class Advice:
    """What an agent needs to know to plan its next calls: plain data, and a sentence.

    Args:
        target: where a call would go.
        wait: seconds until such a call is admitted; 0 is at once; None: nobody can know, or never.
        binding: the limit that it would wait for; empty when it is admitted at once.
        budget: the budget of which the smallest share is left; empty when there is none.
        budget_left: dollars that are left of it; None when there is none.
        budget_used_share: 0 to 1, or above while in debt; None when there is none.
        waiting: calls that wait at this target's limits already.
        text: all of it in words, for a model to read.
    """

    target: str
    wait: float | None
    binding: str
    budget: str
    budget_left: float | None
    budget_used_share: float | None
    waiting: int
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        """In words."""
        return self.text


def advise(explanation: Explanation) -> Advice:
    """Turn an explanation into what an agent needs to plan."""
    decision = explanation.decision
    wait = 0.0 if decision.admitted else decision.retry_after
    budgets = [status for status in explanation.limits if status.resource == "cost"]
    tightest = max(budgets, key=lambda status: (status.used_share, -status.available), default=None)
    waiting = max((status.waiting for status in explanation.limits), default=0)
    return Advice(
        target=explanation.target,
        wait=wait,
        binding="" if decision.limit is None else decision.limit.name,
        budget="" if tightest is None else tightest.name,
        budget_left=None if tightest is None else max(0.0, tightest.available),
        budget_used_share=None if tightest is None else tightest.used_share,
        waiting=waiting,
        text=" ".join(_sentences(explanation, wait, tightest, waiting)),
    )


def _sentences(
    explanation: Explanation, wait: float | None, tightest: LimitStatus | None, waiting: int
) -> Iterator[str]:
    if wait == 0:
        yield f"{explanation.target} admits such a call at once."
    else:
        yield explanation.decision.reason
    if waiting:
        yield f"Waiting already: {waiting}."
    if tightest is not None:
        digits = 2 if tightest.amount >= 1 else 4
        left = f"${max(0.0, tightest.available):,.{digits}f} of ${tightest.amount:,.{digits}f}"
        yield f"{left} are left to spend ({tightest.name}, {tightest.used_share:.0%} used)."


def shown(bucket: Bucket, now: int) -> bool:
    """A gate is worth a line only while it holds calls back."""
    return not isinstance(bucket.strategy, Gate) or now < bucket.state.closed_until or bucket.queue is not None


def status_of(bucket: Bucket, now: int) -> LimitStatus:
    """Read one bucket."""
    limit, strategy, state = bucket.limit, bucket.strategy, bucket.state
    available = strategy.available(state, now)
    idle = strategy.idle_in(state, now)
    gone = gone_in(bucket, now)
    return LimitStatus(
        owner=bucket.key.partition("|")[0],
        name=limit.name,
        scope=bucket.scope,
        resource=limit.resource.value,
        amount=limit.amount,
        available=from_units(limit.resource, available),
        used_share=(strategy.capacity - available) / strategy.capacity,
        waiting=0 if bucket.queue is None else bucket.queue.waiting,
        idle_in=None if idle is None else idle / 1000,
        exhausted_in=None if gone is None else gone / 1000,
        per=limit.period_ms / 1000 if limit.period_ms else None,
    )
