"""How the command line's tables look."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.table import Table

from agent_rate_limiter.limits import Limit, Resource
from agent_rate_limiter.pricing import Price

_OUTPUT = {Resource.TOKENS, Resource.OUTPUT_TOKENS}
_USUAL = {"token_bucket", "concurrency"}


def new_table(*columns: str) -> Table:
    """A plain table that also reads well in a file."""
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in table.columns[:1]:
        column.overflow = "fold"  # a name is never cut
    return table


def price_text(price: Price | None) -> str:
    """A price as `0.4 / 1.6`; nothing when there is none."""
    return "" if price is None else f"{price.input_per_1m:g} / {price.output_per_1m:g}"


def limits_text(limits: Iterable[Limit]) -> str:
    """A line for each limit."""
    return "\n".join(map(_limit_text, limits)) or "none"


def _limit_text(limit: Limit) -> str:
    unusual = [] if limit.strategy in _USUAL else [limit.strategy.replace("_", " ")]
    if limit.timezone != "UTC":
        unusual.append(limit.timezone)
    if limit.counts == "max_tokens" and limit.resource in _OUTPUT:
        unusual.append("counts max_tokens")
    return f"{limit} ({', '.join(unusual)})" if unusual else str(limit)
