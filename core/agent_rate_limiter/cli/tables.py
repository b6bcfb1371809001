"""How the command line's tables look."""

from __future__ import annotations

from rich import box
from rich.table import Table

from agent_rate_limiter.pricing import Price


def new_table(*columns: str) -> Table:
    """A plain table that also reads well in a file."""
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in table.columns[:1]:
        column.overflow = "fold"  # a name is never cut
    return table


def price_text(price: Price | None) -> str:
    """A price as `0.4 / 1.6`; nothing when there is none."""
    return "" if price is None else f"{price.input_per_1m:g} / {price.output_per_1m:g}"
