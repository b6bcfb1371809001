"""Limits for LlamaIndex: `limiter.wrap(llm)`, `limiter.wrap(embed_model)`, or `instrument(limiter)` for all at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from agent_rate_limiter import ConfigError
from agent_rate_limiter.lazy import lazy
from agent_rate_limiter_adapters.http import kind_of
from agent_rate_limiter_adapters.llamaindex.instrumentation import instrument, uninstrument
from agent_rate_limiter_adapters.llamaindex.limits import Limits
from agent_rate_limiter_adapters.llamaindex.twins import twin_of

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.base.llms.base import BaseLLM

    from agent_rate_limiter import MultiProviderLimiter, RateLimiter
    from agent_rate_limiter_adapters.llamaindex.fallback import FallbackLLM as FallbackLLM
    from agent_rate_limiter_adapters.llamaindex.processes import Make

L = TypeVar("L", bound="BaseLLM")
E = TypeVar("E", bound="BaseEmbedding")
M = TypeVar("M")
__all__ = ["FallbackLLM", "adapter", "instrument", "rate_limited", "rate_limited_embedding", "uninstrument"]

if not TYPE_CHECKING:  # what is made of LlamaIndex's own classes
    __getattr__, __dir__ = lazy(__name__, {"FallbackLLM": "fallback"}, __all__)


def rate_limited(
    llm: L,
    limiter: RateLimiter | MultiProviderLimiter,
    *,
    provider: str | None = None,
    priority: int | None = None,
    timeout: float | None = None,
    include_usage: bool = True,
    in_workers: Make | None = None,
) -> L:
    """Return a limited twin of an LLM, of the same class; the original stays as it is.

    All that is done with it is limited, once per request to the provider, and settled with what it used: chat,
    completions and streams, sync and async, predict, structured outputs, tools, and whatever agents, workflows, query
    engines and chat engines do with it. Where the LLM calls its provider by OpenAI's, Anthropic's or Google's SDK, its
    HTTP requests are limited, and response headers correct the limits; any other is limited call by call.

    Retries are the limiter's: the twin's `max_retries` is 0. A stream keeps the labels of the place where it was asked
    for; one that is never read costs nothing. Calls are labelled with LlamaIndex's `instrument_tags`, and with `run`,
    the workflow's run id.

    Args:
        llm: any LLM of LlamaIndex or a user's own; of a structured LLM, the one inside is limited.
        limiter: whose limits.
        provider: the name of the provider that its calls go to; None finds it by its address, else by its integration.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait; None waits for ever.
        include_usage: ask chat streams of OpenAI-like APIs to state their usage; where none is stated, the text is
            counted.
        in_workers: a function of a module, which makes the limiter of other processes that the model is pickled to (a
            pipeline's workers), on the same store; None lets it make no calls there.

    Raises:
        ConfigError: it is no LLM; no configured provider fits, or several do; or another limiter limits it already.
    """
    from llama_index.core.base.llms.base import BaseLLM
    from llama_index.core.llms.structured_llm import StructuredLLM

    _check("llm", llm, BaseLLM, "an LLM of LlamaIndex")
    limits = Limits(
        limiter,
        provider=provider,
        priority=priority,
        timeout=timeout,
        include_usage=include_usage,
        in_workers=in_workers,
    )
    if isinstance(llm, StructuredLLM):
        return llm.model_copy(update={"llm": twin_of(llm.llm, limits)})
    twin: L = twin_of(llm, limits)
    return twin


def rate_limited_embedding(
    embed_model: E,
    limiter: RateLimiter | MultiProviderLimiter,
    *,
    provider: str | None = None,
    priority: int | None = None,
    timeout: float | None = None,
    in_workers: Make | None = None,
) -> E:
    """Return a limited twin of an embedding model, of the same class; the original stays as it is.

    Every request is limited, batch by batch: what comes from its cache takes nothing. With `show_progress=True` an
    indexing run shows how long the limits will still take it.

    Args:
        embed_model: any embedding model of LlamaIndex or a user's own.
        limiter: whose limits.
        provider: the name of the provider that its calls go to; None finds it by its address, else by its integration.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a request may wait; None waits for ever.
        in_workers: a function of a module, which makes the limiter of other processes that the model is pickled to (a
            pipeline's workers), on the same store; None lets it make no calls there.

    Raises:
        ConfigError: it is none; no configured provider fits, or several do; or another limiter limits it already.
    """
    from llama_index.core.base.embeddings.base import BaseEmbedding

    _check("embed_model", embed_model, BaseEmbedding, "an embedding model of LlamaIndex")
    limits = Limits(limiter, provider=provider, priority=priority, timeout=timeout, in_workers=in_workers)
    twin: E = twin_of(embed_model, limits)
    return twin


def adapter(model: M, limiter: RateLimiter | MultiProviderLimiter, **options: Any) -> M:
    """Return a limited twin of an LLM or an embedding model: `limiter.wrap(model)`.

    Args:
        model: as in `rate_limited` or `rate_limited_embedding`.
        limiter: whose limits.
        options: theirs.

    Raises:
        ConfigError: it is neither; no configured provider fits, or several do; or another limiter limits it already.
    """
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.base.llms.base import BaseLLM

    _check("model", model, (BaseLLM, BaseEmbedding), "an LLM or an embedding model of LlamaIndex")
    limited: Any = rate_limited if isinstance(model, BaseLLM) else rate_limited_embedding
    twin: M = limited(model, limiter, **options)
    return twin


def _check(name: str, given: object, wanted: Any, words: str) -> None:
    if not isinstance(given, wanted):
        raise ConfigError(f"{name} is a {kind_of(given)}: give {words}.")
