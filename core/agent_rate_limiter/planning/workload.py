"""What is to be done: lanes of calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

FIRST_TOKEN = 0.5
"""Seconds until a model begins to answer, where the workload does not say how long calls take."""
TOKENS_PER_SECOND = 50
"""How fast it goes on, then. Both are usual for large hosted models in 2026; a trace knows better."""


class Call(NamedTuple):
    """One call to be made.

    Args:
        input_tokens: sent.
        output_tokens: produced.
        max_output_tokens: the request's `max_tokens`; 0 is not given.
        seconds: how long it takes, once it is sent.
        target: where it goes; empty for the configuration's first.
        cached_input_tokens: of the input, read from a cache.
        priority: lower goes first; None is the usual.
        timeout: seconds that it may wait; None waits for ever.
        where: its place in the workload, for errors.
    """

    input_tokens: int
    output_tokens: int
    max_output_tokens: int
    seconds: float
    target: str = ""
    cached_input_tokens: int = 0
    priority: int | None = None
    timeout: float | None = None
    where: str = "workload"


@dataclass
class Lane:
    """Calls that follow one another: the next is made when the one before has ended.

    Args:
        start: seconds after the beginning at which the first is made.
        labels: who makes them.
        calls: in order.
    """

    start: float
    labels: Mapping[str, str]
    calls: list[Call] = field(default_factory=list[Call])


class Workload(NamedTuple):
    """All that is to be done.

    Args:
        lanes: side by side.
        words: what it is, in words.
        begins: epoch seconds of a trace that tells them; else None.
        notes: what was assumed.
    """

    lanes: Sequence[Lane]
    words: str
    begins: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def calls(self) -> int:
        """How many."""
        return sum(len(lane.calls) for lane in self.lanes)

    @property
    def unlimited(self) -> float:
        """Seconds that it would take if nothing ever waited."""
        return max((lane.start + sum(call.seconds for call in lane.calls) for lane in self.lanes), default=0.0)


def usual_seconds(output_tokens: int) -> float:
    """Seconds that a call takes, where nobody says."""
    return FIRST_TOKEN + output_tokens / TOKENS_PER_SECOND
