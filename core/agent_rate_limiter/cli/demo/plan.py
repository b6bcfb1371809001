"""What the demo's agents do, and under which limits: the same in both runs."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

MODEL = "gpt-4.1-mini"
INPUT_PRICE, OUTPUT_PRICE = 0.40, 1.60
"""Dollars per million tokens."""
OUTPUT_TOKENS = (100, 400)
"""How long answers are; each call allows its own maximum."""
HEADROOM = 0.01
"""The limiter is told this much less than the provider allows, as requests arrive a little unevenly."""

_SIZES = (0.5, 0.75, 1.0, 1.25, 1.5)
_PROMPT_TOKENS = 20
_FILL = 0.85
"""How much of the tokens are used when all requests are."""
_LIMITED_SHARE = 0.65
"""Of the demo's time goes to the run with the limiter; agents without one are done sooner, one way or another."""


@dataclass(frozen=True)
class Plan:
    """The demo's size.

    Args:
        agents: how many work at once.
        calls: calls that each of them makes.
        rpm: requests a minute that the provider allows.
        tpm: tokens a minute that the provider allows.
        latency: seconds before an answer: low, high.
        seed: changes the order of the work, and the answers.
    """

    agents: int
    calls: int
    rpm: int
    tpm: int
    latency: tuple[float, float]
    seed: int

    @classmethod
    def lasting(
        cls, seconds: float, *, agents: int, rpm: int, tpm: int, latency: tuple[float, float], seed: int
    ) -> Plan:
        """Give the agents so much work that both runs together take about that long."""
        minutes = seconds * _LIMITED_SHARE / 60
        per_minute = min(rpm, tpm / (_mean_size(rpm, tpm) + _PROMPT_TOKENS))
        calls = round(per_minute * (1 - HEADROOM) * (1 + minutes) / agents)
        return cls(agents, max(2, calls), rpm, tpm, latency, seed)

    @property
    def total(self) -> int:
        """Calls of all agents."""
        return self.agents * self.calls

    def work(self, agent: int) -> list[int]:
        """The `max_tokens` of each of an agent's calls: about the same sum for all, in an order of its own."""
        mean = _mean_size(self.rpm, self.tpm)
        sizes = [round(mean * _SIZES[(agent + step) % len(_SIZES)]) for step in range(self.calls)]
        Random(f"{self.seed} {agent}").shuffle(sizes)  # noqa: S311 - a workload
        return sizes


def _mean_size(rpm: int, tpm: int) -> int:
    return max(400, round(_FILL * tpm / rpm))
