"""A limiter for LangChain's own hook: `ChatOpenAI(rate_limiter=LimiterRateLimiter(limiter, "openai:gpt-4"))`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_core.rate_limiters import BaseRateLimiter

from agent_rate_limiter import Estimate, LimitExceeded, Target
from agent_rate_limiter.sending import check_terms

if TYPE_CHECKING:
    from agent_rate_limiter import Attempts, Reservation
    from agent_rate_limiter_adapters.http.targets import AnyLimiter


class LimiterRateLimiter(BaseRateLimiter):
    """Limits requests, and nothing else, through `rate_limiter=` of a chat model.

    LangChain does not tell this hook which call it is asked for, nor how that ends: tokens, dollars, calls at
    once, retries and refusals go unseen. Prefer `limiter.wrap(model)`, or a callback, and use only one of them.

    Args:
        limiter: whose limits.
        target: where the model's calls go, as `provider:model`.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait, then it is refused; None waits for ever.

    Raises:
        ConfigError: the target is not configured.
    """

    def __init__(
        self, limiter: AnyLimiter, target: str | Target, *, priority: int | None = None, timeout: float | None = None
    ) -> None:
        check_terms(limiter, priority=priority, timeout=timeout)
        asked = Target.parse(target)
        self.limiter = limiter
        self._target = limiter.target_for(asked.provider, asked.model)
        self._priority = priority
        self._timeout = timeout

    def acquire(self, *, blocking: bool = True) -> bool:
        """Count a request once it is admitted, blocking the thread; False if it would have to wait and may not."""
        try:
            return _counted(self._attempts(blocking=blocking).acquire())
        except LimitExceeded:
            if blocking:
                raise
            return False

    async def aacquire(self, *, blocking: bool = True) -> bool:
        """Count a request once it is admitted, letting the event loop run. As `acquire`."""
        try:
            return _counted(await self._attempts(blocking=blocking).acquire_async())
        except LimitExceeded:
            if blocking:
                raise
            return False

    def _attempts(self, *, blocking: bool) -> Attempts:
        timeout = self._timeout if blocking else 0
        return self.limiter.attempts(self._target, Estimate(), priority=self._priority, timeout=timeout)


def _counted(call: Reservation) -> bool:
    call.settle()
    return True
