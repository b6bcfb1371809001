"""On which terms an LLM is limited: whose limits, where its calls go, how long they may wait, who they are for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from crewai.events import event_context

from agent_rate_limiter import ConfigError, Estimate, Target
from agent_rate_limiter.providers import dialect
from agent_rate_limiter_adapters.http import Destinations

if TYPE_CHECKING:
    from agent_rate_limiter import MultiProviderLimiter, RateLimiter
    from agent_rate_limiter_adapters.crewai.llm import RateLimitedLLM

_EXECUTIONS = {"agent_execution_started", "lite_agent_execution_started"}
_TASKS = {"task_started"}
_REMEMBERED = 4096
_LONGEST_LABEL = 48
_tasks: dict[str, dict[str, str]] = {}
"""Who works on a task, by the event that began it."""


@dataclass(frozen=True)
class Terms:
    """What all calls of one limited LLM have in common.

    Args:
        limiter: whose limits.
        provider: the name of the provider that calls go to; None finds it by the LLM's base_url, else its provider.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait; None waits for ever.
        fallbacks: LLMs that serve a call when this one cannot, in order.
        labels: who calls, where CrewAI does not say.
    """

    limiter: RateLimiter | MultiProviderLimiter
    provider: str | None = None
    priority: int | None = None
    timeout: float | None = None
    fallbacks: tuple[RateLimitedLLM, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    def target(self, llm: Any) -> Target:
        """Return where calls of an LLM go.

        Raises:
            ConfigError: to a provider or a model that is not configured.
        """
        kind = llm.provider
        try:
            found = Destinations(self.limiter, provider=self.provider, kind=kind).find(_url(llm))
        except ConfigError:
            if self.provider is not None or kind not in getattr(self.limiter, "providers", {}):
                raise
            return self.limiter.target_for(kind, llm.model.removeprefix(f"{kind}/"))
        return self.limiter.target_for(found.provider, llm.model.removeprefix(f"{kind}/"))

    def targets(self, llm: RateLimitedLLM) -> dict[Target, RateLimitedLLM]:
        """Return where calls of an LLM go, and who serves them there: itself first, then its fallbacks.

        Raises:
            ConfigError: to a provider or a model that is not configured, or twice to the same.
        """
        found = {self.target(llm): llm}
        for place, fallback in enumerate(self.fallbacks):
            target = fallback._terms.target(fallback)
            if target in found:
                raise ConfigError(f"fallback_llms[{place}] goes to {target}, as one before it: give another model.")
            found[target] = fallback
        return found

    def scope(self, who: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Label calls in the block."""
        return self.limiter.scope(**who)

    def patience(self, agent: Any) -> float | None:
        """Return how many seconds a call may wait: no longer than its agent's `max_execution_time` allows."""
        limit = getattr(agent, "max_execution_time", None)
        if not isinstance(limit, (int, float)):
            return self.timeout
        execution = _surrounding(_EXECUTIONS)
        spent = 0.0 if execution is None else time.monotonic() - _begun(execution)
        left = max(0.0, limit - spent)
        return left if self.timeout is None else min(left, self.timeout)


def estimate(llm: Any, messages: Any, tools: Any = None, response_model: Any = None) -> Estimate:
    """Estimate a call by its text, its tools, and the most that the LLM may answer."""
    body: dict[str, Any] = {"messages": messages, "tools": tools}
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        most = getattr(llm, name, None)
        body[name] = int(most) if isinstance(most, (int, float)) else None
    if response_model is not None:
        body["response_format"] = response_model.model_json_schema()
    return dialect("openai").estimate("/chat/completions", body)


def labels(known: Mapping[str, str], agent: Any, task: Any) -> dict[str, str]:
    """Return who makes a call: the crew's name, the agent's role and the task's name, as they are configured.

    Templates stay templates (`{topic} analyst`), so that all inputs of one agent count together. Calls that CrewAI
    makes for a task without saying so (converters, guardrails) are that task's.
    """
    crew = getattr(agent, "crew", None)
    said = {"crew": getattr(crew, "name", None), "agent": role_of(agent), "task": _name_of(task)}
    stated = {name: _short(str(value)) for name, value in said.items() if value}
    around = _surrounding(_TASKS)
    if task is None or around is None:
        return {**known, **_tasks.get(around or "", {}), **stated}
    _tasks[around] = {**known, **stated}
    while len(_tasks) > _REMEMBERED:
        _tasks.pop(next(iter(_tasks)), None)
    return _tasks[around]


def role_of(agent: Any) -> str:
    """Return an agent's role as it is configured; empty for none."""
    return getattr(agent, "_original_role", None) or getattr(agent, "role", None) or ""


def _name_of(task: Any) -> str | None:
    names = ("name", "_original_description", "description")
    return next((value for name in names if (value := getattr(task, name, None))), None)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1].rstrip()}…"


def _url(llm: Any) -> str:
    return str(getattr(llm, "base_url", None) or getattr(llm, "api_base", None) or getattr(llm, "endpoint", None) or "")


def _surrounding(kinds: AbstractSet[str]) -> str | None:
    """Return the id of the nearest event of such a kind that we are inside of; CrewAI keeps them in a stack."""
    stack = event_context._event_id_stack.get()
    return next((event for event, kind in reversed(stack) if kind in kinds), None)


@lru_cache(_REMEMBERED)
def _begun(execution: str) -> float:
    """When an execution was first seen: it begins with a call."""
    del execution
    return time.monotonic()
