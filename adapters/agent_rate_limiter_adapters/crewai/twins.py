"""Twins of LLMs: of a class made of the original's, with its settings and its connections."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

from crewai.agents.agent_builder import base_agent
from pydantic import PrivateAttr

from agent_rate_limiter import ConfigError
from agent_rate_limiter_adapters.crewai.headers import listen
from agent_rate_limiter_adapters.http import like, stay

_PREFIX = "agent_rate_limiter"
_SLOTS = ("__dict__", "__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__")
_CLIENTS = ("_client", "_async_client")

known: WeakValueDictionary[str, Any] = WeakValueDictionary()
"""Every limited LLM by its `llm_type`, the one field by which CrewAI knows how to rebuild what it has dumped."""


def twin_of(llm: Any, limited: type) -> Any:
    """Return a limited twin of an LLM; of one that is limited already, a copy on terms of its own.

    Args:
        llm: the original, which stays as it is.
        limited: the class that limits calls.
    """
    if isinstance(llm, limited):
        return clone(llm, type(llm))
    own: Any = type(llm)
    twin = clone(llm, _limited_class(own, limited))
    _prepare(twin)
    return twin


def clone(llm: Any, cls: type) -> Any:
    """Return a copy of a class, with a token counter and a name of its own."""
    twin: Any = object.__new__(cls)
    for slot in _SLOTS:
        value = getattr(llm, slot)
        object.__setattr__(twin, slot, value.copy() if value is not None else None)
    twin._token_usage = dict.fromkeys(llm._token_usage, 0)
    name = f"{_PREFIX}/{_kind(llm.llm_type)}/{uuid4()}"
    twin.__dict__["llm_type"] = name
    known[name] = twin
    return twin


@cache
def _limited_class(cls: Any, limited: Any) -> Any:
    fields = {"__annotations__": {"llm_type": str, "_terms": Any}, "llm_type": _PREFIX}
    return like(cls, limited, **fields, _terms=PrivateAttr(default=None), __reduce__=stay)


def _prepare(twin: Any) -> None:
    """Retries are the limiter's: switch off those of the SDK, in clients that are there and that will be; hear them."""
    if "max_retries" in type(twin).model_fields:
        twin.max_retries = 0
    elif twin.is_litellm:
        twin.additional_params = {**twin.additional_params, "max_retries": 0, "num_retries": 0}
    if getattr(twin, "client_params", None):
        twin.client_params = {**twin.client_params, "max_retries": 0}
    for name in _CLIENTS:
        client: Any = getattr(twin, name, None)
        if hasattr(client, "with_options"):  # of the SDKs that Stainless generates: shares the connections
            setattr(twin, name, client.with_options(max_retries=0))
            listen(client, twin.provider)


# ------------------------------------------------------------------ dumped and rebuilt


class _Registry(dict[str, str]):
    """CrewAI's registry of LLMs, which also knows the limited ones; else a copied crew would plan without limits."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or str(name).startswith(f"{_PREFIX}/")

    def __missing__(self, name: str) -> str:
        return f"{__name__}.{rebuilt.__name__}"


base_agent._LLM_TYPE_REGISTRY = _Registry(base_agent._LLM_TYPE_REGISTRY)


def rebuilt(**fields: Any) -> Any:
    """Return the limited LLM that CrewAI has dumped to a mapping: when a crew copies itself, or from a checkpoint.

    Raises:
        ConfigError: it comes from another process, and nobody says which limiter it is under now.
    """
    restore = _restore.get()
    if restore is not None:
        return restore(fields)
    twin = known.get(fields["llm_type"])
    if twin is not None:
        return copy.copy(twin)
    raise ConfigError(
        f"The limited LLM {fields.get('model')!r} comes from another process: restore its crew inside "
        "`with agent_rate_limiter_adapters.crewai.restoring(limiter):`."
    )


def _kind(llm_type: str) -> str:
    """The type that CrewAI gave an LLM before it was limited."""
    return llm_type.split("/")[1] if llm_type.startswith(f"{_PREFIX}/") else llm_type


@contextmanager
def rebuilding(limited: Callable[[Any], Any]) -> Generator[None]:
    """Make limited LLMs in the block of those that CrewAI rebuilds, by this function."""

    def restore(fields: dict[str, Any]) -> Any:
        return limited(base_agent._validate_llm_ref({**fields, "llm_type": _kind(fields["llm_type"])}))

    token = _restore.set(restore)
    try:
        yield
    finally:
        _restore.reset(token)


_restore: ContextVar[Any] = ContextVar("agent_rate_limiter_crewai_restore", default=None)
