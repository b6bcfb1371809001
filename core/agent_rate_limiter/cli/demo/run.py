"""One run of the demo: agents that use the real OpenAI SDK against a simulated provider."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from openai import AsyncOpenAI, OpenAIError

from agent_rate_limiter.cli.demo.outcome import Outcome
from agent_rate_limiter.cli.demo.plan import HEADROOM, INPUT_PRICE, MODEL, OUTPUT_PRICE, OUTPUT_TOKENS, Plan
from agent_rate_limiter.errors import RateLimiterError
from agent_rate_limiter.multi_provider import MultiProviderLimiter
from agent_rate_limiter.provider import Provider
from agent_rate_limiter.testing.simulated import SimulatedProvider

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

State = Literal["working", "finished", "crashed"]
_LIMITS = {"rpm": "requests", "tpm": "tokens"}
_START = 0.5
"""Seconds within which the agents start, one after the other."""


@dataclass(frozen=True)
class Frame:
    """A run at one moment.

    Args:
        seconds: since it began.
        done: calls that succeeded.
        agents: how each of them is.
        refused: requests that the provider answered with a 429.
        used: the provider's limits, in words → what it was used, and what it has allowed so far.
        waiting: calls in the limiter's queue; None without a limiter.
        in_flight: calls that it has admitted and that are not over.
    """

    seconds: float
    done: int
    agents: tuple[State, ...]
    refused: int
    used: dict[str, tuple[int, int]]
    waiting: int | None = None
    in_flight: int | None = None


def simulated(plan: Plan) -> SimulatedProvider:
    """The provider that both runs call."""
    return SimulatedProvider(
        {MODEL: {"rpm": plan.rpm, "tpm": plan.tpm, "prices": (INPUT_PRICE, OUTPUT_PRICE)}},
        latency=plan.latency,
        output_tokens=OUTPUT_TOKENS,
        seed=plan.seed,
    )


def limiter_for(plan: Plan) -> MultiProviderLimiter:
    """The same limits, as a user writes them: OpenAI counts `max_tokens`, whatever comes back."""
    rpm, tpm = int(plan.rpm * (1 - HEADROOM)) or 1, int(plan.tpm * (1 - HEADROOM))
    model = {"rpm": rpm, "tpm": tpm, "counts": "max_tokens", "input_per_1m": INPUT_PRICE, "output_per_1m": OUTPUT_PRICE}
    return MultiProviderLimiter([Provider("openai", {MODEL: model})])


class Run:
    """All agents at work once.

    Args:
        plan: the work.
        provider: whom they call; it has started.
        limiter: what keeps them within the limits; None leaves that to the SDK's own retries.
    """

    def __init__(self, plan: Plan, provider: SimulatedProvider, limiter: MultiProviderLimiter | None) -> None:
        self._plan = plan
        self._provider = provider
        self._limiter = limiter
        self._agents: list[State] = ["working"] * plan.agents
        self._done = 0
        self._errors: Counter[str] = Counter()
        self._started = self._ended = 0.0

    async def go(self) -> Outcome:
        """Let the agents work until each has finished or crashed."""
        client = AsyncOpenAI(base_url=self._provider.openai_url, api_key="simulated")
        limited = client if self._limiter is None else self._limiter.wrap(client)
        numbers = range(self._plan.agents)
        await asyncio.gather(*(limited.models.list() for _ in numbers))  # connect
        self._started = time.monotonic()
        await asyncio.gather(*(self._agent(limited, number) for number in numbers))
        self._ended = time.monotonic()
        await client.close()
        return self._outcome()

    def frame(self) -> Frame:
        """How it stands now."""
        snapshot = None if self._limiter is None else self._limiter.snapshot()
        report = self._provider.report()
        limits = report[MODEL].limits
        return Frame(
            seconds=self._seconds(),
            done=self._done,
            agents=tuple(self._agents),
            refused=report.refused,
            used={words: (limits[name].used, limits[name].allowed) for name, words in _LIMITS.items() if limits},
            waiting=None if snapshot is None else snapshot.waiting,
            in_flight=None if snapshot is None else snapshot.in_flight,
        )

    async def _agent(self, client: AsyncOpenAI, number: int) -> None:
        """Make one call after the other; an error that the SDK does not retry away ends the agent."""
        await asyncio.sleep(_START * number / self._plan.agents)
        try:
            with self._scope(number):
                for step, max_tokens in enumerate(self._plan.work(number)):
                    prompt = f"You are agent {number}. Take step {step} of your plan."
                    await client.chat.completions.create(
                        model=MODEL, max_tokens=max_tokens, messages=[{"role": "user", "content": prompt}]
                    )
                    self._done += 1
            self._agents[number] = "finished"
        except (OpenAIError, RateLimiterError) as error:
            self._agents[number] = "crashed"
            self._errors[type(error).__name__] += 1

    def _scope(self, number: int) -> AbstractContextManager[None]:
        return nullcontext() if self._limiter is None else self._limiter.scope(agent=f"agent {number}")

    def _seconds(self) -> float:
        return (self._ended or time.monotonic()) - self._started if self._started else 0.0

    def _outcome(self) -> Outcome:
        report = self._provider.report()
        return Outcome(
            seconds=self._seconds(),
            calls=self._plan.total,
            done=self._done,
            failed=self._errors.total(),
            errors=dict(self._errors),
            agents=self._plan.agents,
            crashed=self._agents.count("crashed"),
            requests=report.received,
            refused=report.refused,
            tokens=report.input_tokens + report.output_tokens,
            dollars=report.dollars,
            share=report.used_share,
        )
