"""A plan in words: lines for a terminal, a table for a notebook."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from agent_rate_limiter.reports.verdict import duration_text

if TYPE_CHECKING:
    from agent_rate_limiter.planning import Binding, Plan


def facts(plan: Plan) -> list[tuple[str, str]]:
    """What a plan says, as (word, value)."""
    refused = f", {plan.refused:,} are refused" if plan.refused else ""
    rows = [
        ("calls", f"{plan.served:,} of {plan.calls:,} are made{refused}"),
        ("takes", f"{duration_text(plan.seconds)}; {duration_text(plan.unlimited_seconds)} without limits"),
        ("costs", money(plan.cost)),
        ("tokens", f"{plan.input_tokens:,} in, {plan.output_tokens:,} out"),
        ("waits", _waits(plan)),
    ]
    if len(plan.targets) > 1:
        rows.insert(1, ("by", ", ".join(f"{target} ({calls:,})" for target, calls in plan.targets.items())))
    if plan.served and plan.seconds:
        rows.insert(-3, ("pace", f"{60 * plan.served / plan.seconds:,.4g} calls a minute"))
    return rows


def as_line(plan: Plan) -> str:
    """In short."""
    binds = f"; {table(plan)[0][0]} binds" if plan.limits else ""
    return f"{plan.served:,} of {plan.calls:,} calls in {duration_text(plan.seconds)} for {money(plan.cost)}{binds}"


def _waits(plan: Plan) -> str:
    if not plan.max_wait:
        return "nobody waits"
    mean, p95, most = map(duration_text, (plan.mean_wait, plan.p95_wait, plan.max_wait))
    tail = f", {p95} or more for one in twenty" if p95 not in {mean, most} else ""
    return f"{mean} on average{tail}, {most} at most"


def money(dollars: float) -> str:
    """Return dollars and cents, more digits below a dollar."""
    return f"${dollars:,.2f}" if dollars >= 1 or not dollars else f"${dollars:.4f}"


def brings(plan: Plan, binding: Binding) -> str:
    """What raising a limit would bring."""
    if binding.raised_seconds is None or binding.raised_cost is None or binding.raised_refused is None:
        return ""
    parts: list[str] = []
    if binding.raised_refused != plan.refused:
        parts.append(f"{plan.calls - binding.raised_refused:,} calls made for {money(binding.raised_cost)}")
    saved = 1 - binding.raised_seconds / plan.seconds if plan.seconds else 0.0
    change = f"{abs(saved):.0%} {'less' if saved > 0 else 'more'}"
    parts.append(f"{duration_text(binding.raised_seconds)}, {change}" if abs(saved) >= 0.005 else "saves no time")  # noqa: PLR2004 - half a percent
    return "; ".join(parts)


def table(plan: Plan) -> list[tuple[str, str, str, str]]:
    """What binds: the limit, its share of the time, its refusals, what raising it brings."""
    return [
        (
            binding.name if binding.owner == "budget" else f"{binding.owner}: {binding.name}",
            f"{binding.share:.0%}" if binding.share >= 0.005 else "",  # noqa: PLR2004 - half a percent
            f"{binding.refused:,}" if binding.refused else "",
            brings(plan, binding),
        )
        for binding in plan.limits
    ]


def heads(plan: Plan) -> tuple[str, str, str, str]:
    """The table's head."""
    return ("what binds", "of the time", "refuses", f"{plan.factor:g} times as much of it")


def as_text(plan: Plan) -> str:
    """As lines for a terminal."""
    lines = [*plan.workload.split("; "), *(f"  {word:<8}{value}" for word, value in facts(plan)), ""]
    rows = table(plan)
    if not rows:
        lines.append("No limit binds.")
    else:
        cells = [heads(plan), *rows]
        widths = [max(len(row[column]) for row in cells) for column in range(4)]
        lines += [
            f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in cells
        ]
    remarks = [*(f"Refused: {reason}" for reason in plan.refusals), *plan.notes]
    return "\n".join([*lines, *([""] if remarks else []), *remarks])


def as_html(plan: Plan) -> str:
    """As tables for a notebook."""
    left = "style='text-align:left'"
    top = "".join(f"<tr><th {left}>{word}</th><td {left}>{escape(value)}</td></tr>" for word, value in facts(plan))
    head = "".join(f"<th {left}>{escape(text)}</th>" for text in heads(plan))
    body = "".join("<tr>" + "".join(f"<td {left}>{escape(text)}</td>" for text in row) + "</tr>" for row in table(plan))
    binds = f"<table><tr>{head}</tr>{body}</table>" if plan.limits else "<p>No limit binds.</p>"
    remarks = [*(f"Refused: {reason}" for reason in plan.refusals), *plan.notes]
    notes = "".join(f"<p><small>{escape(text)}</small></p>" for text in remarks)
    return f"<p><b>{escape(plan.workload)}</b></p><table>{top}</table>{binds}{notes}"
