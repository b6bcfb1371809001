"""Who has what of a limit: agents by share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from agent_rate_limiter.limits import NANO_PER_DOLLAR, Resource
from agent_rate_limiter.redaction import one_line

if TYPE_CHECKING:
    from agent_rate_limiter.admission import Bucket
    from agent_rate_limiter.cost_tracker import CostTracker
    from agent_rate_limiter.engine.port import Hold
    from agent_rate_limiter.limits import Target

_MOST_HOLDS = 1_000
_NAMED = 3
_SHOWN = 40
"""Characters of a name."""
_RECENT = 3_600.0
_COLUMNS: Mapping[Resource, tuple[str, ...]] = {
    Resource.REQUESTS: ("requests",),
    Resource.INPUT_TOKENS: ("input_tokens",),
    Resource.OUTPUT_TOKENS: ("output_tokens",),
    Resource.TOKENS: ("input_tokens", "output_tokens"),
    Resource.COST: ("cost",),
}


class Holder(NamedTuple):
    """An agent's part of what is taken of a limit.

    Args:
        agent: its label; empty for calls without one.
        share: 0 to 1.
    """

    agent: str
    share: float


def in_flight(bucket: Bucket, holds: Iterable[Hold]) -> dict[str, float]:
    """Add up what the newest calls in flight hold of a limit, by agent."""
    units: dict[str, float] = {}
    for hold in islice(holds, _MOST_HOLDS):
        for place, amount in zip(hold.path, hold.amounts, strict=False):
            if place is bucket and amount:
                units[hold.flow] = units.get(hold.flow, 0) + amount
    return units


def recently_used(bucket: Bucket, costs: CostTracker, target: Target, now: float) -> dict[str, float]:
    """Add up what agents used of it in its period, or in the last hour if that is longer.

    Args:
        bucket: the limit.
        costs: the books.
        target: where calls go; of a limit that all targets share, everything counts.
        now: epoch seconds.
    """
    columns = _COLUMNS.get(bucket.limit.resource, ())
    span = max(_RECENT, (bucket.limit.period_ms or 0) / 1000)
    own = bucket.key.startswith(f"{target}|")
    scale = NANO_PER_DOLLAR if bucket.limit.resource is Resource.COST else 1
    units: dict[str, float] = {}
    for row in costs.report(by=("provider", "model", "agent"), since=now - span) if columns else ():
        if not own or (row["provider"], row["model"]) == target:
            agent, used = str(row["agent"]), sum(float(str(row[column])) for column in columns)
            units[agent] = units.get(agent, 0) + used * scale
    return units


def holders_of(*parts: Mapping[str, float]) -> tuple[Holder, ...]:
    """Turn units by agent into shares, the largest first."""
    units: dict[str, float] = {}
    for part in parts:
        for agent, amount in part.items():
            units[agent] = units.get(agent, 0) + amount
    total = sum(units.values())
    shares = [Holder(agent, amount / total) for agent, amount in units.items() if amount]
    return tuple(sorted(shares, key=lambda holder: (-holder.share, holder.agent)))


def holders_text(holders: tuple[Holder, ...]) -> str:
    """Return "researcher 70%, writer 20%, 2 others 10%"; empty when no agent is named."""
    if not any(holder.agent for holder in holders):
        return ""
    shown = [f"{one_line(holder.agent, _SHOWN) or 'others'} {holder.share:.0%}" for holder in holders[:_NAMED]]
    rest = holders[_NAMED:]
    if rest:
        shown.append(f"{len(rest)} more {sum(holder.share for holder in rest):.0%}")
    return ", ".join(shown)
