"""Real crews and their LLMs at a simulated provider, and what its books say beside the limiter's and CrewAI's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool
from pydantic import BaseModel

from agent_rate_limiter import Limit, MultiProviderLimiter, Provider, Resource, RetryStrategy
from agent_rate_limiter.testing import SimulatedProvider
from agent_rate_limiter.testing.simulated import Call, ToolCall

MODEL = "gpt-4o"
CHEAP = "gpt-4o-mini"
INPUTS = {"topic": "cats"}
QUICK = RetryStrategy(max_attempts=3, base=0.01, cap=0.02)
looked_up: list[str] = []
"""What the tool was asked for: it has a side effect, and so is to run once."""


class Article(BaseModel):
    title: str
    points: list[str]


@tool("look_up")
def look_up(topic: str) -> str:
    """Look up facts about a topic."""
    looked_up.append(topic)
    return f"Facts about {topic}."


def reply(call: Call) -> ToolCall | str | None:
    """A model that delegates if it can, looks up if it can, each once, and then answers; its plans fit two tasks."""
    plan = [{"task_number": number, "task": "a task", "plan": "a plan"} for number in (1, 2)]
    if call.schema is not None:
        return json.dumps({"list_of_plans_per_task": plan}) if "list_of_plans_per_task" in str(call.schema) else None
    tools = json.dumps(call.body.get("tools") or [])
    if any(message["role"] == "tool" for message in call.body.get("messages", ())) or "tool_result" in str(call.body):
        return None
    if "delegate_work_to_coworker" in tools:
        work = {"task": "Say more", "context": "Nothing", "coworker": "Writer"}
        return ToolCall("delegate_work_to_coworker", work)
    return ToolCall("look_up", {"topic": "cats"}) if "look_up" in tools else None


def llm_at(provider: SimulatedProvider, model: str = MODEL, **options: Any) -> Any:
    return LLM(model=model, base_url=provider.openai_url, **options)


def agents(provider: SimulatedProvider, **options: Any) -> list[Agent]:
    """A researcher with a tool, and a writer; they share one LLM, as is usual."""
    llm = llm_at(provider)
    researcher = Agent(role="Researcher", goal="Know", backstory="Curious.", llm=llm, tools=[look_up], **options)
    return [researcher, Agent(role="Writer", goal="Write", backstory="Eloquent.", llm=llm)]


def crew_of(provider: SimulatedProvider, *, writing: dict[str, Any] | None = None, **options: Any) -> Crew:
    """Research with a tool, then write about it."""
    researcher, writer = agents(provider)
    tasks = [
        Task(name="research", description="Find out about {topic}", expected_output="Facts", agent=researcher),
        Task(description="Write about {topic}", expected_output="Prose", agent=writer, **(writing or {})),
    ]
    return Crew(name="Press", agents=[researcher, writer], tasks=tasks, **options)


def roomy(**options: Any) -> MultiProviderLimiter:
    """Nothing binds and nothing refills: what is used stays visible."""
    limits = [Limit(Resource.REQUESTS, 10_000, None), Limit(Resource.TOKENS, 10_000_000, None)]
    models: Any = {"*": {"limits": limits, "cost_per_1k": 0.01}}
    return MultiProviderLimiter([Provider("openai", models)], **{"retry": QUICK, **options})


Counts = tuple[int, int, int]


def served(provider: SimulatedProvider) -> Counts:
    report = provider.report()
    return report.received, report.input_tokens, report.output_tokens


def booked(limiter: MultiProviderLimiter, *, except_for: str = "nobody") -> Counts:
    own = [row for row in rows(limiter) if row["agent"] != except_for]
    requests, sent, received = (sum(row[name] for row in own) for name in ("requests", "input_tokens", "output_tokens"))
    return requests, sent, received


def rows(limiter: MultiProviderLimiter, *by: str) -> list[dict[str, Any]]:
    return limiter.costs.report(by=by or ("crew", "agent", "task")).to_dicts()


def counted(*outputs: Any) -> Counts:
    """What CrewAI's own counters say."""
    names = ("successful_requests", "prompt_tokens", "completion_tokens")
    requests, sent, received = (sum(getattr(output.token_usage, name) for output in outputs) for name in names)
    return requests, sent, received


def taken(limiter: MultiProviderLimiter) -> Counts:
    """Requests and tokens that are missing in the limits, as (requests, tokens, in flight)."""
    snapshot = limiter.snapshot()
    found = {"requests": 0, "tokens": 0}
    for limit in snapshot.limits:
        if limit.name == "gate":
            continue  # closed a little longer each time
        found[limit.resource] += round(limit.amount - limit.available)
    return found["requests"], found["tokens"], snapshot.in_flight


def outcome(run: Callable[[], Any]) -> BaseException | Any:
    try:
        return run()
    except Exception as error:  # noqa: BLE001 - whatever a crew ends with
        return error
