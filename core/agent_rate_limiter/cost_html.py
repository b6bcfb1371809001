"""A cost report as a notebook shows it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_rate_limiter.cost_report import CostReport

_MOST = 200
"""Rows that are shown; a notebook keeps what it shows."""
_STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"
_EDGE = "padding:.25em .75em;border:0"
_LINE = "border-top:1px solid currentColor"


def html_table(report: CostReport, head: Sequence[str], cells: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """Write it as a table; the costs are bars, too."""
    costs = [float(str(row["cost"])) for row in report.rows]
    most = max(costs, default=0.0)
    lines = [_line("th", head, report, _EDGE)]
    for row, cost in zip(cells[:_MOST], costs, strict=False):
        lines.append(_line("td", row, report, _EDGE, share=cost / most if most else 0))
    notes = [*notes, *([f"{len(cells) - _MOST:,} more rows are not shown."] if len(cells) > _MOST else [])]
    if len(cells) > 1:
        lines.append(_line("th", _footer(report, head), report, f"{_EDGE};{_LINE}"))
    said = "".join(f'<p style="margin:.5em .75em;opacity:.75">{escape(note)}</p>' for note in notes)
    return f'<div><table style="{_STYLE}">{"".join(lines)}</table>{said}</div>'


def _footer(report: CostReport, head: Sequence[str]) -> list[str]:
    return [
        "total" if place == 0 else f"${report.total:,.4f}" if name == "cost" else "" for place, name in enumerate(head)
    ]


def _line(tag: str, texts: Sequence[str], report: CostReport, style: str, share: float = 0) -> str:
    parts: list[str] = []
    for place, text in enumerate(texts):
        left = place < len(report.by)
        look = f"{style};text-align:{'left' if left else 'right'}"
        if share and not left and report.columns[place - len(report.by)] == "cost":
            end = f"{100 - 100 * share:.1f}%"
            look += f";background:linear-gradient(90deg,transparent {end},rgba(70,130,180,.35) {end})"
        parts.append(f'<{tag} style="{look}">{escape(text)}</{tag}>')
    return f"<tr>{''.join(parts)}</tr>"
