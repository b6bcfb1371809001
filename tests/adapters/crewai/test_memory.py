"""A crew's memory: its LLM and its embedder are limited too, and what it remembers is shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from crewai import Agent
from crewai.memory.unified_memory import Memory

from agent_rate_limiter.testing import SimulatedProvider
from agent_rate_limiter_adapters.crewai import RateLimitedLLM, unlimited
from tests.adapters.crewai.crews import INPUTS, booked, crew_of, llm_at, roomy, rows, served, taken

pytestmark = pytest.mark.filterwarnings("ignore:Direct api_key configuration")  # chromadb's, of what CrewAI does
EMBEDDER = "text-embedding-3-small"


def memory_at(provider: SimulatedProvider, folder: Path, **options: Any) -> Memory:
    config = {"api_base": provider.openai_url, "model_name": EMBEDDER}
    embedder: Any = {"provider": "openai", "config": config}
    return Memory(**{"llm": llm_at(provider), "storage": str(folder), "embedder": embedder, **options})


@pytest.mark.parametrize("of_the_agents", [False, True])
def test_what_a_memory_asks_is_counted(provider: SimulatedProvider, tmp_path: Path, *, of_the_agents: bool) -> None:
    limiter = roomy()
    memory = memory_at(provider, tmp_path)
    crew = crew_of(provider, memory=False if of_the_agents else memory)
    for agent in crew.agents if of_the_agents else ():
        agent.memory = memory
    twin = limiter.wrap(crew)
    assert unlimited(twin) == ()
    twin.kickoff(inputs=INPUTS)
    assert served(provider) == booked(limiter)
    used = {row["model"]: row["requests"] for row in rows(limiter, "model")}
    assert used[EMBEDDER] >= 3
    assert of_the_agents or {row["crew"] for row in rows(limiter, "crew")} == {"Press"}
    assert taken(limiter)[2] == 0
    assert memory.recall("cats", depth="shallow")  # the original's: it asks past the limiter
    assert served(provider)[0] == booked(limiter)[0] + 1


def test_a_memory_that_the_crew_makes_itself(provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
    crew = crew_of(provider, memory=True, embedder={"provider": "openai", "config": {}})
    twin: Any = roomy().wrap(crew)
    assert isinstance(twin._memory.llm, RateLimitedLLM)
    assert not twin._memory._llm.stream
    assert unlimited(twin) == ()


def test_a_view_of_a_memory(provider: SimulatedProvider, tmp_path: Path) -> None:
    limiter = roomy()
    view = memory_at(provider, tmp_path).scope("/press")
    crew = crew_of(provider, memory=view)
    assert unlimited(crew)[-2:] == ("memory.llm: OpenAICompletion", "memory.embedder")
    twin = limiter.wrap(crew)
    assert unlimited(twin) == ()
    twin.kickoff(inputs=INPUTS)
    assert served(provider) == booked(limiter)
    assert not isinstance(view._memory.llm, RateLimitedLLM)


def test_without_a_key_a_memory_says_so_when_it_is_used(
    provider: SimulatedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    memory = memory_at(provider, tmp_path, llm=llm_at(provider, api_key="sk-test"), embedder=None)
    twin: Any = roomy().wrap(Agent(role="R", goal="g", backstory="b", llm=memory.llm, memory=memory))
    assert isinstance(twin.memory.llm, RateLimitedLLM)
    with pytest.raises(RuntimeError, match="OPENAI_API_KEY"):
        twin.memory.recall("cats", depth="shallow")


def test_a_memory_whose_embedder_nobody_knows(provider: SimulatedProvider, tmp_path: Path) -> None:
    memory = memory_at(provider, tmp_path, llm="gpt-4o-mini", embedder=lambda texts: [[0.0] for _ in texts])
    twin: Any = roomy().wrap(crew_of(provider, memory=memory))
    assert unlimited(twin) == ("memory.embedder",)
    assert twin._memory.llm.model == "gpt-4o-mini"
    assert twin._memory._storage is memory._storage
