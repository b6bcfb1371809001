"""Limits for LangChain: `limiter.wrap(ChatOpenAI())`, callbacks, agent middleware. Needs the extra `langchain`.

Each name is imported when it is first used, and LangChain with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from agent_rate_limiter import ConfigError
from agent_rate_limiter.lazy import lazy

if TYPE_CHECKING:
    from agent_rate_limiter_adapters.http.targets import AnyLimiter
    from agent_rate_limiter_adapters.langchain.callbacks import (
        AsyncRateLimitCallbackHandler as AsyncRateLimitCallbackHandler,
    )
    from agent_rate_limiter_adapters.langchain.callbacks import RateLimitCallbackHandler as RateLimitCallbackHandler
    from agent_rate_limiter_adapters.langchain.callbacks import get_rate_limit_callback as get_rate_limit_callback
    from agent_rate_limiter_adapters.langchain.chat import rate_limited as rate_limited
    from agent_rate_limiter_adapters.langchain.embeddings import RateLimitedEmbeddings as RateLimitedEmbeddings
    from agent_rate_limiter_adapters.langchain.fallback import FallbackChatModel as FallbackChatModel
    from agent_rate_limiter_adapters.langchain.middleware import AgentBudgetExceeded as AgentBudgetExceeded
    from agent_rate_limiter_adapters.langchain.middleware import RateLimitMiddleware as RateLimitMiddleware
    from agent_rate_limiter_adapters.langchain.rate_limiter import LimiterRateLimiter as LimiterRateLimiter
    from agent_rate_limiter_adapters.langchain.runnables import RateLimitedRunnable as RateLimitedRunnable
    from agent_rate_limiter_adapters.langchain.tools import budget_tool as budget_tool

T = TypeVar("T")
_MODULE = {
    "AgentBudgetExceeded": "middleware",
    "AsyncRateLimitCallbackHandler": "callbacks",
    "FallbackChatModel": "fallback",
    "LimiterRateLimiter": "rate_limiter",
    "RateLimitCallbackHandler": "callbacks",
    "RateLimitMiddleware": "middleware",
    "RateLimitedEmbeddings": "embeddings",
    "RateLimitedRunnable": "runnables",
    "budget_tool": "tools",
    "get_rate_limit_callback": "callbacks",
    "rate_limited": "chat",
}
__all__ = [*sorted(_MODULE), "adapter"]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]

if not TYPE_CHECKING:  # type checkers see the imports above, and so whether a name is there
    __getattr__, __dir__ = lazy(__name__, _MODULE, __all__)


def adapter(client: T, limiter: AnyLimiter, **options: Any) -> T:
    """Return a limited twin of a chat model, embeddings, a completion model or a chain; the original stays as it is.

    Args:
        client: a chat model stays of its class (see `rate_limited`); of a chain, all models in it are limited, or with
            a declared `target` the chain as a whole (see RateLimitedRunnable).
        limiter: whose limits.
        options: `target`, `provider`, `priority`, `timeout`, and what each of those takes besides.

    Raises:
        ConfigError: there is nothing in it that could be limited; or no configured provider fits.
    """
    from langchain_core.embeddings import Embeddings
    from langchain_core.language_models import BaseChatModel, BaseLLM
    from langchain_core.runnables import Runnable

    from agent_rate_limiter_adapters.http import kind_of
    from agent_rate_limiter_adapters.langchain import chat, embeddings, runnables

    limited: Any  # a chat model is of its class; an embeddings or a completion is not quite
    if isinstance(client, BaseChatModel):
        limited = chat.rate_limited(client, limiter, **options)
    elif isinstance(client, Embeddings):
        limited = embeddings.RateLimitedEmbeddings(client, limiter, **options)
    elif isinstance(client, BaseLLM) or (isinstance(client, Runnable) and options.get("target") is not None):
        limited = runnables.RateLimitedRunnable(client, limiter, **options)
    elif isinstance(client, Runnable):
        limited = runnables.limited_chain(client, limiter, **options)
    else:
        raise ConfigError(f"client is a {kind_of(client)}: give a model, embeddings or a Runnable of LangChain.")
    twin: T = limited
    return twin
