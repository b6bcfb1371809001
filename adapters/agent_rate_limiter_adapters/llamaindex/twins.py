"""Limited models: still of the user's own class, by a limited subclass of it that is made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, get_type_hints

from agent_rate_limiter import ConfigError
from agent_rate_limiter_adapters.http import like
from agent_rate_limiter_adapters.llamaindex import embeddings, endpoints
from agent_rate_limiter_adapters.llamaindex.limits import CLIENTS, GETTERS, Limits
from agent_rate_limiter_adapters.llamaindex.processes import Make, limiter_named, name_of


def twin_of(model: Any, limits: Limits) -> Any:
    """Return a limited copy of an LLM or an embedding model; the original stays as it is.

    Raises:
        ConfigError: no provider fits, or several do; or another limiter limits it already.
    """
    twin = model.model_copy()
    limit(twin, limits)
    return twin


def limit(model: Any, limits: Limits) -> None:
    """Limit a model where it stands.

    Raises:
        ConfigError: no provider fits, or several do; or another limiter limits it already.
    """
    before = limits_of(model)
    if before is not None and before.limiter is not limits.limiter:
        raise ConfigError(f"{type(model).__name__} is limited by another limiter already: give the original.")
    limits.place(model)  # refuse now what could never be sent
    unlimit(model)
    made_late, kept = made_by_method(model, limits), clients_of(model, limits)
    limited = {} if made_late else {name: limits.client(client) for name, client in kept.items()}
    retries = model.__dict__.get("max_retries")
    if retries is not None:
        model.__dict__["max_retries"] = 0  # retries are the limiter's
    kind: Any = type(model)
    model.__class__ = limited_class(kind, made_late=made_late, by_sdk=made_late or bool(kept))
    private = model.__pydantic_private__ or {}
    model.__pydantic_private__ = {**private, **limited, "_limits": limits, "_before": (kept, retries)}


def clients_of(model: Any, limits: Limits) -> dict[str, Any]:
    """The clients of an SDK that a model has already, and that can be limited."""
    private = model.__pydantic_private__ or {}
    return {name: client for name in CLIENTS if limits.knows(client := private.get(name))}


def made_by_method(model: Any, limits: Limits) -> bool:
    """Whether a model has a method that makes or returns such a client; making one here would take its time."""
    method = getattr(type(model), GETTERS[0], None)
    if method is None:
        return False
    try:
        made: Any = get_type_hints(method).get("return")
    except (NameError, TypeError):
        made = None
    return limits.knows(model._get_client() if made is None else made)  # noqa: SLF001 - no public way


def unlimit(model: Any) -> None:
    """Make a model what it was before it was limited."""
    if limits_of(model) is None:
        return
    private = dict(model.__pydantic_private__)
    del private["_limits"]
    kept, retries = private.pop("_before")
    model.__class__ = original_class(type(model))
    model.__pydantic_private__ = {**private, **kept}
    if retries is not None:
        model.__dict__["max_retries"] = retries


def limits_of(model: Any) -> Limits | None:
    """Return the limits of a limited model; None of any other."""
    limited = "_limits" in getattr(type(model), "__private_attributes__", {})
    return model._limits if limited else None  # noqa: SLF001 - ours


def original_class(cls: type) -> type:
    """Return the class that a limited one was made of."""
    return cls.__mro__[1]


@cache
def limited_class(cls: Any, *, made_late: bool, by_sdk: bool) -> Any:
    """Make the limited subclass of an LLM's or an embedding model's class.

    Args:
        cls: the user's.
        made_late: whether it has methods that make or return its SDK's client.
        by_sdk: whether its SDK's requests are limited, rather than its own methods.
    """
    from llama_index.core.base.llms.base import BaseLLM
    from pydantic import PrivateAttr

    methods = (endpoints if issubclass(cls, BaseLLM) else embeddings).overrides(cls, by_sdk=by_sdk)
    if made_late:
        methods |= {name: _limited_getter(getattr(cls, name)) for name in GETTERS if hasattr(cls, name)}
    for method in methods.values():
        method.__dict__["__dispatcher_span_decorated__"] = True  # the span is the original's: it needs no second one
    private = {"_limits": PrivateAttr(default=None), "_before": PrivateAttr(default=None)}
    return like(cls, **private, **methods, __reduce__=_reduce)


def _limited_getter(get: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def method(self: Any) -> Any:
        return self._limits.client(get(self))

    return method


def _reduce(self: Any) -> tuple[Any, ...]:
    """Pickle the original, and which limiter limits it."""
    limits: Limits = self._limits
    plain = self.model_copy()
    unlimit(plain)
    return _restored, (plain, name_of(limits.limiter), limits.in_workers, limits.options)


def _restored(model: Any, name: str, make: Make | None, options: dict[str, Any]) -> Any:
    """Limit an unpickled model again."""
    limiter = limiter_named(name, make, type(model).__name__)
    limit(model, Limits(limiter, in_workers=make, **options))
    return model
