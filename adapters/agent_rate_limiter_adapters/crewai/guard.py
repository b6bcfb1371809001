"""`BudgetGuard`: no model call begins that a budget has no room for, whoever makes it."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from crewai.hooks.dispatch import InterceptionPoint, register, unregister

from agent_rate_limiter import BudgetExceeded, ConfigError, Explanation, MultiProviderLimiter, Resource
from agent_rate_limiter_adapters.crewai.errors import refusal
from agent_rate_limiter_adapters.crewai.llm import RateLimitedLLM
from agent_rate_limiter_adapters.crewai.terms import Terms, estimate, labels

if TYPE_CHECKING:
    from typing_extensions import Self

    from agent_rate_limiter import RateLimiter

_POINT = InterceptionPoint.PRE_MODEL_CALL


class BudgetGuard:
    """Denies model calls of LLMs that are not limited, once a budget of the limiter has no room for them.

    ```python
    with BudgetGuard(limiter):
        crew.kickoff()
    ```

    It only denies: such calls are neither delayed nor charged. Limited LLMs pass, as they wait and are refused by
    themselves. A denied call ends its task at once with a `BudgetExceeded`.

    Args:
        limiter: with the budgets.
        provider: the name of the provider that calls go to; None finds it by the LLM's base_url, else by its provider.
    """

    def __init__(self, limiter: RateLimiter | MultiProviderLimiter, *, provider: str | None = None) -> None:
        self._terms = Terms(limiter, provider)

    def __call__(self, context: Any) -> None:
        """Look at a call that CrewAI is about to make.

        Raises:
            BudgetExceeded: a budget has no room for it; a `HookAborted` too.
        """
        if isinstance(context.llm, RateLimitedLLM):
            return
        try:
            target = self._terms.target(context.llm)
        except ConfigError:  # of a provider that the limiter has no budget for
            return
        with self._terms.scope(labels({}, context.agent, context.task)):
            decision = self._explain(target, estimate(context.llm, context.messages)).decision
        if not decision and decision.limit is not None and decision.limit.resource is Resource.COST:
            raise refusal(BudgetExceeded(decision))

    def _explain(self, target: Any, size: Any) -> Explanation:
        limiter = self._terms.limiter
        return limiter.explain(target, size) if isinstance(limiter, MultiProviderLimiter) else limiter.explain(size)

    def install(self) -> None:
        """Look at all calls from now on."""
        register(_POINT, self)

    def remove(self) -> None:
        """Look away again."""
        unregister(_POINT, self)

    def __enter__(self) -> Self:
        """Install it for the block."""
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove it."""
        self.remove()
