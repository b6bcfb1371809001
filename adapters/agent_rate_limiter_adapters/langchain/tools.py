"""A tool that lets an agent see what it may still spend, and how long it would wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.tools import StructuredTool

from agent_rate_limiter import Estimate, RateLimiter, Target
from agent_rate_limiter.sending import check_terms

if TYPE_CHECKING:
    from agent_rate_limiter import Advice
    from agent_rate_limiter_adapters.http.targets import AnyLimiter

DESCRIPTION = (
    "Look up how many dollars you may still spend, and how many seconds your next model call would have to wait. "
    "Ask before expensive or many steps, and plan with the answer."
)


def budget_tool(
    limiter: AnyLimiter,
    target: str | Target | None = None,
    *,
    name: str = "check_budget",
    description: str = DESCRIPTION,
) -> StructuredTool:
    """Return a tool that tells `limiter.advice(...)`; it is a Runnable, too.

    Called within an agent with RateLimitMiddleware, or within `limiter.scope(budget=...)`, it sees that budget.

    Args:
        limiter: whose limits.
        target: where the agent's calls go, as `provider:model`; a RateLimiter needs none.
        name: what the model calls it.
        description: what the model reads about it.

    Raises:
        ConfigError: the target is missing or not configured.
    """
    check_terms(limiter)

    def advice(input_tokens: int = 0, max_output_tokens: int = 0) -> Advice:
        estimate = Estimate(input_tokens=input_tokens, max_output_tokens=max_output_tokens)
        return limiter.advice(estimate) if isinstance(limiter, RateLimiter) else limiter.advice(target or "", estimate)

    advice()  # refuse now what could never be told

    def check_budget(input_tokens: int = 0, max_output_tokens: int = 0) -> dict[str, Any]:
        """Tell what may be spent.

        Args:
            input_tokens: of the call that is planned.
            max_output_tokens: of the call that is planned.
        """
        return advice(max(0, input_tokens), max(0, max_output_tokens)).to_dict()

    return StructuredTool.from_function(check_budget, name=name, description=description)
