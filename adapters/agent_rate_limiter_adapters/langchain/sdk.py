"""The provider SDKs inside of LangChain's integrations: their own retries are switched off, as retries are ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

_MADE_LATER = ("_client", "_async_client")
"""Clients that an integration makes when they are first used (Anthropic)."""


def switch_off_retries(model: Any) -> None:
    """Replace the SDK's clients that a model holds by copies of theirs which do not retry.

    The model's `max_retries` stays as it is, so that it is serialized and cached as before.
    """
    replace_clients(model, lambda client: client.with_options(max_retries=0))


def replace_clients(model: Any, change: Callable[[Any], Any]) -> bool:
    """Replace the SDK's clients in a model's fields, by themselves or as their resources; False: it has none.

    It knows the SDKs that Stainless generates: OpenAI, Azure, Anthropic, Groq, Together, Fireworks and others.
    """
    for name in _MADE_LATER:
        if isinstance(getattr(type(model), name, None), cached_property):
            getattr(model, name)
    fields = vars(model)
    found = {name: client for name, value in fields.items() if (client := _client_in(value)) is not None}
    changed = {id(client): change(client) for client in found.values()}
    for name, client in found.items():
        new = changed[id(client)]
        fields[name] = new if fields[name] is client else type(fields[name])(new)
    return bool(found)


def _client_in(value: Any) -> Any:
    """The client itself, or that of one of its resources, such as `client.chat.completions`."""
    if _is_client(value):
        return value
    client = getattr(value, "__dict__", {}).get("_client")
    return client if _is_client(client) else None


def _is_client(value: Any) -> bool:
    return hasattr(type(value), "with_options") and isinstance(getattr(value, "max_retries", None), int)
