"""A cost report as a picture."""

# matplotlib leaves some of its keyword arguments untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent_rate_limiter.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from agent_rate_limiter.costs.report import CostReport

_REST = "all others"


def plot(report: CostReport, ax: Axes | None, top: int) -> Axes:
    """Draw it: a bar for each group, or for each period, divided by groups."""
    if ax is None:
        ax = _new_axes()
    if not report.rows:
        ax.set(title="Cost: no calls yet", xticks=[], yticks=[])
    elif report.by[:1] == ("period",):
        _over_time(report, ax, top)
    elif "time" in report.by:
        raise ConfigError("Single calls have no plot: draw a report, such as costs.report(every='hour').")
    else:
        _side_by_side(report, ax, top)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def _new_axes() -> Axes:
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError("plot() needs matplotlib: pip install 'agent-rate-limiter[notebook]'.") from None
    _, ax = plt.subplots(figsize=(8, 4), layout="constrained")
    return ax


def _side_by_side(report: CostReport, ax: Axes, top: int) -> None:
    costs = _kept({_name(row, report.by): _cost(row) for row in report.rows}, top)
    names = list(costs)[::-1]
    bars = ax.barh(names, [costs[name] for name in names], color="steelblue")
    ax.bar_label(bars, labels=[_dollars(costs[name]) for name in names], padding=3)
    ax.margins(x=0.15)
    ax.set(title=f"Cost by {', '.join(report.by)}" if report.by else "Cost", xlabel="dollars")


def _over_time(report: CostReport, ax: Axes, top: int) -> None:
    labels = report.by[1:]
    sums: dict[str, float] = {}
    for row in report.rows:
        name = _name(row, labels)
        sums[name] = sums.get(name, 0.0) + _cost(row)
    shown = _kept(dict(sorted(sums.items(), key=lambda item: -item[1])), top)
    periods = sorted({str(row["period"]) for row in report.rows})
    heights = {name: dict.fromkeys(periods, 0.0) for name in shown}
    for row in report.rows:
        name = _name(row, labels)
        heights[name if name in shown else _REST][str(row["period"])] += _cost(row)
    floor = dict.fromkeys(periods, 0.0)
    for name, costs in heights.items():
        ax.bar(periods, list(costs.values()), bottom=list(floor.values()), label=name, width=0.8)
        floor = {period: floor[period] + costs[period] for period in periods}
    _finish_time(ax, periods, labels)


def _finish_time(ax: Axes, periods: list[str], labels: tuple[str, ...]) -> None:
    step = max(1, len(periods) // 8)
    ax.set_xticks(range(0, len(periods), step), periods[::step], rotation=30, ha="right")
    ax.set(title=f"Cost by {', '.join(labels)}" if labels else "Cost", ylabel="dollars")
    if labels:
        ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def _kept(costs: dict[str, float], top: int) -> dict[str, float]:
    """The dearest, and the rest as one."""
    if len(costs) <= top:
        return costs
    names = list(costs)
    return {**{name: costs[name] for name in names[:top]}, _REST: sum(costs[name] for name in names[top:])}


def _name(row: dict[str, Any], labels: tuple[str, ...]) -> str:
    return ", ".join(str(row[label]) or "(none)" for label in labels) or "all calls"


def _dollars(cost: float) -> str:
    return f"${cost:,.2f}" if cost >= 1 or not cost else f"${cost:.4f}"


def _cost(row: dict[str, Any]) -> float:
    return float(row["cost"])
