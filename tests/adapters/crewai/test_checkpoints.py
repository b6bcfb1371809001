"""Crews that are dumped and restored stay under limits, or say that they cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import pytest
from crewai import Agent, Crew, Task

from agent_rate_limiter.testing import SimulatedProvider
from agent_rate_limiter_adapters.crewai import RateLimitedLLM, restoring, twins, unlimited
from tests.adapters.crewai.crews import CHEAP, INPUTS, booked, llm_at, roomy, served

RESTORING = {"from_checkpoint": True}


def dumped(crew: Crew) -> dict[str, Any]:
    return dict(json.loads(crew.model_dump_json(include={"name", "agents", "planning_llm", "tasks"})))


def small(provider: SimulatedProvider, **options: Any) -> Crew:
    """Without tools: CrewAI cannot save those that are made of functions."""
    agent = Agent(role="Writer", goal="Write", backstory="Eloquent.", llm=llm_at(provider, temperature=0.2))
    tasks = [Task(description=f"Write part {part}", expected_output="Prose", agent=agent) for part in (1, 2)]
    return Crew(name="Press", agents=[agent], tasks=tasks, **options)


def test_in_this_process_an_llm_is_found_again(provider: SimulatedProvider) -> None:
    limiter = roomy()
    twin = limiter.wrap(small(provider))
    again = Agent.model_validate(dumped(twin)["agents"][0], context=RESTORING)
    assert isinstance(again.llm, RateLimitedLLM)
    assert again.llm is not twin.agents[0].llm
    again.llm.call("Hello")
    assert booked(limiter) == served(provider)
    assert served(provider)[0] == 1


def test_restored_it_is_under_the_limiter_that_is_given(provider: SimulatedProvider) -> None:
    before, after = roomy(), roomy()
    twin = before.wrap(small(provider))
    with restoring(after, fallback_llms=[llm_at(provider, CHEAP)]):
        again: Any = Agent.model_validate(dumped(twin)["agents"][0], context=RESTORING)
    again.llm.call("Hello")
    assert booked(before) == (0, 0, 0)
    assert booked(after) == served(provider)
    assert (again.llm.temperature, again.llm.max_retries) == (0.2, 0)
    assert len(again.llm._terms.fallbacks) == 1


def test_in_another_process_somebody_must_say_which_limiter(
    provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = json.dumps(dumped(roomy().wrap(small(provider))))
    monkeypatch.setattr(twins, "known", WeakValueDictionary())  # as if another had made it
    with pytest.raises(ValueError, match=r"comes from another process: restore its crew inside .*restoring\(limiter\)"):
        Crew.model_validate(json.loads(saved), context=RESTORING)
    limiter = roomy()
    with restoring(limiter):
        crew: Any = Crew.model_validate(json.loads(saved), context=RESTORING)
    assert unlimited(crew) == ()
    crew.agents[0].llm.call("Hello")
    assert booked(limiter) == served(provider)
    assert served(provider)[0] == 1


def test_a_lost_limiter_is_an_error(provider: SimulatedProvider) -> None:
    fields = {"llm_type": "agent_rate_limiter/openai/gone", "model": "gpt-4o"}
    with pytest.raises(ValueError, match=r"The limited LLM 'gpt-4o' comes from another process"):
        Agent(role="Writer", goal="Write", backstory="Eloquent.", llm=fields)


def test_a_crew_is_checkpointed_and_resumed(provider: SimulatedProvider, tmp_path: Path) -> None:
    from crewai.events import crewai_event_bus
    from crewai.state.checkpoint_config import CheckpointConfig

    crewai_event_bus.reset_runtime_state()  # a checkpoint holds all that ran in the process; some cannot be saved
    limiter = roomy()
    twin = limiter.wrap(small(provider, planning=True, planning_llm=llm_at(provider)))
    twin.checkpoint = CheckpointConfig(location=str(tmp_path))
    twin.kickoff(inputs=INPUTS)
    (first,) = tmp_path.rglob("*_p-none.json")  # after the first task
    asked = served(provider)[0]
    with restoring(limiter):
        again: Any = Crew.from_checkpoint(CheckpointConfig(restore_from=str(first)))
    assert all(isinstance(agent.llm, RateLimitedLLM) for agent in again.agents)
    assert again.kickoff(inputs=INPUTS).raw
    assert served(provider)[0] > asked
    assert booked(limiter) == served(provider)
