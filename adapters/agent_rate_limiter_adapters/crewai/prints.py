"""`CostLines`: what each task cost, in a line, when it is done."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any

from crewai.events.event_bus import crewai_event_bus
from crewai.events.types.task_events import TaskCompletedEvent

from agent_rate_limiter_adapters.crewai.terms import labels

if TYPE_CHECKING:
    from typing_extensions import Self

    from agent_rate_limiter import MultiProviderLimiter, RateLimiter

_BY = ("crew", "task")
_COUNTS = ("requests", "input_tokens", "output_tokens", "cost")


class CostLines:
    """Says what each task cost, in a line, when CrewAI has completed it.

    ```python
    with CostLines(limiter):
        limiter.wrap(crew).kickoff()
    ```

    Args:
        limiter: whose books are read.
        out: is given each line; `print` unless said.
    """

    def __init__(self, limiter: RateLimiter | MultiProviderLimiter, out: Callable[[str], object] = print) -> None:
        self._costs = limiter.costs
        self._out = out
        self._said: dict[tuple[str, ...], list[float]] = {}
        self._lock = Lock()

    def completed(self, source: Any, event: Any) -> None:
        """CrewAI has completed a task; it says so on a thread of its own."""
        task = getattr(event, "task", None) or source
        who = labels({}, getattr(task, "agent", None), task)
        with self._lock:
            requests, sent, received, cost = self._since(who.get("crew", ""), who.get("task", ""))
        calls = "1 call" if requests == 1 else f"{requests:.0f} calls"
        self._out(f"{who.get('task', 'task')}: {calls}, {sent:,.0f} + {received:,.0f} tokens, ${cost:.4f}")

    def _since(self, crew: str, task: str) -> list[float]:
        """What a task used since its last line; CrewAI's own planner does not say of which crew it is."""
        rows: list[dict[str, Any]] = self._costs.report(by=_BY).to_dicts()
        rows = [row for row in rows if row["task"] == task and crew in {row["crew"], ""}]
        now = [float(sum(row[name] for row in rows)) for name in _COUNTS]
        before = self._said.get((crew, task), [0.0] * len(_COUNTS))
        self._said[crew, task] = now
        return [late - early for late, early in zip(now, before, strict=True)]

    def __enter__(self) -> Self:
        """Listen during the block."""
        crewai_event_bus.on(TaskCompletedEvent)(self.completed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say what is still to be said, and listen no more."""
        crewai_event_bus.flush()
        crewai_event_bus.off(TaskCompletedEvent, self.completed)
