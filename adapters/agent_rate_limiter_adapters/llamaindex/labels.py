"""What LlamaIndex says of who is calling: the tags of `instrument_tags`, and a workflow's run id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_RUN_ID = "llamaindex.run_id"
_TAKEN = frozenset({"provider", "model", "budget", "priority", "self"})
"""What a scope means something else by; a call says itself where it goes."""


def labels() -> dict[str, Any]:
    """Return the labels of a call that is made now: one of each tag with a plain value, and `run` of a workflow."""
    from llama_index_instrumentation.dispatcher import active_instrument_tags

    return from_tags(active_instrument_tags.get())


def from_tags(tags: Mapping[str, object]) -> dict[str, Any]:
    """Return the labels that tags stand for; a tag named `run` goes before the workflow's own id."""
    named = {"run": tags.get(_RUN_ID), **tags}
    return {name: value for name, value in named.items() if name not in _TAKEN and name != _RUN_ID and _plain(value)}


def _plain(value: object) -> bool:
    return value != "" and isinstance(value, (str, int, float))
