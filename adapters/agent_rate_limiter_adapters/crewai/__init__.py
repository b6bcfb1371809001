"""Limits for CrewAI, 1.15.20 or newer: `limiter.wrap(crew)`, `limiter.wrap(agent)`, `limiter.wrap(llm)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent_rate_limiter.lazy import lazy

if TYPE_CHECKING:
    from agent_rate_limiter import MultiProviderLimiter, RateLimiter
    from agent_rate_limiter_adapters.crewai.crews import unlimited as unlimited
    from agent_rate_limiter_adapters.crewai.guard import BudgetGuard as BudgetGuard
    from agent_rate_limiter_adapters.crewai.llm import RateLimitedLLM as RateLimitedLLM
    from agent_rate_limiter_adapters.crewai.llm import restoring as restoring
    from agent_rate_limiter_adapters.crewai.prints import CostLines as CostLines

_MODULE = {
    "BudgetGuard": "guard",
    "CostLines": "prints",
    "RateLimitedLLM": "llm",
    "restoring": "llm",
    "unlimited": "crews",
}
__all__ = ["BudgetGuard", "CostLines", "RateLimitedLLM", "adapter", "restoring", "unlimited"]

if not TYPE_CHECKING:  # type checkers see the imports above, and so whether a name is there
    __getattr__, __dir__ = lazy(__name__, _MODULE, __all__)


def adapter(client: Any, limiter: RateLimiter | MultiProviderLimiter, **options: Any) -> Any:
    """Return a limited twin of a crew, an agent or an LLM; the original stays as it is.

    A crew's twin has copies of its agents and tasks: read results from what `kickoff` returns, or from `twin.tasks`.
    What calls a model past the limiter is logged, and named by `unlimited(twin)`.

    Args:
        client: a Crew, an Agent, or an LLM.
        limiter: whose limits.
        options: those of `RateLimitedLLM`: fallback_llms, priority, timeout, provider, labels.

    Raises:
        ConfigError: it is none of these, or its provider or model is not configured.
    """
    from crewai.agents.agent_builder.base_agent import BaseAgent
    from crewai.crew import Crew
    from crewai.llms.base_llm import BaseLLM

    from agent_rate_limiter import ConfigError
    from agent_rate_limiter_adapters.crewai.crews import limited_agent, limited_crew
    from agent_rate_limiter_adapters.crewai.llm import RateLimitedLLM
    from agent_rate_limiter_adapters.http import kind_of

    if isinstance(client, Crew):
        return limited_crew(client, limiter, options)
    if isinstance(client, BaseAgent):
        return limited_agent(client, limiter, options)
    if isinstance(client, BaseLLM):
        return RateLimitedLLM(client, limiter, **options)
    raise ConfigError(f"client is a {kind_of(client)}: give a Crew, an Agent or an LLM.")
