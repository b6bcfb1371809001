"""Limits for Runnables that are no chat models: completions, and chains whose target is declared."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.load import dumps
from langchain_core.runnables import Runnable
from langchain_core.runnables.config import merge_configs
from pydantic import BaseModel

from agent_rate_limiter import ConfigError, Estimate, Usage
from agent_rate_limiter.providers import dialect, read_usage
from agent_rate_limiter.sending import check_terms, send, send_async, stream, stream_async
from agent_rate_limiter_adapters.http import kind_of
from agent_rate_limiter_adapters.langchain.chat import rate_limited
from agent_rate_limiter_adapters.langchain.sdk import switch_off_retries
from agent_rate_limiter_adapters.langchain.targets import Targets, text_estimate, url_of
from agent_rate_limiter_adapters.langchain.usage import counted_elsewhere, total_usage, usage_of_run

if TYPE_CHECKING:
    from langchain_core.outputs import LLMResult
    from langchain_core.runnables import RunnableConfig

    from agent_rate_limiter import Attempts, Target
    from agent_rate_limiter_adapters.http.targets import AnyLimiter

R = TypeVar("R", bound="Runnable[Any, Any]")


class RateLimitedRunnable(Runnable[Any, Any]):
    """A Runnable of which each invocation is one limited call: waited for, tried again, settled with what it used.

    For completion models (`OpenAI`, not `ChatOpenAI`), and for chains or functions that call a model in a way of their
    own. What it used is what the models inside state, or what its result does; else its estimate is charged. Models
    that are limited themselves need none of this: `limiter.wrap(chain)` limits those that it finds in a chain.

    Args:
        runnable: what is called.
        limiter: whose limits.
        target: where its calls go, as `provider:model`; needed unless it is a completion model.
        provider: the provider that a completion model's calls go to; None finds it.
        estimate: what each call is expected to use, or a function of the input that says so; None counts the tokens
            of its texts.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait; None waits for ever.

    Raises:
        ConfigError: it is no Runnable; or its target is missing or not configured.
    """

    def __init__(
        self,
        runnable: Runnable[Any, Any],
        limiter: AnyLimiter,
        *,
        target: str | Target | None = None,
        provider: str | None = None,
        estimate: Estimate | Callable[[Any], Estimate] | None = None,
        priority: int | None = None,
        timeout: float | None = None,
    ) -> None:
        check_terms(limiter, priority=priority, timeout=timeout)
        if not isinstance(runnable, Runnable):  # pyright: ignore[reportUnnecessaryIsInstance] - what users pass
            raise ConfigError(f"runnable is {runnable!r}: give a Runnable of LangChain.")
        if target is None and not isinstance(runnable, BaseLLM):
            kind = type(runnable).__name__
            raise ConfigError(f"target is None: say where the calls of a {kind} go, as target='provider:model'.")
        self.bound = _patient(runnable)
        self.limiter = limiter
        self._targets = Targets(limiter, target=target, provider=provider)
        self._estimate = estimate
        self._priority = priority
        self._timeout = timeout
        self._attempts("", {})  # refuse now what could never be sent

    @property
    def InputType(self) -> Any:  # noqa: N802 - LangChain's name
        """What the Runnable takes."""
        return self.bound.InputType

    @property
    def OutputType(self) -> Any:  # noqa: N802 - LangChain's name
        """What the Runnable gives."""
        return self.bound.OutputType

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        """The Runnable's own name."""
        return self.bound.get_name(suffix, name=name)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002 - LangChain's name
        """Call it once it is admitted, blocking the thread."""
        seen = _Seen()
        attempts = self._attempts(input, kwargs)
        return send(attempts, lambda _: self.bound.invoke(input, seen.beside(config), **kwargs), seen.of)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002 - as above
        """Call it once it is admitted, letting the event loop run."""
        seen = _Seen()
        attempts = self._attempts(input, kwargs)
        return await send_async(attempts, lambda _: self.bound.ainvoke(input, seen.beside(config), **kwargs), seen.of)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:  # noqa: A002 - as above
        """Stream it once it is admitted; tried again until the first chunk has come."""
        seen = _Seen()
        attempts = self._attempts(input, kwargs)
        yield from stream(attempts, lambda _: self.bound.stream(input, seen.beside(config), **kwargs), seen.again)

    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:  # noqa: A002 - as above
        """Stream it once it is admitted, letting the event loop run."""
        seen = _Seen()
        attempts = self._attempts(input, kwargs)
        source = stream_async(attempts, lambda _: self.bound.astream(input, seen.beside(config), **kwargs), seen.again)
        async with aclosing(source) as chunks:
            async for chunk in chunks:
                yield chunk

    def _attempts(self, given: Any, options: Mapping[str, Any]) -> Attempts:
        model: Any = self.bound
        params: Mapping[str, Any] = {}
        if isinstance(model, BaseLLM):
            params = model._get_ls_params(**options)  # noqa: SLF001 - what LangChain itself asks
        target = self._targets.find(params, url_of(model))
        estimate = self._estimate(given) if callable(self._estimate) else self._estimate
        if estimate is None:
            known = {"max_tokens": params.get("ls_max_tokens"), "n": getattr(model, "n", None)}
            estimate = text_estimate(target.provider, [_text(given)], {**known, **options})
        return self.limiter.attempts(target, estimate, priority=self._priority, timeout=self._timeout)


class _Seen(BaseCallbackHandler):
    """Sees what the models inside one invocation use.

    It does not run inline: beside a handler that does, LangChain tells the others nothing of a completion's start.
    """

    final = False

    def __init__(self) -> None:
        super().__init__()
        self._usages: list[Usage] = []
        self._reader = dialect("generic").reader()
        self._last: Any = None

    def beside(self, config: RunnableConfig | None) -> RunnableConfig:
        """The user's configuration, with this as one more handler."""
        return merge_configs(config, {"callbacks": [self]})

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        """Note what a model has used."""
        usage = None if counted_elsewhere(response) else usage_of_run(response)
        if usage is not None:
            self._usages.append(usage)

    def of(self, result: Any) -> Usage | None:
        """What a call used, now that its result is there."""
        return total_usage(self._usages) or read_usage(result)

    def again(self) -> _Seen:
        """A stream is begun, or begun anew."""
        self.__init__()  # type: ignore[misc]
        return self

    def feed(self, item: Any) -> None:
        """Note a chunk of the stream."""
        self._last = item
        text = item if isinstance(item, str) else getattr(item, "text", "")
        self._reader.feed({"delta": {"content": str(text)}})

    def usage(self, *, whole: bool) -> Usage | None:
        """What a stream used."""
        return self.of(self._last) if whole else self._reader.usage


def limited_chain(runnable: R, limiter: AnyLimiter, **options: Any) -> R:
    """Return the chain with every model in it limited; the original stays as it is.

    Args:
        runnable: a chain of LangChain's own parts: sequences, parallels, branches, bindings, fallbacks, retries.
        limiter: whose limits.
        options: as `rate_limited` takes them.

    Raises:
        ConfigError: there is no model in it, as far as can be seen.
    """
    limited: R = _swapped(runnable, limiter, options)
    if limited is runnable:
        if type(runnable).__name__ == "_ConfigurableModel":
            raise ConfigError(
                "client is what init_chat_model() returns where fields are configurable: it makes a model for each "
                "call. Name the model and no fields, give RateLimitCallbackHandler(limiter) as a callback, or give an "
                "agent RateLimitMiddleware(limiter)."
            )
        raise ConfigError(
            f"client is a {kind_of(runnable)} in which no model can be seen: wrap the model before "
            "you build it (limiter.wrap(model)), give an agent RateLimitMiddleware(limiter), or say where its calls "
            "go, as target='provider:model'."
        )
    return limited


def _swapped(part: Any, limiter: AnyLimiter, options: dict[str, Any]) -> Any:
    """The same, where there is no model in it."""
    if isinstance(part, BaseChatModel):
        return rate_limited(part, limiter, **options)
    if isinstance(part, BaseLLM):
        return RateLimitedRunnable(part, limiter, **options)
    if isinstance(part, (list, tuple)):
        items: list[Any] = [_swapped(item, limiter, options) for item in part]  # pyright: ignore[reportUnknownVariableType]
        changed = any(new is not old for new, old in zip(items, part, strict=True))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        return type(part)(items) if changed else part  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(part, dict):
        values: dict[Any, Any] = {name: _swapped(value, limiter, options) for name, value in part.items()}  # pyright: ignore[reportUnknownVariableType]
        return values if any(values[name] is not part[name] for name in values) else part  # pyright: ignore[reportUnknownVariableType]
    if isinstance(part, Runnable) and isinstance(part, BaseModel):
        fields = {name: getattr(part, name) for name in type(part).model_fields}
        new = {name: _swapped(value, limiter, options) for name, value in fields.items()}
        update = {name: value for name, value in new.items() if value is not fields[name]}
        return part.model_copy(update=update) if update else part  # pyright: ignore[reportUnknownVariableType]
    return part  # pyright: ignore[reportUnknownVariableType]


def _patient(runnable: Runnable[Any, Any]) -> Runnable[Any, Any]:
    if not isinstance(runnable, BaseLLM):
        return runnable
    twin = runnable.model_copy()
    switch_off_retries(twin)
    return twin


def _text(given: Any) -> str:
    """All text in an input: prompts, messages, a chain's variables."""
    if isinstance(given, str):
        return given
    to_string = getattr(given, "to_string", None)
    return str(to_string() if to_string else dumps(given))
