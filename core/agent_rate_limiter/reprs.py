"""Reprs that say what is not as usual: as it would be written, not every field that it has."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from enum import Enum
from typing import Any


def spare_repr(thing: Any, *, without: tuple[str, ...] = ()) -> str:
    """Return a dataclass as it would be written: fields that are as they always are, or follow from others, left out.

    Args:
        thing: the dataclass.
        without: fields that follow from others.
    """
    parts = [
        f"{each.name}={_plain(getattr(thing, each.name))!r}"
        for each in fields(thing)
        if each.repr and each.name not in without and getattr(thing, each.name) != _usual(each)
    ]
    return f"{type(thing).__name__}({', '.join(parts)})"


def _usual(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
