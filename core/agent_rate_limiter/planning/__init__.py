"""What if? A workload in virtual time on the real engine: how long, how much, what binds, and what more would bring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.plain import is_number
from agent_rate_limiter.planning.simulation import Name, Outcome, simulate
from agent_rate_limiter.planning.traces import read_workload
from agent_rate_limiter.planning.workload import Workload
from agent_rate_limiter.strategies import NARROW_GATE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Binding", "Plan", "plan"]

_TRIED = 3
"""Limits for which a plan says what raising them would bring: those that hold calls up longest."""
_WORTH = 0.005
"""The share of time below which a limit that refuses nobody is not worth a line."""


@dataclass(frozen=True)
class Binding:
    """A limit that holds the workload up.

    Args:
        owner: what it belongs to: a target, a provider, "budget".
        name: the limit.
        share: the share of the time, 0 to 1, in which calls waited for it.
        refused: calls that it refused for good.
        raised_seconds: how long the workload would take with `factor` times this limit; None: not tried.
        raised_cost: what it would cost then, in dollars.
        raised_refused: calls that would be refused then, by any limit.
    """

    owner: str
    name: str
    share: float
    refused: int = 0
    raised_seconds: float | None = None
    raised_cost: float | None = None
    raised_refused: int | None = None


@dataclass(frozen=True, repr=False)
class Plan:
    """How a workload goes. Print it, show it in a notebook, or draw it with `plot()`.

    Args:
        workload: what is to be done, in words.
        calls: how many calls it has.
        served: how many of them are made; the others are refused.
        seconds: how long it takes.
        unlimited_seconds: how long it would take if nothing ever waited.
        cost: dollars.
        input_tokens: of the calls that are made.
        output_tokens: the same.
        mean_wait: seconds that a call waits.
        p95_wait: seconds that one in twenty waits at least.
        max_wait: seconds.
        limits: what binds, the longest first.
        factor: by what limits were raised to see what that brings.
        refusals: a refusal of each kind, in words.
        notes: what was assumed, and what has no price.
        targets: calls that each target serves, the most first.
    """

    workload: str
    calls: int
    served: int
    seconds: float
    unlimited_seconds: float
    cost: float
    input_tokens: int
    output_tokens: int
    mean_wait: float
    p95_wait: float
    max_wait: float
    limits: tuple[Binding, ...]
    factor: float
    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    targets: Mapping[str, int] = field(default_factory=dict[str, int])
    _outcome: Outcome = field(repr=False, compare=False, default_factory=Outcome)

    @property
    def refused(self) -> int:
        """Calls that are never made."""
        return self.calls - self.served

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        found = asdict(self)
        del found["_outcome"]
        return {**found, "refused": self.refused}

    def plot(self) -> Figure:
        """Draw the calls over time, and when which limit binds.

        Raises:
            ImportError: matplotlib is not installed (the extra `notebook`).
        """
        from agent_rate_limiter.planning.drawing import draw

        return draw(self, self._outcome)

    def __str__(self) -> str:
        """As lines for a terminal."""
        from agent_rate_limiter.planning.words import as_text

        return as_text(self)

    def __repr__(self) -> str:
        """On one line."""
        from agent_rate_limiter.planning.words import as_line

        return f"<Plan: {as_line(self)}>"

    def _repr_html_(self) -> str:
        from agent_rate_limiter.planning.words import as_html

        return as_html(self)


def plan(
    config: str | Path | Mapping[str, Any], workload: str | Path | Iterable[Mapping[str, Any]], *, factor: float = 2.0
) -> Plan:
    """Say how a workload would go under a configuration, in virtual time on the real engine.

    Nothing is sent, and nobody is alerted. The same limits, queue, budgets and fallbacks decide as in the
    real program; the provider itself never refuses.

    Args:
        config: a configuration file, or a mapping with the same keys.
        workload: in words, such as "200 agents x 10 calls, 2k in, 500 out"; or the path of a trace (.jsonl, a call
            a line; .json, a list, such as `limiter.costs.rows().to_json(path)` writes); or a list of such calls.
        factor: by what the limits that bind are raised, to see what that would bring.

    Raises:
        ConfigError: either makes no sense; the message names the place and the fix.
    """
    from agent_rate_limiter.config import load_config

    if not is_number(factor) or not 1 < factor <= 1_000:  # noqa: PLR2004 - more limits than anybody buys
        raise ConfigError(f"factor is {factor!r}: give a number above 1, such as 2.")
    quiet = {"store": "memory://", "lease_tokens": None, "ledger": "memory://", "on_alert": None}
    quiet["on_unknown_price"] = "zero"
    options = {**load_config(config).to_options(), **quiet}
    work = read_workload(workload)
    found = simulate(options, work)
    tried = [name for name, _ in _by_weight(found) if name.limit != NARROW_GATE.name][:_TRIED]
    raised = {name: simulate(options, work, name, factor) for name in tried}
    return _plan(work, found, raised, factor)


def _by_weight(found: Outcome) -> list[tuple[Name, float]]:
    """What refuses calls comes first, then what holds them up longest."""
    held = {name: sum(until - since for since, until in spans) for name, spans in found.bound.items()}
    names = {*found.refused, *held}
    weights = [(name, held.get(name, 0.0)) for name in names]
    return sorted(weights, key=lambda item: (-found.refused[item[0]], -item[1], item[0]))


def _plan(work: Workload, found: Outcome, raised: Mapping[Name, Outcome], factor: float) -> Plan:
    waits = sorted(found.waits) or [0.0]
    unpriced = tuple(f"{target} has no price: its calls cost nothing here." for target in found.unpriced)
    slow = tuple(
        f"{name.owner} has no limits here: it starts slowly, until its own are known."
        for name in sorted(found.bound)
        if name.limit == NARROW_GATE.name
    )
    bindings = (
        _binding(name, held / found.seconds if found.seconds else 0.0, found, raised.get(name), work)
        for name, held in _by_weight(found)
    )
    return Plan(
        workload=work.words,
        calls=work.calls,
        served=len(found.done),
        seconds=found.seconds,
        unlimited_seconds=work.unlimited,
        cost=found.cost,
        input_tokens=found.tokens[0],
        output_tokens=found.tokens[1],
        mean_wait=sum(waits) / len(waits),
        p95_wait=waits[min(len(waits) - 1, len(waits) * 95 // 100)],
        max_wait=waits[-1],
        limits=tuple(binding for binding in bindings if binding.share >= _WORTH or binding.refused),
        factor=factor,
        refusals=tuple(found.reasons.values()),
        notes=(*work.notes, *unpriced, *slow),
        targets=dict(found.targets.most_common()),
        _outcome=found,
    )


def _binding(name: Name, share: float, found: Outcome, raised: Outcome | None, work: Workload) -> Binding:
    binding = Binding(name.owner, name.limit, min(1.0, share), found.refused[name])
    if raised is None:
        return binding
    refused = work.calls - len(raised.done)
    return replace(binding, raised_seconds=raised.seconds, raised_cost=raised.cost, raised_refused=refused)
