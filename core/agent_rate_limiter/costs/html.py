"""A cost report as a notebook shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_rate_limiter.costs.report import CostReport

_MOST = 200
"""Rows that are shown; a notebook keeps what it shows."""
_STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"
_EDGE = "padding:.25em .75em;border:0"
_LINE = "border-top:1px solid currentColor"


def html_table(report: CostReport, names: Sequence[str], cells: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """Write it as a table; the costs are bars, too.

    Args:
        report: what to show.
        names: of the columns.
        cells: its rows as texts; the last is the total, if there is one.
        notes: what to say below.
    """
    costs = [float(str(row["cost"])) for row in report.rows]
    most = max(costs, default=0.0)
    total = cells[len(costs) :]
    labels, bar = len(report.by), names.index("cost")
    lines = [_line("th", [name.replace("_", " ") for name in names], labels, _EDGE)]
    for row, cost in zip(cells[:_MOST], costs, strict=False):
        share = cost / most if most else 0
        lines.append(_line("td", row, labels, f"{_EDGE};white-space:nowrap", {bar: _bar(share)}))
    lines += [_line("th", row, labels, f"{_EDGE};{_LINE}") for row in total]
    notes = [*notes, *([f"{len(costs) - _MOST:,} more rows are not shown."] if len(costs) > _MOST else [])]
    said = "".join(f'<p style="margin:.5em .75em;opacity:.75">{escape(note)}</p>' for note in notes)
    return f'<div><table style="{_STYLE}">{"".join(lines)}</table>{said}</div>'


def _line(tag: str, texts: Sequence[str], labels: int, style: str, more: Mapping[int, str] | None = None) -> str:
    """A row; labels stand at the left, numbers at the right."""
    parts = [
        f'<{tag} style="{style};text-align:{"left" if place < labels else "right"}{(more or {}).get(place, "")}">'
        f"{escape(text)}</{tag}>"
        for place, text in enumerate(texts)
    ]
    return f"<tr>{''.join(parts)}</tr>"


def _bar(share: float) -> str:
    end = f"{100 - 100 * share:.1f}%"
    return f";background:linear-gradient(90deg,transparent {end},rgba(70,130,180,.35) {end})" if share else ""
