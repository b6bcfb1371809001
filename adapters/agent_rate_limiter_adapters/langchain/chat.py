"""Chat models that stay what they are, and are limited: `rate_limited(ChatOpenAI(...), limiter)`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.language_models import BaseChatModel

from agent_rate_limiter import ConfigError, Reservation, Target
from agent_rate_limiter.sending import check_terms, send, send_async, stream, stream_async
from agent_rate_limiter_adapters.http import kind_of, like, stay
from agent_rate_limiter_adapters.langchain.sdk import switch_off_retries
from agent_rate_limiter_adapters.langchain.targets import Targets, chat_estimate, url_of
from agent_rate_limiter_adapters.langchain.usage import ChatMeter, usage_of_result

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import ChatResult

    from agent_rate_limiter import Attempts
    from agent_rate_limiter_adapters.http.targets import AnyLimiter

M = TypeVar("M", bound=BaseChatModel)


@dataclass(frozen=True)
class Terms:
    """On which terms a model's calls are limited.

    Args:
        limiter: whose limits.
        targets: which of them.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait; None waits for ever.
        include_usage: ask streams to state their usage, where the model has not decided.
        fallbacks: other models of its provider.
        takes_model: whether a call can name another model.
    """

    limiter: AnyLimiter
    targets: Targets
    priority: int | None
    timeout: float | None
    include_usage: bool
    fallbacks: tuple[Target, ...]
    takes_model: bool

    def begin(self, model: Any, messages: Sequence[BaseMessage], options: dict[str, Any]) -> tuple[Attempts, Target]:
        """Begin one call of a model; return where it is meant to go, too."""
        asked = {name: value for name, value in options.items() if name != "run_manager"}
        params = model._get_ls_params(**asked)  # noqa: SLF001 - what LangChain itself asks
        target = self.targets.find(params, url_of(model))
        estimate = chat_estimate(messages, params, {"n": getattr(model, "n", None), **asked})
        serves = (lambda other: other.provider == target.provider) if self.takes_model else None
        attempts = self.limiter.attempts(
            target,
            estimate,
            fallbacks=self.fallbacks,
            serves=serves,
            priority=self.priority,
            timeout=self.timeout,
        )
        return attempts, target

    def maker(self, base: Any, model: Any, messages: Any, args: Any, options: dict[str, Any]) -> tuple[Attempts, Any]:
        """Begin one call of a model; return what makes an attempt, too."""
        attempts, target = self.begin(model, messages, options)

        def make(call: Reservation) -> Any:
            elsewhere = {} if call.target == target else {"model": call.model}
            return base(model, messages, *args, **{**options, **elsewhere})

        return attempts, make


def rate_limited(
    model: M,
    limiter: AnyLimiter,
    *,
    target: str | Target | None = None,
    provider: str | None = None,
    priority: int | None = None,
    timeout: float | None = None,
    include_usage: bool = True,
    fallbacks: Iterable[str | Target] = (),
) -> M:
    """Return a limited twin of a chat model; the original stays as it is. Also `limiter.wrap(model)`.

    The twin is of the model's own class, and takes its place everywhere: bind_tools, with_structured_output,
    with_retry, with_fallbacks, `|`, batches, streams, events, create_agent, LangGraph. Each request waits until it is
    admitted, is tried again when its provider refuses it, and is settled with what it used; answers from a cache are
    free. The SDK's own retries are off in it. A limiter's error reaches the caller as it is.

    Args:
        model: any chat model of LangChain.
        limiter: whose limits.
        target: where all its calls go, as `provider:model`; None: as `provider` says, and the model that is called.
        provider: the provider that they go to; None finds it by the model's base URL, its kind or its name.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait; None waits for ever.
        include_usage: let OpenAI's streams state their usage, where the model does not say; their last chunk then has
            a `usage_metadata`.
        fallbacks: targets at the same provider that serve a call where this model cannot; those that are configured
            need not be named. For other providers there is FallbackChatModel.

    Raises:
        ConfigError: it is no chat model; or no configured provider fits it, or several do.
    """
    check_terms(limiter, priority=priority, timeout=timeout)
    if not isinstance(model, BaseChatModel):  # pyright: ignore[reportUnnecessaryIsInstance] - what users pass
        raise ConfigError(f"model is {_named(model)}: give a chat model of LangChain, such as ChatOpenAI(...).")
    targets = Targets(limiter, target=target, provider=provider)
    others = tuple(Target.parse(fallback) for fallback in fallbacks)
    terms = Terms(limiter, targets, priority, timeout, include_usage, others, _takes_model(model))
    _, usual = terms.begin(model, (), {})  # refuse now what could never be sent
    for other in others:
        if other.provider != usual.provider or not terms.takes_model:
            raise ConfigError(f"fallbacks hold {other}: this model cannot call it; use FallbackChatModel([...]).")
    twin = model.model_copy()
    twin.__class__ = limited_class(_class_of(model, limiter), terms)
    switch_off_retries(twin)
    return twin


def plain_copy(model: BaseChatModel, limiter: AnyLimiter) -> BaseChatModel:
    """Return a copy without limits, retries or silence about usage: for whoever sees to the limits."""
    copied = model.model_copy()
    copied.__class__ = _plain(_class_of(model, limiter), include_usage=True)
    switch_off_retries(copied)
    return copied


def is_limited_by(model: BaseChatModel, limiter: AnyLimiter) -> bool:
    """Whether it is a twin that this limiter limits."""
    return getattr(type(model), "_limited_by", None) is limiter


def limited_class(cls: type[M], terms: Terms) -> type[M]:
    """Return a subclass of a model's class whose calls are limited, and that looks like the class itself."""
    streams = {"_stream": _stream, "_astream": _astream} if can_stream(cls) else {}
    native = {"_stream_chat_model_events": _stream, "_astream_chat_model_events": _astream}
    wanted = {"_generate": _generate, "_agenerate": _agenerate, **streams}
    wanted |= {name: make for name, make in native.items() if getattr(cls, name, None) is not None}
    plain = _plain(cls, include_usage=terms.include_usage)
    fields = {
        name: wraps(getattr(cls, name))(make(getattr(plain, name), plain, terms)) for name, make in wanted.items()
    }
    limited: type[M] = like(cls, **fields, __init__=_init(cls), __reduce__=stay)
    limited._limited_by = terms.limiter  # type: ignore[attr-defined]  # noqa: SLF001 - pydantic would copy it for each model
    return limited


def _class_of(model: BaseChatModel, limiter: AnyLimiter) -> Any:
    """The model's own class: on other terms from now on, and not limited twice."""
    return type(model).__mro__[1] if is_limited_by(model, limiter) else type(model)


def _takes_model(model: Any) -> bool:
    """Azure has the model in the URL."""
    told = model._get_ls_params(model="another")  # noqa: SLF001 - what LangChain itself asks
    return told.get("ls_model_name") == "another" and getattr(model, "deployment_name", None) is None


def _plain(cls: Any, *, include_usage: bool) -> Any:
    return _asking_usage(cls) if include_usage and hasattr(cls, "_should_stream_usage") else cls


def can_stream(cls: type[BaseChatModel]) -> bool:
    """Whether a model's class streams by itself."""
    return any(getattr(cls, name) is not getattr(BaseChatModel, name) for name in ("_stream", "_astream"))


def _init(cls: Any) -> Any:
    """`configurable_fields` makes the model anew."""

    def init(self: Any, *args: Any, **fields: Any) -> None:
        cls.__init__(self, *args, **fields)
        switch_off_retries(self)

    return wraps(cls.__init__)(init)


def _asking_usage(cls: Any) -> Any:
    """The class with streams that state their usage unless told otherwise, as LangChain's do at OpenAI's own URL."""

    def decided(self: Any, stream_usage: bool | None = None, **options: Any) -> bool:  # noqa: FBT001 - as LangChain's
        told = (stream_usage, self.stream_usage, options.get("stream_options"), self.model_kwargs.get("stream_options"))
        silent = all(choice is None for choice in told)
        return silent or bool(cls._should_stream_usage(self, stream_usage, **options))

    return like(cls, _should_stream_usage=decided, __reduce__=stay)


def _view(model: Any, cls: Any) -> Any:
    """The same model, without the limits: for what the model calls of itself within a call."""
    view = cls.__new__(cls)
    for part in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
        object.__setattr__(view, part, getattr(model, part))
    return view


# ------------------------------------------------------------------ the overrides: sync and async differ in who awaits


def _generate(base: Any, plain: Any, terms: Terms) -> Any:
    def generate(self: Any, messages: list[BaseMessage], *args: Any, **options: Any) -> ChatResult:
        attempts, make = terms.maker(base, _view(self, plain), messages, args, options)
        result: ChatResult = send(attempts, make, usage_of_result)
        return result

    return generate


def _agenerate(base: Any, plain: Any, terms: Terms) -> Any:
    async def generate(self: Any, messages: list[BaseMessage], *args: Any, **options: Any) -> ChatResult:
        attempts, make = terms.maker(base, _view(self, plain), messages, args, options)
        result: ChatResult = await send_async(attempts, make, usage_of_result)
        return result

    return generate


def _stream(base: Any, plain: Any, terms: Terms) -> Any:
    def items(self: Any, messages: list[BaseMessage], *args: Any, **options: Any) -> Iterator[Any]:
        attempts, make = terms.maker(base, _view(self, plain), messages, args, options)
        return stream(attempts, make, ChatMeter)

    return items


def _astream(base: Any, plain: Any, terms: Terms) -> Any:
    async def items(self: Any, messages: list[BaseMessage], *args: Any, **options: Any) -> AsyncIterator[Any]:
        attempts, make = terms.maker(base, _view(self, plain), messages, args, options)
        async with aclosing(stream_async(attempts, make, ChatMeter)) as chunks:
            async for chunk in chunks:
                yield chunk

    return items


def _named(thing: object) -> str:
    if type(thing).__name__ == "_ConfigurableModel":
        return "what init_chat_model() returns when no model is named: there is no model in it yet"
    return f"a {kind_of(thing)}"
