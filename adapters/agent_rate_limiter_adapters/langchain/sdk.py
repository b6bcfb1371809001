"""The provider SDKs inside of LangChain's integrations: their own retries are switched off, as retries are ours."""

from __future__ import annotations

from functools import cached_property
from typing import Any

_MADE_LATER = ("_client", "_async_client")
"""Clients that an integration makes when they are first used (Anthropic)."""


def switch_off_retries(model: Any) -> None:
    """Replace the SDK's clients that a model holds by copies of theirs which do not retry.

    It knows the SDKs that Stainless generates: OpenAI, Azure, Anthropic, Groq, Together, Fireworks and others. The
    model's `max_retries` stays as it is, so that it is serialized and cached as before.
    """
    for name in _MADE_LATER:
        if isinstance(getattr(type(model), name, None), cached_property):
            getattr(model, name)
    fields = vars(model)
    for name, value in list(fields.items()):
        client = value if _is_client(value) else _client_of(value)
        if client is not None and client.max_retries:
            patient = client.with_options(max_retries=0)
            fields[name] = patient if client is value else type(value)(patient)


def _is_client(value: Any) -> bool:
    return hasattr(type(value), "with_options") and isinstance(getattr(value, "max_retries", None), int)


def _client_of(resource: Any) -> Any:
    """The client of one of its resources, such as `client.chat.completions`."""
    client = getattr(resource, "__dict__", {}).get("_client")
    return client if _is_client(client) else None
