"""Whole crews, however they are run: the provider, the limiter and CrewAI count the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from crewai import Agent, Crew, Process, Task
from crewai.agent.planning_config import PlanningConfig
from crewai.tasks.llm_guardrail import LLMGuardrail

from agent_rate_limiter.testing import SimulatedProvider
from agent_rate_limiter_adapters.crewai import RateLimitedLLM, unlimited
from tests.adapters.crewai.crews import (
    CHEAP,
    INPUTS,
    Article,
    booked,
    counted,
    crew_of,
    llm_at,
    looked_up,
    roomy,
    rows,
    served,
    taken,
)

Run = Callable[[Crew], list[Any]]
BOTH = [INPUTS, {"topic": "dogs"}]


def kickoff(crew: Crew) -> list[Any]:
    return [crew.kickoff(inputs=INPUTS)]


def kickoff_async(crew: Crew) -> list[Any]:
    return [asyncio.run(crew.kickoff_async(inputs=INPUTS))]


def akickoff(crew: Crew) -> list[Any]:
    return [asyncio.run(crew.akickoff(inputs=INPUTS))]


def for_each(crew: Crew) -> list[Any]:
    return list(crew.kickoff_for_each(inputs=BOTH))


def for_each_async(crew: Crew) -> list[Any]:
    return list(asyncio.run(crew.kickoff_for_each_async(inputs=BOTH)))


def streamed(crew: Crew) -> list[Any]:
    stream: Any = crew.kickoff(inputs=INPUTS)
    assert sum(len(chunk.content) for chunk in stream) > 0
    return [stream.result]


def planned(provider: SimulatedProvider) -> Crew:
    return crew_of(provider, planning=True, planning_llm=llm_at(provider, CHEAP))


def managed(provider: SimulatedProvider) -> Crew:
    return crew_of(provider, process=Process.hierarchical, manager_llm=llm_at(provider))


def managed_by(provider: SimulatedProvider) -> Crew:
    manager = Agent(role="Boss", goal="Lead", backstory="Fair.", llm=llm_at(provider), allow_delegation=True)
    return crew_of(provider, process=Process.hierarchical, manager_agent=manager)


def guarded(provider: SimulatedProvider) -> Crew:
    return crew_of(provider, writing={"guardrail": "It must be polite."})


def structured(provider: SimulatedProvider) -> Crew:
    return crew_of(provider, writing={"output_pydantic": Article})


def as_json(provider: SimulatedProvider) -> Crew:
    return crew_of(provider, writing={"output_json": Article})


def concurrent(provider: SimulatedProvider) -> Crew:
    crew = crew_of(provider)
    crew.tasks[0].async_execution = True
    return Crew(name=crew.name, agents=crew.agents, tasks=crew.tasks)


def streaming(provider: SimulatedProvider) -> Crew:
    return crew_of(provider, stream=True)


@pytest.mark.parametrize(
    ("make", "run", "requests"),
    [
        (crew_of, kickoff, 3),
        (crew_of, kickoff_async, 3),
        (crew_of, akickoff, 3),
        (crew_of, for_each, 6),
        (crew_of, for_each_async, 6),
        (structured, kickoff, 3),
        (structured, akickoff, 3),
        (as_json, kickoff, 3),
        (concurrent, kickoff, 3),
        (streaming, streamed, 3),
        (planned, kickoff, 4),
        (planned, for_each, 8),
        (managed, kickoff, 5),
        (managed, for_each, 10),
        (managed_by, kickoff, 5),
        (guarded, kickoff, 4),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_everybody_counts_the_same(
    make: Callable[[SimulatedProvider], Crew], run: Run, requests: int, provider: SimulatedProvider
) -> None:
    limiter = roomy()
    looked_up.clear()
    outputs = run(limiter.wrap(make(provider)))
    assert all(output.raw for output in outputs)
    assert served(provider) == booked(limiter)
    assert counted(*outputs) == booked(limiter, except_for="Task Execution Planner")  # whom CrewAI leaves out
    assert served(provider)[0] == requests
    assert taken(limiter) == (requests, sum(served(provider)[1:]), 0)
    assert sum(row["cost"] for row in rows(limiter)) == pytest.approx(sum(served(provider)[1:]) / 1000 * 0.01)
    assert len(looked_up) == len(outputs) or make in {managed, managed_by}


def test_every_call_says_for_whom_it_is(provider: SimulatedProvider) -> None:
    limiter = roomy()
    limiter.wrap(guarded(provider)).kickoff(inputs=INPUTS)
    assert sorted((row["crew"], row["agent"], row["task"], row["requests"]) for row in rows(limiter)) == [
        ("Press", "Guardrail Agent", "Write about {topic}", 1),
        ("Press", "Researcher", "research", 2),
        ("Press", "Writer", "Write about {topic}", 1),
    ]


def test_a_delegated_task_is_the_coworkers(provider: SimulatedProvider) -> None:
    limiter = roomy()
    limiter.wrap(managed(provider)).kickoff(inputs=INPUTS)
    assert {row["agent"]: row["requests"] for row in rows(limiter, "agent")} == {"Crew Manager": 4, "Writer": 1}


def test_the_original_stays_as_it_is(provider: SimulatedProvider) -> None:
    limiter = roomy()
    original = planned(provider)
    twin = limiter.wrap(original)
    assert isinstance(twin, Crew)
    twin.kickoff(inputs=INPUTS)
    assert [task.output for task in original.tasks] == [None, None]
    assert all(task.output for task in twin.tasks)
    models = [agent.llm for agent in original.agents] + [original.planning_llm]
    assert not any(isinstance(llm, RateLimitedLLM) for llm in models)
    before = booked(limiter)
    original.kickoff(inputs=INPUTS)
    assert booked(limiter) == before


def test_agents_of_one_role_keep_their_tasks(provider: SimulatedProvider) -> None:
    twins = [Agent(role="Twin", goal=f"Goal {n}", backstory="One of two.", llm=llm_at(provider)) for n in (1, 2)]
    tasks = [Task(description=f"Task {n}", expected_output="x", agent=agent) for n, agent in enumerate(twins)]
    wrapped = roomy().wrap(Crew(agents=list(twins), tasks=tasks))
    assert [task.agent.goal for task in wrapped.tasks] == ["Goal 1", "Goal 2"]  # type: ignore[union-attr]


def test_wrapped_again_it_is_under_the_new_terms_alone(provider: SimulatedProvider) -> None:
    first, second = roomy(), roomy()
    second.wrap(first.wrap(crew_of(provider))).kickoff(inputs=INPUTS)
    assert booked(first) == (0, 0, 0)
    assert booked(second) == served(provider)


def test_everything_is_found(provider: SimulatedProvider) -> None:
    crew = managed_by(provider)
    assert unlimited(crew) == (
        "agents[0].llm: OpenAICompletion",
        "agents[1].llm: OpenAICompletion",
        "manager_agent.llm: OpenAICompletion",
    )
    assert unlimited(roomy().wrap(crew)) == ()


def test_guardrails_and_planners_of_ones_own_are_limited_too(provider: SimulatedProvider) -> None:
    limiter = roomy()
    own = LLMGuardrail("It must be polite.", llm_at(provider))
    crew = crew_of(provider, writing={"guardrails": [own, "It must be short."]})
    crew.agents[0].planning_config = PlanningConfig(llm=llm_at(provider, CHEAP), max_attempts=1)  # type: ignore[attr-defined]
    twin: Any = limiter.wrap(crew)
    assert isinstance(twin.agents[0].planning_config.llm, RateLimitedLLM)
    assert twin.tasks[1]._guardrails[1].llm is twin.agents[1].llm
    assert not isinstance(own.llm, RateLimitedLLM)
    twin.kickoff(inputs=INPUTS)
    assert booked(limiter) == served(provider)
    assert {row["model"] for row in rows(limiter, "model")} == {"gpt-4o", CHEAP}


def test_a_task_for_an_agent_outside_of_the_crew(provider: SimulatedProvider) -> None:
    limiter = roomy()
    guest = Agent(role="Guest", goal="Help", backstory="Kind.", llm=llm_at(provider))
    crew = crew_of(provider)
    tasks = [*crew.tasks, Task(description="Help", expected_output="Help", agent=guest)]
    limiter.wrap(Crew(agents=crew.agents, tasks=tasks)).kickoff(inputs=INPUTS)
    assert booked(limiter) == served(provider)
    assert served(provider)[0] == 4
