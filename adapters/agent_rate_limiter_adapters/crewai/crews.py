"""Limited twins of agents and crews: every LLM that CrewAI lets us find is limited; the rest is named."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from crewai.llms.base_llm import BaseLLM
from crewai.memory.memory_scope import MemoryScope, MemorySlice
from crewai.memory.unified_memory import Memory
from crewai.utilities.planning_handler import CrewPlanner

from agent_rate_limiter import ConfigError
from agent_rate_limiter_adapters.crewai.llm import RateLimitedLLM
from agent_rate_limiter_adapters.crewai.terms import labels, role_of

if TYPE_CHECKING:
    from crewai.agents.agent_builder.base_agent import BaseAgent
    from crewai.crew import Crew

    from agent_rate_limiter import MultiProviderLimiter, RateLimiter

    AnyLimiter = RateLimiter | MultiProviderLimiter

_log = logging.getLogger("agent_rate_limiter")
_CREW_LLMS = ("manager_llm", "planning_llm", "function_calling_llm", "chat_llm")
_CLIENTS = ("client", "_client")
_DOCS = "docs/crewai.md says what to do."


class _Wrapping:
    """Makes the twins of one `wrap`, each original once.

    Args:
        limiter: whose limits.
        options: those of `RateLimitedLLM`.
    """

    def __init__(self, limiter: AnyLimiter, options: dict[str, Any]) -> None:
        self._limiter = limiter
        self._options = options
        self._agents: dict[int, tuple[BaseLLM, RateLimitedLLM]] = {}
        """Agents' LLMs, and their twins."""

    def agent(self, original: BaseAgent) -> BaseAgent:
        """Return the limited twin of an agent."""
        twin: BaseAgent = _copy(original)
        self._limit_agent(twin, original)
        return twin

    def _limit_agent(self, twin: BaseAgent, original: BaseAgent) -> None:
        """Limit what a copied agent asks. CrewAI dumps and rebuilds some of it: that is taken from the original."""
        if isinstance(twin.llm, BaseLLM):
            who = {**self._options.get("labels", {}), "agent": role_of(twin)}
            limited = RateLimitedLLM(twin.llm, self._limiter, **{**self._options, "labels": who})
            self._agents[id(twin.llm)] = twin.llm, limited
            twin.llm = limited
        self._limit(twin, original, "function_calling_llm")
        config = getattr(original, "planning_config", None)
        if config is not None and config.llm is not None:
            vars(twin)["planning_config"] = config.model_copy(update={"llm": self._llm(config.llm)})
        twin.memory = self._memory(original.memory)

    def crew(self, original: Crew) -> Crew:
        """Return the limited twin of a crew."""
        agents = _agents(original)
        twin: Crew = _copy(original.model_copy(update={"agents": agents}))  # it must have those of its tasks
        self._options = {**self._options, "labels": {"crew": twin.name or "crew", **self._options.get("labels", {})}}
        twins = {id(agent): copied for agent, copied in zip(agents, twin.agents, strict=True)}
        for agent in agents:
            self._limit_agent(twins[id(agent)], agent)
        del twin.agents[len(original.agents) :]
        for task, source in zip(twin.tasks, original.tasks, strict=True):
            if source.agent is not None:
                task.agent = twins[id(source.agent)]  # CrewAI finds it by its role, which two agents may share
            self._guardrails(task)
        self._limit_crew(twin, original)
        return twin

    def _limit_crew(self, twin: Crew, original: Crew) -> None:
        """Limit what a copied crew asks by itself."""
        if twin.manager_agent is not None and original.manager_agent is not None:
            self._limit_agent(twin.manager_agent, original.manager_agent)
        for name in _CREW_LLMS:
            self._limit(twin, original, name)
        if twin.planning and twin.planning_llm is None:
            twin.planning_llm = self._llm(CrewPlanner(tasks=[]).planning_agent_llm)  # what CrewAI would choose later
        memory = self._memory(original._memory)
        if memory is not None:
            twin.memory = twin._memory = memory  # CrewAI takes it from one or the other

    def _limit(self, twin: Any, original: Any, name: str) -> None:
        llm = vars(original).get(name)  # asking for a deprecated field would warn
        if llm is not None:
            setattr(twin, name, self._llm(llm))

    def _llm(self, llm: BaseLLM | str) -> RateLimitedLLM:
        return RateLimitedLLM(llm, self._limiter, **self._options)

    def _guardrails(self, task: Any) -> None:
        """Limit LLMs that check a task's output. Of a text, CrewAI makes one with the LLM of the task's agent."""
        for name in ("guardrail", "guardrails", "_guardrail", "_guardrails"):
            value = getattr(task, name)
            if value is not None:
                setattr(task, name, self._guardrail(value))

    def _guardrail(self, guardrail: Any) -> Any:
        if isinstance(guardrail, list):
            return [self._guardrail(each) for each in guardrail]
        llm = getattr(guardrail, "llm", None)
        if not isinstance(llm, BaseLLM):
            return guardrail
        twin = copy.copy(guardrail)
        twin.llm = self._agents[id(llm)][1] if id(llm) in self._agents else self._llm(llm)
        return twin

    def _memory(self, memory: Any) -> Any:
        """Limit the LLM and the embedder of a memory; what is stored stays shared."""
        if isinstance(memory, (MemoryScope, MemorySlice)):  # a view
            view = memory.model_copy()
            view._memory = self._memory(memory._memory)
            return view
        if not isinstance(memory, Memory):
            return memory
        twin = memory.model_copy()
        twin.llm = self._llm(memory.llm)
        analyst = twin.llm.model_copy()
        analyst.stream = False
        twin._llm_instance = analyst
        with suppress(RuntimeError):  # CrewAI's default, without a key: it will say so when it is used
            twin._embedder_instance = self._embedder(memory._embedder)
        return twin

    def _who(self) -> dict[str, str]:
        """For whom an embedder is asked: the crew, and the task that we are in."""
        return labels(self._options.get("labels", {}), None, None)

    def _embedder(self, embedder: Any) -> Any:
        """Limit an embedder by the SDK's client in it, if there is one that an adapter knows."""
        for name in _CLIENTS:
            try:
                client = self._limiter.wrap(getattr(embedder, name), labels=self._who)
            except (AttributeError, ConfigError):
                continue
            twin = copy.copy(embedder)
            setattr(twin, name, client)
            return twin
        return embedder


def _agents(crew: Crew) -> list[BaseAgent]:
    """A crew's agents, and those outside of it that its tasks are for."""
    agents = list(crew.agents)
    for task in crew.tasks:
        if task.agent is not None and not any(task.agent is agent for agent in agents):
            agents.append(task.agent)
    return agents


def _copy(original: Any) -> Any:
    """Copy an agent or a crew as CrewAI does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Pydantic serializer warnings")  # CrewAI's own, of every copied memory
        return original.copy()


def limited_agent(agent: BaseAgent, limiter: AnyLimiter, options: dict[str, Any]) -> BaseAgent:
    """Return a limited twin of an agent, and log what could not be limited."""
    twin = _Wrapping(limiter, options).agent(agent)
    _tell(role_of(twin), _of_agent("agent", twin))
    return twin


def limited_crew(crew: Crew, limiter: AnyLimiter, options: dict[str, Any]) -> Crew:
    """Return a limited twin of a crew, and log what could not be limited."""
    twin = _Wrapping(limiter, options).crew(crew)
    _tell(twin.name or "crew", unlimited(twin))
    return twin


def _tell(name: str, found: Iterator[str] | tuple[str, ...]) -> None:
    for place in found:
        _log.warning("%s: not limited: %s. %s", name, place, _DOCS)


# ------------------------------------------------------------------ what is left


def unlimited(crew: Crew) -> tuple[str, ...]:
    """Name what calls a model past the limiter, or is charged by its estimate alone.

    Args:
        crew: a twin of `limiter.wrap(crew)`, or any crew.

    Returns:
        One sentence each; empty when every call that can be seen from here is limited.
    """
    found = [line for place, agent in enumerate(crew.agents) for line in _of_agent(f"agents[{place}]", agent)]
    if crew.manager_agent is not None:
        found += _of_agent("manager_agent", crew.manager_agent)
    for name in _CREW_LLMS:
        found += _of_llm(name, vars(crew)[name])
    found += _of_memory("memory", crew._memory)
    if crew.knowledge is not None:
        found.append("knowledge: its embedder")
    for place, task in enumerate(crew.tasks):
        found += _of_tools(f"tasks[{place}]", task.tools)
        if task.output_json is not None:
            found.append(f"tasks[{place}].output_json: CrewAI asks the provider by itself, charged by estimate")
    return tuple(found)


def _of_agent(place: str, agent: Any) -> Iterator[str]:
    if not isinstance(agent.llm, BaseLLM):
        yield f"{place}: a {type(agent).__name__}, whose model is not CrewAI's"
    yield from _of_llm(f"{place}.llm", agent.llm)
    yield from _of_llm(f"{place}.function_calling_llm", vars(agent).get("function_calling_llm"))
    yield from _of_memory(f"{place}.memory", agent.memory)
    if getattr(agent, "knowledge", None) is not None or getattr(agent, "knowledge_sources", None):
        yield f"{place}.knowledge: its embedder"
    yield from _of_tools(place, agent.tools)


def _of_llm(place: str, llm: Any) -> Iterator[str]:
    if llm is not None and not isinstance(llm, RateLimitedLLM):
        yield f"{place}: {llm if isinstance(llm, str) else type(llm).__name__}"


def _of_memory(place: str, memory: Any) -> Iterator[str]:
    memory = getattr(memory, "_memory", memory)  # of a view
    if isinstance(memory, Memory):
        yield from _of_llm(f"{place}.llm", memory.llm)
        embedder = memory._embedder_instance
        if embedder is None or not any(_limited(getattr(embedder, name, None)) for name in _CLIENTS):
            yield f"{place}.embedder"


def _limited(client: Any) -> bool:
    return "_limited_request" in type(client).__dict__


def _of_tools(place: str, tools: Any) -> Iterator[str]:
    """LLMs that a tool keeps as an attribute; what it makes while it runs cannot be seen."""
    for tool in tools or ():
        for name, value in getattr(tool, "__dict__", {}).items():
            if isinstance(value, BaseLLM):
                yield from _of_llm(f"{place}: tool {tool.name!r}.{name}", value)
