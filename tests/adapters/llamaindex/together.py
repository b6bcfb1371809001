"""A program that uses LangChain, CrewAI and LlamaIndex at once, all on one limiter; prints what came of it as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from crewai import LLM, Agent, Crew, Task
from langchain_openai import ChatOpenAI
from llama_index.llms.openai import OpenAI

from agent_rate_limiter import BudgetExceeded, Limit, MultiProviderLimiter, Provider, Resource
from agent_rate_limiter.testing.simulated import SimulatedProvider

MODEL = "gpt-4o-mini"
AT_ONCE = 4
EACH = 8


def crew(limiter: MultiProviderLimiter, provider: SimulatedProvider) -> Any:
    llm = LLM(model=MODEL, base_url=provider.openai_url, api_key="sk-test", max_tokens=50)
    writer = Agent(role="Writer", goal="Write", backstory="Eloquent.", llm=llm)
    task = Task(description="Write about cats", expected_output="Prose", agent=writer)
    return limiter.wrap(Crew(agents=[writer], tasks=[task]))


async def all_three(limiter: MultiProviderLimiter, provider: SimulatedProvider) -> list[Any]:
    """Let each framework make as many calls, all at the same time.

    Crews wait in threads of their own. In asyncio's default executor, of a few threads, they would keep out what
    async SDKs do there (`openai` asks for the platform before its first request), and those would wait for each other.
    """
    threads = ThreadPoolExecutor(EACH)
    reached: dict[str, Any] = {"model": MODEL, "max_tokens": 50, "api_key": "sk-test"}
    chain = limiter.wrap(ChatOpenAI(**reached, base_url=provider.openai_url))
    llm = limiter.wrap(OpenAI(**reached, api_base=provider.openai_url))

    async def labelled(framework: str, call: Awaitable[Any]) -> Any:
        with limiter.scope(framework=framework):
            return await call

    async def kickoff() -> Any:
        run = copy_context().run
        return await asyncio.get_running_loop().run_in_executor(threads, run, crew(limiter, provider).kickoff)

    calls: list[Awaitable[Any]] = []
    for number in range(EACH):
        calls.append(labelled("langchain", chain.ainvoke(f"Question {number}?")))
        calls.append(labelled("llamaindex", llm.acomplete(f"Question {number}?")))
        calls.append(labelled("crewai", kickoff()))
    return await asyncio.gather(*calls, return_exceptions=True)


def run(budget: float | None) -> dict[str, Any]:
    """Run them on a limit of a few calls at once, which the provider enforces, too."""
    served: Any = {"concurrency": AT_ONCE, "latency": 0.02, "output_tokens": 40, "prices": (2.5, 10)}
    limits = [Limit(Resource.CONCURRENCY, AT_ONCE, None)]
    model = {"limits": limits, "input_per_1m": 2.5, "output_per_1m": 10}
    with SimulatedProvider({MODEL: served}) as provider:
        limiter = MultiProviderLimiter([Provider("openai", {MODEL: model})], budget_limit=budget)
        results = asyncio.run(all_three(limiter, provider))
        report = provider.report()
        rows = limiter.costs.report(by=("framework",)).to_dicts()
        return {
            "requests": {str(row["framework"]): row["requests"] for row in rows},
            "received": report.received,
            "refused": report.refused,
            "at_once": report[MODEL].limits["concurrency"].used,
            "cost": [limiter.costs.total, report.dollars],
            "in_flight": limiter.snapshot().in_flight,
            "failed": [type(error).__name__ for error in results if isinstance(error, BaseException)],
            "over_budget": sum(isinstance(error, BudgetExceeded) for error in results),
        }


if __name__ == "__main__":
    json.dump([run(None), run(0.006)], sys.stdout)
