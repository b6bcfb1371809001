"""Those who watch: budgets for unlimited LLMs, a line for each task, what is not limited."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from crewai import Crew, Task
from crewai.agents.agent_builder.base_agent import BaseAgent
from crewai.events.event_context import event_scope
from crewai.hooks.dispatch import HookAborted
from crewai.hooks.llm_hooks import register_before_llm_call_hook, unregister_before_llm_call_hook
from crewai.knowledge.source.string_knowledge_source import StringKnowledgeSource
from crewai.utilities.internal_instructor import InternalInstructor

import agent_rate_limiter_adapters.crewai as crewai_adapter
from agent_rate_limiter import Budget, BudgetExceeded, Limit, RateLimiter, Resource, Scope
from agent_rate_limiter.testing import SimulatedProvider
from agent_rate_limiter_adapters.crewai import BudgetGuard, CostLines, terms, unlimited
from tests.adapters.crewai.crews import (
    INPUTS,
    MODEL,
    Article,
    agents,
    booked,
    crew_of,
    llm_at,
    look_up,
    looked_up,
    outcome,
    roomy,
    rows,
    served,
    taken,
)


def spent(budget: Budget) -> Any:
    """A limiter whose budget has no room left."""
    limiter = roomy(budgets=[budget])
    with limiter.scope(agent="Writer"):
        limiter.acquire(f"openai:{MODEL}").settle({"usage": {"prompt_tokens": 290, "completion_tokens": 0}})
    return limiter


def test_a_spent_budget_denies_llms_that_are_not_limited(provider: SimulatedProvider) -> None:
    limiter = spent(Budget(0.001, per="total"))
    with BudgetGuard(limiter):
        error = outcome(lambda: crew_of(provider).kickoff(inputs=INPUTS))
        assert isinstance(outcome(lambda: llm_at(provider).call("Hello")), BudgetExceeded)
    assert isinstance(error, BudgetExceeded)
    assert isinstance(error, HookAborted)
    assert served(provider)[0] == 0
    assert llm_at(provider).call("Hello")


def test_a_budget_of_one_agent_denies_that_agent(provider: SimulatedProvider) -> None:
    limiter = spent(Budget(0.003, per="total", scope=Scope(agent="each")))
    with BudgetGuard(limiter), pytest.raises(BudgetExceeded, match="agent=Writer"):
        crew_of(provider).kickoff(inputs=INPUTS)
    assert served(provider)[0] == 2


def test_a_guard_leaves_alone_what_it_has_no_budget_for(provider: SimulatedProvider) -> None:
    limiter = spent(Budget(0.001, per="total"))
    stranger = llm_at(provider).model_copy(update={"provider": "stranger"})
    with BudgetGuard(limiter):
        assert stranger.call("Hello")
        error = outcome(lambda: limiter.wrap(llm_at(provider)).call("Hello"))
    assert isinstance(error, BudgetExceeded)  # it says no by itself


def test_a_guard_leaves_limited_llms_alone(provider: SimulatedProvider) -> None:
    limiter = roomy(budgets=[Budget(0.004, per="total")])
    with BudgetGuard(limiter):
        error = outcome(lambda: [limiter.wrap(llm_at(provider)).call("x" * 400) for _ in range(9)])
    assert isinstance(error, BudgetExceeded)
    assert booked(limiter)[0] >= 2


def test_a_guard_denies_for_no_other_limit(provider: SimulatedProvider) -> None:
    limiter = RateLimiter(Limit(Resource.REQUESTS, 1, per=60))
    limiter.acquire().settle()
    with BudgetGuard(limiter):
        assert llm_at(provider).call("Hello")


@pytest.mark.parametrize("hook", ["aborts", "returns False"])
def test_what_a_hook_denies_was_never_sent(hook: str, provider: SimulatedProvider) -> None:
    limiter = roomy()
    llm = limiter.wrap(llm_at(provider, max_tokens=300))

    def deny(_: Any) -> bool:
        if hook == "aborts":
            raise HookAborted("Not today.")
        return False

    register_before_llm_call_hook(deny)
    try:
        error = outcome(lambda: llm.call("Hello"))
    finally:
        unregister_before_llm_call_hook(deny)
    assert isinstance(error, HookAborted if hook == "aborts" else ValueError)
    assert served(provider)[0] == booked(limiter)[0] == 0
    assert taken(limiter) == (0, 0, 0)


def test_a_line_for_each_task(provider: SimulatedProvider) -> None:
    limiter = roomy()
    lines: list[str] = []
    with CostLines(limiter, lines.append):
        crew = limiter.wrap(crew_of(provider, planning=True, planning_llm=llm_at(provider)))
        for _ in range(2):
            crew.kickoff(inputs=INPUTS)
    crew_of(provider).kickoff(inputs=INPUTS)
    assert [line.partition(",")[0] for line in lines] == [
        "Based on these tasks summary: Task Number 1 - F…: 1 call",
        "research: 2 calls",
        "Write about {topic}: 1 call",
    ] * 2
    (research,) = [row for row in rows(limiter) if row["agent"] == "Researcher"]
    tokens = [int(part) for line in lines if "research: " in line for part in line.split(", ")[1].split()[::2][:2]]
    assert [sum(tokens[::2]), sum(tokens[1::2])] == [research["input_tokens"], research["output_tokens"]]
    total = sum(float(line.rpartition("$")[2]) for line in lines)
    assert total == pytest.approx(limiter.costs.total, abs=0.0003)


def test_what_is_not_limited_is_named(provider: SimulatedProvider, caplog: pytest.LogCaptureFixture) -> None:
    researcher, writer = agents(provider)
    keeper: Any = look_up.model_copy()
    keeper.__dict__["helper"] = llm_at(provider)
    researcher.tools = [keeper]
    tasks = [Task(description="Write", expected_output="x", agent=writer, output_json=Article)]
    crew = Crew(name="Press", agents=[researcher, writer], tasks=tasks, planning=True, planning_llm="gpt-4o-mini")
    assert unlimited(crew) == (
        "agents[0].llm: OpenAICompletion",
        "agents[0]: tool 'look_up'.helper: OpenAICompletion",
        "agents[1].llm: OpenAICompletion",
        "planning_llm: gpt-4o-mini",
        "tasks[0].output_json: CrewAI asks the provider by itself, charged by estimate",
    )
    with caplog.at_level(logging.WARNING, "agent_rate_limiter"):
        twin = roomy().wrap(crew)
    assert unlimited(twin) == (
        "agents[0]: tool 'look_up'.helper: OpenAICompletion",
        "tasks[0].output_json: CrewAI asks the provider by itself, charged by estimate",
    )
    assert [record.getMessage().partition(". docs")[0] for record in caplog.records] == [
        f"Press: not limited: {place}" for place in unlimited(twin)
    ]


def test_the_planner_that_crewai_would_choose_is_limited(provider: SimulatedProvider) -> None:
    twin = roomy().wrap(crew_of(provider, planning=True))
    assert twin.planning_llm.model.startswith("gpt-")  # type: ignore[union-attr]
    assert unlimited(twin) == ()


def test_crewais_instructor_is_charged_its_estimate(provider: SimulatedProvider) -> None:
    """It asks with a client of its own, after telling the LLM."""
    looked_up.clear()
    limiter = roomy()
    llm = limiter.wrap(llm_at(provider, max_tokens=300))
    instructor: Any = InternalInstructor(content="A title and points", model=Article, llm=llm)
    outcome(instructor.to_json)
    assert served(provider)[0] >= 1
    assert booked(limiter)[::2] == (1, 300)
    assert taken(limiter)[2] == 0
    assert looked_up == []


class Foreign(BaseAgent):
    """An agent of another framework, as an adapter of CrewAI presents it."""

    def execute_task(self, task: Any, context: Any = None, tools: Any = None) -> str:
        return "Done."

    async def aexecute_task(self, task: Any, context: Any = None, tools: Any = None) -> str:
        return "Done."

    def create_agent_executor(self, tools: Any = None) -> None: ...
    def get_delegation_tools(self, agents: Any) -> Any: ...
    def get_platform_tools(self, apps: Any) -> Any: ...
    def get_mcp_tools(self, mcps: Any) -> Any: ...


def test_agents_of_other_frameworks_are_named(provider: SimulatedProvider) -> None:
    limiter = roomy()
    foreign = Foreign(role="Stranger", goal="g", backstory="b")
    _, writer = agents(provider)
    writer.knowledge_sources = [StringKnowledgeSource(content="Cats purr.")]
    assert unlimited(limiter.wrap(Crew(agents=[foreign], tasks=[]))) == (
        "agents[0]: a Foreign, whose model is not CrewAI's",
    )
    assert unlimited(Crew(agents=[writer], tasks=[])) == (
        "agents[0].llm: OpenAICompletion",
        "agents[0].knowledge: its embedder",
    )


def test_the_books_of_old_tasks_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terms, "_REMEMBERED", 2)
    monkeypatch.setattr(terms, "_tasks", {})
    for number in range(5):
        with event_scope(f"event {number}", "task_started"):
            terms.labels({}, None, Task(name=f"task {number}", description="d", expected_output="e"))
            assert terms.labels({}, None, None) == {"task": f"task {number}"}
    assert list(terms._tasks) == ["event 3", "event 4"]


def test_public_names() -> None:
    assert set(dir(crewai_adapter)) == set(crewai_adapter.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(crewai_adapter, "nothing")  # noqa: B009 - type checkers know that it is not there
