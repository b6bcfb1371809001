"""What came of the demo's two runs, and whether it is what it should be."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MOST_REFUSED = 0.01
LEAST_USED = 0.90


@dataclass(frozen=True)
class Outcome:
    """What came of one run.

    Args:
        seconds: that it took.
        calls: that the agents meant to make.
        done: that succeeded.
        failed: that raised an error.
        errors: the errors' names → how often.
        agents: that worked.
        crashed: of them, that were ended by an error.
        requests: that the provider received, the SDK's retries included.
        refused: of them, with a 429.
        tokens: that the calls used.
        dollars: that they cost.
        share: of what the provider allowed in that time, by the limit that was used most.
    """

    seconds: float
    calls: int
    done: int
    failed: int
    errors: dict[str, int]
    agents: int
    crashed: int
    requests: int
    refused: int
    tokens: int
    dollars: float
    share: float

    @property
    def refused_share(self) -> float:
        """The part of the requests that met a 429."""
        return self.refused / self.requests if self.requests else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain data, rounded."""
        rounded = {"seconds": round(self.seconds, 1), "dollars": round(self.dollars, 6), "share": round(self.share, 3)}
        return {**asdict(self), **rounded}


def problems(without: Outcome, limited: Outcome) -> list[str]:
    """Say what the demo failed to show; nothing if all is well."""
    wrong: list[str] = []
    if limited.done < limited.calls:
        wrong.append(f"with the limiter only {limited.done:,} of {limited.calls:,} calls succeeded")
    if limited.refused_share > MOST_REFUSED:
        wrong.append(
            f"with the limiter {limited.refused_share:.1%} of requests met a 429, more than {MOST_REFUSED:.0%}"
        )
    if limited.share < LEAST_USED:
        wrong.append(f"with the limiter {limited.share:.1%} of the limit was used, less than {LEAST_USED:.0%}")
    if not without.failed:
        wrong.append("without the limiter nothing failed: take more agents, or a lower limit")
    return wrong


def lesson(without: Outcome, limited: Outcome) -> str:
    """Say what the two runs show, when all is well."""
    lost = without.calls - without.done
    return (
        f"Without the limiter {without.crashed} of {without.agents} agents crashed, and {lost:,} calls were lost. "
        f"With it every call succeeded, at {limited.share:.0%} of what the limit allows."
    )


def rows(without: Outcome, limited: Outcome) -> list[tuple[str, str, str]]:
    """The table of results: what, without the limiter, with it."""
    return list(zip(_NAMES, _cells(without), _cells(limited), strict=True))


_NAMES = (
    "time",
    "calls done",
    "calls failed",
    "calls never made",
    "agents crashed",
    "429s",
    "tokens",
    "cost",
    "limit used",
)


def _cells(run: Outcome) -> tuple[str, ...]:
    return (
        f"{run.seconds:.1f} s",
        f"{run.done:,} of {run.calls:,}",
        f"{run.failed:,} ({', '.join(run.errors)})" if run.failed else "0",
        f"{run.calls - run.done - run.failed:,}",
        f"{run.crashed} of {run.agents}",
        f"{run.refused:,} of {run.requests:,} requests",
        f"{run.tokens:,}",
        f"${run.dollars:.4f}",
        f"{run.share:.1%}",
    )
