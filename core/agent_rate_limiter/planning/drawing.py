"""A plan as a picture: calls over time, and when which limit binds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

from agent_rate_limiter.planning.simulation import Name
from agent_rate_limiter.planning.words import money
from agent_rate_limiter.reports.verdict import duration_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from agent_rate_limiter.planning import Plan
    from agent_rate_limiter.planning.simulation import Outcome

_POINTS = 500
_TITLE = 60
"""Letters of a workload that fit above the picture."""
_DONE, _WAITING, _BINDS = "#2a7f62", "#c9772b", "#4a6fa5"
_UNITS = ((86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "seconds"))


def draw(plan: Plan, outcome: Outcome) -> Figure:
    """Draw it on a figure of its own; a notebook shows that by itself.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        make = _picture()
    except ImportError as error:
        message = "plot() needs matplotlib: pip install 'agent-rate-limiter[notebook]'. Or print the plan."
        raise ImportError(message) from error
    size, unit = next((size, word) for size, word in _UNITS if plan.seconds >= 2 * size or size == 1)
    rows = max(1, len(plan.limits))
    figure = make(figsize=(9, 3.4 + 0.45 * rows), layout="constrained")
    axes: Any = figure.subplots(2, 1, sharex=True, height_ratios=[3, 0.4 + 0.4 * rows])
    _draw_calls(axes[0], plan, outcome, size)
    _draw_limits(axes[1], plan, outcome, size)
    axes[1].set_xlabel(unit)
    axes[1].set_xlim(0, plan.seconds / size or 1)
    return figure


@cache
def _picture() -> type[Figure]:
    """A figure that a notebook shows even where pyplot, which would see to that, was never imported."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            image = BytesIO()
            self.savefig(image, format="png", dpi=100)  # pyright: ignore[reportUnknownMemberType] - untyped keywords
            return image.getvalue()

    return Picture


def _draw_calls(axes: Any, plan: Plan, outcome: Outcome, size: int) -> None:
    done = _thinned([(0.0, 0, 0.0), *outcome.done])
    waiting = _thinned([*outcome.waiting, (plan.seconds, 0)])
    axes.step([at / size for at, *_ in done], [ended for _, ended, _ in done], where="post", color=_DONE, label="done")
    axes.fill_between(
        [at / size for at, _ in waiting],
        [number for _, number in waiting],
        step="post",
        color=_WAITING,
        alpha=0.35,
        linewidth=0,
        label="waiting",
    )
    axes.set_ylabel("calls")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="center right")
    what = plan.workload if len(plan.workload) <= _TITLE else f"{plan.calls:,} calls"
    axes.set_title(f"{what}: {duration_text(plan.seconds)}, {money(plan.cost)}", loc="left", fontsize=11)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _draw_limits(axes: Any, plan: Plan, outcome: Outcome, size: int) -> None:
    names: list[str] = []
    for row, binding in enumerate(plan.limits):
        spans = outcome.bound.get(Name(binding.owner, binding.name), [])
        bars = [(since / size, (until - since) / size) for since, until in _merged(spans, plan.seconds / 1_000)]
        axes.broken_barh(bars, (row - 0.35, 0.7), color=_BINDS)
        name = binding.name if binding.owner == "budget" else f"{binding.owner}: {binding.name}"
        share = [f"{binding.share:.0%} of the time"] if binding.share >= 0.005 else []  # noqa: PLR2004 - half a percent
        refused = [f"{binding.refused:,} refused"] if binding.refused else []
        names.append("\n".join([name, ", ".join(share + refused)]))
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(max(0.5, len(names) - 0.5), -0.5)
    axes.set_title("what binds" if names else "no limit binds", loc="left", fontsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _thinned(points: Sequence[Any]) -> list[Any]:
    """Keep so many that a screen shows no difference; always the last."""
    step = max(1, len(points) // _POINTS)
    return [*points[:-1:step], points[-1]]


def _merged(spans: Sequence[tuple[float, float]], gap: float) -> list[tuple[float, float]]:
    """Join spans whose gap nobody could see."""
    merged: list[tuple[float, float]] = []
    for since, until in spans:
        if merged and since - merged[-1][1] <= gap:
            merged[-1] = (merged[-1][0], until)
        else:
            merged.append((since, until))
    return merged
