"""The eight endpoints of a limited LLM."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import Context, ContextVar, copy_context
from inspect import getattr_static
from typing import TYPE_CHECKING, Any

from agent_rate_limiter.sending import send, send_async, stream, stream_async
from agent_rate_limiter_adapters.llamaindex.contexts import Within, flattened, reading, reading_async
from agent_rate_limiter_adapters.llamaindex.labels import labels
from agent_rate_limiter_adapters.llamaindex.limits import Call, Limits

if TYPE_CHECKING:
    from agent_rate_limiter import Reservation

SYNC = ("chat", "complete", "stream_chat", "stream_complete")
Method = Callable[..., Any]
Begin = Callable[..., Call]
"""Begins a call with the arguments of its method."""
Through = Callable[[Any, "Reservation | None"], Method]
"""Returns the method that makes the call, of the model or of the one that the reservation is for."""

_models: ContextVar[tuple[int, ...]] = ContextVar("agent_rate_limiter_llamaindex_models", default=())
"""The models in whose calls this is: what an endpoint makes of another one of the same model is the same call."""


def overrides(cls: type, *, by_sdk: bool) -> dict[str, Method]:
    """Return the endpoints of a class's limited subclass.

    Args:
        cls: the LLM's.
        by_sdk: whether its SDK's requests are limited; then its endpoints only keep streams in their contexts.
    """
    if by_sdk:
        methods = {name: _kept(getattr_static(cls, name)) for name in SYNC if "stream" in name}
        return {**methods, **{f"a{name}": _kept_async(getattr_static(cls, f"a{name}")) for name in methods}}
    limited: dict[str, Method] = {}
    for name in SYNC:
        begin = Limits.chat if name.endswith("chat") else Limits.completion
        limited[name], limited[f"a{name}"] = both(name, lambda name: own(getattr_static(cls, name)), begin)
    return limited


def both(name: str, through: Callable[[str], Through], begin: Begin) -> tuple[Method, Method]:
    """Return the limited forms of an endpoint, sync and async.

    Args:
        name: of the sync one.
        through: makes, of a name, what the calls go through.
        begin: begins them.
    """
    sync, asynchronous = (_stream, _stream_async) if "stream" in name else (whole, whole_async)
    methods = sync(through(name), begin), asynchronous(through(f"a{name}"), begin)
    methods[0].__name__, methods[1].__name__ = name, f"a{name}"
    return methods


def own(base: Any) -> Through:
    """Go through a method of the model's own class."""
    return lambda model, _: base.__get__(model)


def whole(through: Through, begin: Begin) -> Method:
    """Return a limited method that returns its response in one piece."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        context = _own_context(self)
        if context is None:
            return through(self, None)(*args, **kwargs)
        call = begin(self._limits, self, *args, **kwargs)
        return context.run(send, call.attempts, lambda taken: through(self, taken)(*args, **kwargs), call.usage)

    return method


def whole_async(through: Through, begin: Begin) -> Method:
    """Return a limited coroutine method that returns its response in one piece."""

    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        context = _own_context(self)
        if context is None:
            return await through(self, None)(*args, **kwargs)
        call = begin(self._limits, self, *args, **kwargs)
        made = send_async(call.attempts, lambda taken: through(self, taken)(*args, **kwargs), call.usage)
        return await Within(context, made)

    return method


def _stream(through: Through, begin: Begin) -> Method:
    """A limited method that returns a stream, which is admitted and sent when it is first read."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Generator[Any, None, None]:
        context = _own_context(self)
        if context is None:
            return through(self, None)(*args, **kwargs)  # type: ignore[no-any-return]
        call = begin(self._limits, self, *args, **kwargs)
        items = stream(call.attempts, lambda taken: through(self, taken)(*args, **kwargs), call.meter)
        return reading(context, items)

    return method


def _stream_async(through: Through, begin: Begin) -> Method:
    async def method(self: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        context = _own_context(self)
        if context is None:
            return await through(self, None)(*args, **kwargs)  # type: ignore[no-any-return]
        call = begin(self._limits, self, *args, **kwargs)
        items = stream_async(call.attempts, lambda taken: flattened(through(self, taken)(*args, **kwargs)), call.meter)
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
