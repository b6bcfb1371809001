"""`RateLimitedLLM`: an LLM of CrewAI whose every call is limited, retried and accounted for."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

from crewai.llms.base_llm import BaseLLM
from crewai.utilities.llm_utils import create_llm

from agent_rate_limiter import ConfigError
from agent_rate_limiter.sending import check_terms
from agent_rate_limiter_adapters.crewai.calls import Call, asked_of, current, heard
from agent_rate_limiter_adapters.crewai.terms import Terms, estimate
from agent_rate_limiter_adapters.crewai.twins import clone, rebuilding, twin_of
from agent_rate_limiter_adapters.http import kind_of

if TYPE_CHECKING:
    from typing_extensions import Self

    from agent_rate_limiter import MultiProviderLimiter, RateLimiter

    Base = BaseLLM
else:
    Base = object  # the twin's class has the LLM's own class beside this one, and so every field of it

_counting = Lock()


class RateLimitedLLM(Base):
    """A limited twin of an LLM, of the same class and with the same settings; the original stays as it is.

    ```python
    llm = RateLimitedLLM(LLM(model="gpt-4o"), limiter, fallback_llms=[LLM(model="anthropic/claude-opus-4")])
    agent = Agent(role="Researcher", ..., llm=llm)
    ```

    Each call waits for its turn, is retried by the limiter alone (CrewAI's and the SDK's own retries are off), and is
    charged with what it used. It carries the labels `crew`, `agent` and `task`. What the limiter refuses, or what
    fails for good, ends the task at once: agents do not repeat it, and their tools do not run twice.

    Args:
        llm: any LLM of CrewAI, your own subclasses of BaseLLM included, or the name of a model.
        limiter: whose limits.
        fallback_llms: who serves a call when this one cannot, in order.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait, besides the agent's `max_execution_time`; None waits for ever.
        provider: the name of the provider that calls go to; None finds it by the LLM's base_url, else by its provider.
        labels: who calls, where CrewAI does not say.

    Raises:
        ConfigError: it is no LLM, or its provider or model is not configured.
    """

    def __new__(cls, llm: Any = None, *_: Any, **__: Any) -> Self:
        """Make the twin; `__init__` sets its terms."""
        if cls is not RateLimitedLLM:
            return object.__new__(cls)  # pydantic makes copies so
        twin: Self = twin_of(_an_llm(llm), cls)
        return twin

    def __init__(
        self,
        llm: BaseLLM | str,
        limiter: RateLimiter | MultiProviderLimiter,
        *,
        fallback_llms: Sequence[BaseLLM | str] = (),
        priority: int | None = None,
        timeout: float | None = None,
        provider: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        del llm
        check_terms(limiter, priority=priority, timeout=timeout)
        fallbacks = tuple(RateLimitedLLM(fallback, limiter) for fallback in fallback_llms)
        who = tuple(sorted((labels or {}).items()))
        self._terms = Terms(limiter, provider, priority, timeout, fallbacks, who)
        self._terms.targets(self)  # refuse now what could never be sent

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Ask the LLM, as its own `call`, when the limits admit it.

        Raises:
            RateLimiterError: it is refused, or has failed for good; a `HookAborted` too.
        """
        asked = _named(_plain(self).call, args, kwargs)
        call = Call(self, self._terms, asked)
        while True:
            with call.attempt(call.acquire()) as llm, asked_of(self, llm):
                return heard(_plain(llm).call(**asked))

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """Ask the LLM, letting the event loop run. As `call`."""
        asked = _named(_plain(self).acall, args, kwargs)
        call = Call(self, self._terms, asked)
        while True:
            with call.attempt(await call.acquire_async()) as llm, asked_of(self, llm):
                return heard(await _plain(llm).acall(**asked))

    def get_input_tokens_count(self, messages: Any, tools: Any = None, response_model: Any = None) -> int:
        """Estimate the tokens here; most LLMs would ask their provider, which is a request more for every call."""
        return estimate(self, messages, tools, response_model).input_tokens

    def _track_token_usage_internal(self, usage_data: Any) -> None:
        """CrewAI tells what an answer used, on the thread and in the context of the call."""
        attempt = current.get()
        with _counting:
            super()._track_token_usage_internal(usage_data)
            if attempt is not None and attempt.llm is not self:  # this is a fallback: its crew counts the other one
                BaseLLM._track_token_usage_internal(attempt.llm, usage_data)
        if attempt is not None:
            attempt.note(usage_data)

    def _emit_stream_chunk_event(self, *args: Any, **kwargs: Any) -> None:
        """CrewAI shows a piece of an answer: from now on the call cannot be sent again."""
        attempt = current.get()
        if attempt is not None:
            attempt.shown = True
        super()._emit_stream_chunk_event(*args, **kwargs)

    def _invoke_before_llm_call_hooks(self, messages: Any, from_agent: Any = None) -> bool:
        """CrewAI is about to ask the provider; outside of a call, with a client of its own that nobody can see into.

        Its Instructor does that (`output_json`). All that can be done is to wait, and to charge the estimate.
        """
        if current.get() is None:
            Call(self, self._terms, {"messages": messages, "from_agent": from_agent}).acquire().settle()
        return super()._invoke_before_llm_call_hooks(messages, from_agent)

    def __copy__(self) -> Self:
        """Return a twin under the same limits, with settings and a token counter of its own."""
        twin: Self = clone(self, type(self))
        return twin

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a copy whose settings are copies too; connections and the limiter stay shared."""
        twin: Self = clone(self, type(self))
        object.__setattr__(twin, "__dict__", copy.deepcopy(self.__dict__, memo))
        return twin


@contextmanager
def restoring(limiter: RateLimiter | MultiProviderLimiter, **options: Any) -> Generator[None]:
    """Put limited LLMs that are restored from a checkpoint in the block under this limiter.

    Args:
        limiter: whose limits.
        options: those of `RateLimitedLLM`.
    """
    with rebuilding(lambda plain: RateLimitedLLM(plain, limiter, **options)):
        yield


def _plain(llm: RateLimitedLLM) -> Any:
    """The LLM as it was before it was limited."""
    return super(RateLimitedLLM, llm)


def _an_llm(value: Any) -> BaseLLM:
    llm = create_llm(value) if isinstance(value, str) else value
    if not isinstance(llm, BaseLLM):
        raise ConfigError(f"llm is a {kind_of(value)}: give an LLM of CrewAI, or the name of a model.")
    return llm


def _named(method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name; a TypeError where the method does not take them, before anything is reserved."""
    signature = inspect.signature(method)
    bound = dict(signature.bind(*args, **kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            bound |= bound.pop(name, {})
    return bound
