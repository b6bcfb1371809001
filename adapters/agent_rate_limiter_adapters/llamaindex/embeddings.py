"""The methods of a limited embedding model: below its cache, request by request, with a line that shows progress."""

from __future__ import annotations

from collections.abc import Callable
from inspect import getattr_static
from typing import Any

from agent_rate_limiter_adapters.llamaindex import endpoints, progress
from agent_rate_limiter_adapters.llamaindex.limits import Limits

_SINGLE = ("_get_query_embedding", "_get_text_embedding", "_get_image_embedding")
_BATCH = ("_get_text_embeddings", "_get_image_embeddings")
Method = Callable[..., Any]


def overrides(cls: type, *, by_sdk: bool) -> dict[str, Method]:
    """Return the methods of a class's limited subclass.

    Args:
        cls: the embedding model's.
        by_sdk: whether its SDK's requests are limited; then its methods only tell of their progress.
    """
    methods: dict[str, Method] = {}
    for name in () if by_sdk else (*_SINGLE, *_BATCH):
        methods |= _limited(cls, name)
    one_by_one = in_parts(cls)

    def base(name: str) -> Any:
        return methods.get(name) or getattr_static(cls, name)

    return {
        **methods,
        "_get_text_embeddings": progress.told(base("_get_text_embeddings")),
        "_aget_text_embeddings": progress.told_async(base("_aget_text_embeddings")),
        "get_text_embedding_batch": progress.shown(base("get_text_embedding_batch"), one_by_one=one_by_one),
        "aget_text_embedding_batch": progress.shown_async(base("aget_text_embedding_batch"), one_by_one=one_by_one),
    }


def _limited(cls: type, name: str) -> dict[str, Method]:
    """The limited forms of a method, sync and async; a batch that only goes through its texts makes no request."""
    asynchronous = name.replace("_get", "_aget")
    found = {place: getattr_static(cls, place, None) for place in (name, asynchronous)}
    limits = {name: endpoints.whole, asynchronous: endpoints.whole_async}
    return {
        place: limits[place](endpoints.own(base), Limits.embedding)
        for place, base in found.items()
        if base is not None and not (name in _BATCH and in_parts(cls, place))
    }


def in_parts(cls: type, name: str = "_get_text_embeddings") -> bool:
    """Whether a class embeds several texts one by one, as the base class does."""
    defined = next(base for base in cls.__mro__ if name in vars(base))
    return defined.__module__.startswith("llama_index.core.")
