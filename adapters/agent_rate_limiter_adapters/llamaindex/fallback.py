"""`FallbackLLM`: several LLMs in one, of any providers, each under its own limits."""

# Its endpoints are made, as those of limited twins are, and so are attributes to a type checker.
# mypy: disable-error-code="assignment"
# pyright: reportAssignmentType=false, reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM
from pydantic import PrivateAttr, SerializeAsAny

from agent_rate_limiter import ConfigError
from agent_rate_limiter_adapters.llamaindex.endpoints import Method, Through, both
from agent_rate_limiter_adapters.llamaindex.limits import CLIENTS, Call, Limits
from agent_rate_limiter_adapters.llamaindex.processes import Make, limiter_named, name_of
from agent_rate_limiter_adapters.llamaindex.targets import kind_of
from agent_rate_limiter_adapters.llamaindex.twins import limits_of, unlimit

if TYPE_CHECKING:
    from llama_index.core.base.llms.types import LLMMetadata

    from agent_rate_limiter import MultiProviderLimiter, RateLimiter, Reservation, Target


class Counted:
    """In place of a rate limiter: the LLM's calls are counted by the `FallbackLLM` that it is in."""

    def acquire(self, num_tokens: int = 0) -> None:
        """Let it pass."""

    async def async_acquire(self, num_tokens: int = 0) -> None:
        """Let it pass."""


def _through(name: str) -> Through:
    """Go through the LLM whose target was taken."""

    def method(self: FallbackLLM, taken: Reservation | None) -> Method:
        llm = self.llms[0] if taken is None else self._ways[taken.target]
        return lambda *args, **kwargs: self._noted(llm, getattr(llm, name)(*args, **kwargs))

    return method


def _first(begin: Any) -> Any:
    """Begin a call as the first LLM's."""

    def begun(limits: Limits, self: FallbackLLM, *args: Any, **kwargs: Any) -> Call:
        call: Call = begin(limits, self.llms[0], *args, **kwargs)
        return call

    return begun


class FallbackLLM(FunctionCallingLLM):
    """Several LLMs in one: a call goes to the first that can serve it.

    An LLM is passed over while its target's limits or budget are exhausted, after it has failed in a way that others
    need not share, and while its circuit breaker is open; when none can serve a call, it waits for the one that is
    free first. A stream falls back until its first piece. Each attempt is one reservation at the LLM's own target.

    Args:
        llms: any LLMs of LlamaIndex, in order of preference; a limited twin brings its `provider` along. Retries are
            the limiter's, not theirs.
        limiter: whose limits.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait, all attempts together; None waits for ever.
        include_usage: ask chat streams of OpenAI's integrations to state their usage; else their text is counted.
        in_workers: as for `rate_limited`.

    Raises:
        ConfigError: there are no LLMs, two have the same target, or one's provider or model is not configured. Calls
            raise AllTargetsFailed when all have failed.
    """

    llms: list[SerializeAsAny[LLM]]
    _limits: Limits = PrivateAttr()
    _ways: dict[Any, Any] = PrivateAttr()
    _served: dict[int, Any] = PrivateAttr(default_factory=dict[int, Any])

    def __init__(
        self,
        llms: Sequence[LLM],
        limiter: RateLimiter | MultiProviderLimiter,
        *,
        priority: int | None = None,
        timeout: float | None = None,
        include_usage: bool = True,
        in_workers: Make | None = None,
    ) -> None:
        if not llms or not all(isinstance(llm, LLM) for llm in llms):
            raise ConfigError(f"llms is {llms!r}: give a list of LLMs, at least one.")
        terms: dict[str, Any] = {"priority": priority, "timeout": timeout, "include_usage": include_usage}
        terms["in_workers"] = in_workers
        several = [_named(llm, limiter, terms) for llm in llms]
        super().__init__(llms=[_alone(llm, include_usage=include_usage) for llm in llms])
        targets: list[Target] = [limits.place(llm).target for limits, llm in zip(several, self.llms, strict=True)]
        self._ways = dict(zip(targets, self.llms, strict=True))
        if len(self._ways) < len(targets):
            raise ConfigError(f"llms go to {', '.join(map(str, targets))}: give each a target of its own.")
        self._limits = several[0]
        self._limits.fallbacks = tuple(targets[1:])

    @classmethod
    def class_name(cls) -> str:
        """Its name in LlamaIndex."""
        return "FallbackLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What all of them can do; the rest as the first says."""
        each = [llm.metadata for llm in self.llms]
        return each[0].model_copy(
            update={
                "context_window": min(one.context_window for one in each),
                "is_chat_model": all(one.is_chat_model for one in each),
                "is_function_calling_model": all(one.is_function_calling_model for one in each),
            }
        )

    chat, achat = both("chat", _through, _first(Limits.chat))
    complete, acomplete = both("complete", _through, _first(Limits.completion))
    stream_chat, astream_chat = both("stream_chat", _through, _first(Limits.chat))
    stream_complete, astream_complete = both("stream_complete", _through, _first(Limits.completion))
    chat_with_tools, achat_with_tools = both("chat_with_tools", _through, _first(Limits.chat_with_tools))
    stream_chat_with_tools, astream_chat_with_tools = both(
        "stream_chat_with_tools", _through, _first(Limits.chat_with_tools)
    )

    def get_tool_calls_from_response(self, response: Any, *args: Any, **kwargs: Any) -> list[Any]:
        """Read a response as the LLM does that gave it."""
        _, llm = self._served.get(id(response), (None, self.llms[0]))
        calls: list[Any] = llm.get_tool_calls_from_response(response, *args, **kwargs)
        return calls

    def _prepare_chat_with_tools(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        first: Any = self.llms[0]
        prepared: dict[str, Any] = first._prepare_chat_with_tools(*args, **kwargs)  # noqa: SLF001 - its own interface
        return prepared

    def _noted(self, llm: Any, result: Any) -> Any:
        """Remember which LLM gave a response, or each piece of a stream."""
        if isinstance(result, Awaitable):
            return self._noted_later(llm, result)
        if isinstance(result, Iterator):
            return self._each_noted(llm, result)
        if isinstance(result, AsyncIterator):
            return self._each_noted_async(llm, result)
        key = id(result)
        self._served[key] = (weakref.ref(result, lambda _: self._served.pop(key, None)), llm)
        return result

    async def _noted_later(self, llm: Any, result: Awaitable[Any]) -> Any:
        return self._noted(llm, await result)

    def _each_noted(self, llm: Any, items: Iterator[Any]) -> Generator[Any, None, None]:
        for item in items:
            yield self._noted(llm, item)

    async def _each_noted_async(self, llm: Any, items: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        async for item in items:
            yield self._noted(llm, item)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the LLMs, and which limiter limits them."""
        terms = {name: self._limits.options[name] for name in ("priority", "timeout", "include_usage")}
        terms["in_workers"] = self._limits.in_workers
        return _restored, (self.llms, name_of(self._limits.limiter), terms)


def _restored(llms: list[LLM], name: str, terms: dict[str, Any]) -> FallbackLLM:
    return FallbackLLM(llms, limiter_named(name, terms["in_workers"], "FallbackLLM"), **terms)


def _named(llm: Any, limiter: RateLimiter | MultiProviderLimiter, terms: dict[str, Any]) -> Limits:
    """The terms of one LLM's calls, to the provider that its twin was told."""
    limits = limits_of(llm)
    return Limits(limiter, provider=None if limits is None else limits.options["provider"], **terms)


def _alone(llm: LLM, *, include_usage: bool) -> Any:
    """A copy of an LLM that neither limits nor retries by itself."""
    copy: Any = llm.model_copy()
    unlimit(copy)
    copy.rate_limiter = Counted()
    private = copy.__pydantic_private__ or {}
    for name in CLIENTS:
        client: Any = private.get(name)
        if hasattr(client, "with_options"):
            private[name] = client.with_options(max_retries=0)
    if "max_retries" in copy.__dict__:
        copy.__dict__["max_retries"] = 0
    if (
        include_usage
        and kind_of(copy) == "openai"
        and hasattr(copy, "_get_model_kwargs")
        and "responses" not in copy.class_name()
    ):
        streams = {"stream_options": {"include_usage": True}}
        copy.__dict__["additional_kwargs"] = {**streams, **copy.additional_kwargs}
    return copy
