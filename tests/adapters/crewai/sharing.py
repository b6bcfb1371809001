"""Crews under one limit on tokens; `python -m tests.adapters.crewai.sharing URL STORE CREWS` is one process of them."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor

from crewai import LLM, Agent, Crew, Task

from agent_rate_limiter import Limit, MultiProviderLimiter, Provider, Resource
from agent_rate_limiter.testing.simulated import ModelOptions
from tests.adapters.crewai.crews import MODEL, QUICK

TPM, SPEED = 2_000, 30.0  # a minute lasts two seconds
SHARED: ModelOptions = {"tpm": TPM, "charge": "actual", "settle": "end", "output_tokens": 60}


def crew_at(url: str, name: str) -> Crew:
    llm = LLM(model=MODEL, base_url=url, max_tokens=80)
    writer = Agent(role="Writer", goal="Write", backstory="Eloquent.", llm=llm)
    parts = [
        Task(description=f"Write part {part} of {name}", expected_output="Prose", agent=writer) for part in (1, 2, 3)
    ]
    return Crew(name=name, agents=[writer], tasks=parts)


def run(url: str, store: str, crews: int) -> list[str]:
    """Run so many crews at once under one limit; return how each ended."""
    tokens = Limit(Resource.TOKENS, TPM, per=60 / SPEED)
    limiter = MultiProviderLimiter([Provider("openai", {MODEL: {"limits": [tokens]}})], store=store, retry=QUICK)

    def one(number: int) -> str:
        try:
            limiter.wrap(crew_at(url, f"story {number}")).kickoff()
        except Exception as error:  # noqa: BLE001 - it is what is reported
            return repr(error)
        return "done"

    with limiter, ThreadPoolExecutor(crews) as pool:
        return list(pool.map(one, range(crews)))


if __name__ == "__main__":
    url, store, crews = sys.argv[1:]
    outcomes = run(url, store, int(crews))
    print(json.dumps(outcomes), file=sys.__stderr__)
