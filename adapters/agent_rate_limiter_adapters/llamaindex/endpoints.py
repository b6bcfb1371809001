"""The eight endpoints of a limited LLM."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import Context, ContextVar, copy_context
from inspect import getattr_static
from typing import Any

from agent_rate_limiter.sending import send, send_async, stream, stream_async
from agent_rate_limiter_adapters.llamaindex.contexts import Within, flattened, reading, reading_async
from agent_rate_limiter_adapters.llamaindex.labels import labels
from agent_rate_limiter_adapters.llamaindex.limits import Call, Limits

_SYNC = ("chat", "complete", "stream_chat", "stream_complete")
Method = Callable[..., Any]
Begin = Callable[..., Call]
"""Begins a call with the arguments of its method."""

_models: ContextVar[tuple[int, ...]] = ContextVar("agent_rate_limiter_llamaindex_models", default=())
"""The models in whose calls this is: what an endpoint makes of another one of the same model is the same call."""


def overrides(cls: type, *, by_sdk: bool) -> dict[str, Method]:
    """Return the endpoints of a class's limited subclass.

    Args:
        cls: the LLM's.
        by_sdk: whether its SDK's requests are limited; then its endpoints only keep streams in their contexts.
    """
    if by_sdk:
        methods = {name: _kept(getattr_static(cls, name)) for name in _SYNC if "stream" in name}
        return {**methods, **{f"a{name}": _kept_async(getattr_static(cls, f"a{name}")) for name in methods}}
    limited: dict[str, Method] = {}
    for name in _SYNC:
        begin = Limits.chat if name.endswith("chat") else Limits.completion
        sync, asynchronous = (_stream, _stream_async) if "stream" in name else (whole, whole_async)
        limited[name] = sync(getattr_static(cls, name), begin)
        limited[f"a{name}"] = asynchronous(getattr_static(cls, f"a{name}"), begin)
    return limited


def whole(base: Any, begin: Begin) -> Method:
    """Return a method that limits one which returns its response in one piece."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        make = base.__get__(self)
        context = _own_context(self)
        if context is None:
            return make(*args, **kwargs)
        call = begin(self._limits, self, *args, **kwargs)
        return context.run(send, call.attempts, lambda _: make(*args, **kwargs), call.usage)

    return method


def whole_async(base: Any, begin: Begin) -> Method:
    """Return a coroutine method that limits one which returns its response in one piece."""

    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        make = base.__get__(self)
        context = _own_context(self)
        if context is None:
            return await make(*args, **kwargs)
        call = begin(self._limits, self, *args, **kwargs)
        return await Within(context, send_async(call.attempts, lambda _: make(*args, **kwargs), call.usage))

    return method


def _stream(base: Any, begin: Begin) -> Method:
    """A method that returns a stream, which is admitted and sent when it is first read."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Generator[Any, None, None]:
        make = base.__get__(self)
        context = _own_context(self)
        if context is None:
            return make(*args, **kwargs)  # type: ignore[no-any-return]
        call = begin(self._limits, self, *args, **kwargs)
        return reading(context, stream(call.attempts, lambda _: make(*args, **kwargs), call.meter))

    return method


def _stream_async(base: Any, begin: Begin) -> Method:
    async def method(self: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        make = base.__get__(self)
        context = _own_context(self)
        if context is None:
            return await make(*args, **kwargs)  # type: ignore[no-any-return]
        call = begin(self._limits, self, *args, **kwargs)
        items = stream_async(call.attempts, lambda _: flattened(make(*args, **kwargs)), call.meter)
        return reading_async(context, items)

    return method


def _kept(base: Any) -> Method:
    """A method whose stream goes on in the context in which it was asked for."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Generator[Any, None, None]:
        return reading(copy_context(), base.__get__(self)(*args, **kwargs))

    return method


def _kept_async(base: Any) -> Method:
    async def method(self: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        return reading_async(copy_context(), await base.__get__(self)(*args, **kwargs))

    return method


def _own_context(model: Any) -> Context | None:
    """Return a context for one call of the model, with its labels; None within a call of that very model."""
    within = _models.get()
    if id(model) in within:
        return None
    with model._limits.limiter.scope(**labels()):  # noqa: SLF001 - ours
        context = copy_context()
    context.run(_models.set, (*within, id(model)))
    return context
