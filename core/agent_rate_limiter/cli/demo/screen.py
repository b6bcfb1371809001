"""How the demo is shown while it runs: live on a terminal, as lines of text elsewhere, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agent_rate_limiter.cli.demo.plan import Plan
from agent_rate_limiter.cli.demo.run import Frame, State

if TYPE_CHECKING:
    from typing_extensions import Self

_GLYPHS: dict[State, tuple[str, str, str]] = {
    "working": ("●", "o", "cyan"),
    "finished": ("✔", "+", "green"),
    "crashed": ("✖", "x", "bold red"),
}
_MOST_GLYPHS = 40
_BAR = 36


class Screen:
    """Shows the frames of one run: this one does not, and others are derived from it.

    Attributes:
        period: seconds from one frame to the next.
    """

    period = 1.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, frame: Frame) -> None:
        """Show how it stands."""


class Lines(Screen):
    """A line of text now and then, for files and pipes."""

    period = 2.0

    def __init__(self, console: Console, plan: Plan) -> None:
        self._console, self._plan = console, plan

    def show(self, frame: Frame) -> None:
        """Print a line."""
        crashed = frame.agents.count("crashed")
        facts = [f"{frame.done:,} of {self._plan.total:,} calls done", f"{frame.refused:,} refused with a 429"]
        facts += [f"{crashed} crashed"] if frame.waiting is None else [f"{frame.waiting} waiting"]
        self._console.print(f"  {frame.seconds:4.0f} s  {', '.join(facts)}", soft_wrap=True, highlight=False)


class OnTerminal(Screen):
    """A picture that moves."""

    period = 0.25

    def __init__(self, console: Console, plan: Plan) -> None:
        self._plan = plan
        self._ascii = console.options.ascii_only
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, frame: Frame) -> None:
        """Draw it anew."""
        self._live.update(self.picture(frame), refresh=True)

    def picture(self, frame: Frame) -> Group:
        """Calls, agents, buckets and the queue, a line each."""
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=10)
        grid.add_column()
        grid.add_column(style="dim")
        total = self._plan.total
        grid.add_row("  calls", _bar(frame.done, total, "cyan"), f"{frame.done:,} of {total:,}, {frame.seconds:.0f} s")
        for name, (used, allowed) in frame.used.items():
            style = "green" if used < 0.95 * allowed else "yellow"
            grid.add_row(f"  {name}", _bar(used, allowed, style), f"{used:,} of {allowed:,} allowed so far")
        grid.add_row("  agents", self._agents(frame), f"{frame.agents.count('crashed')} crashed")
        grid.add_row("  429s", Text(f"{frame.refused:,}", style="bold red" if frame.refused else "green"))
        if frame.waiting is not None:
            grid.add_row("  queue", f"{frame.waiting} waiting, {frame.in_flight} in flight")
        return Group(grid, "")

    def _agents(self, frame: Frame) -> Text:
        counts = {state: frame.agents.count(state) for state in _GLYPHS}
        if len(frame.agents) > _MOST_GLYPHS:
            return Text(", ".join(f"{count} {state}" for state, count in counts.items()))
        text = Text()
        for state in frame.agents:
            glyph, plain, style = _GLYPHS[state]
            text.append(plain if self._ascii else glyph, style)
        return text


def _bar(used: float, limit: float, style: str) -> ProgressBar:
    return ProgressBar(total=limit, completed=max(0, used), width=_BAR, complete_style=style, finished_style=style)
