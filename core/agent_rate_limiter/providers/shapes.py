"""Looking into bodies and objects that may have any shape. Nothing here raises."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard, cast


def is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether it is a mapping; in JSON, its names are text."""
    return isinstance(value, dict) or (value is not None and isinstance(value, Mapping))  # the last check is slow


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether it is a list."""
    return isinstance(value, (list, tuple))


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if is_mapping(value) else {}


def listed(value: object) -> Sequence[Any]:
    """The value if it is a list, else an empty one."""
    return value if is_list(value) else ()


def mappings(value: object) -> list[Mapping[str, Any]]:
    """The mappings in a list."""
    return [part for part in listed(value) if is_mapping(part)]


def get(thing: object, name: str) -> Any:
    """A field of a mapping (written in snake or in camel case) or of an object; None when it has none."""
    if is_mapping(thing):
        value = thing.get(name)
        return thing.get(_CAMEL[name]) if value is None and "_" in name else value
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001 - a property of someone else's object
        return None


def plain(thing: Any) -> Any:
    """A pydantic model as the mapping of its fields: one that it lacks takes it a microsecond to look for."""
    if not hasattr(thing.__class__, "__pydantic_fields_set__"):
        return thing
    try:
        own, more = thing.__dict__, thing.__pydantic_extra__
    except Exception:  # noqa: BLE001 - someone else's object
        return thing
    return cast("Any", {**own, **(more or {})})


def fields(thing: object) -> Mapping[str, Any]:
    """The fields of a mapping, a pydantic model or a plain object."""
    if is_mapping(thing):
        return thing
    dump: Any = get(thing, "model_dump")
    try:
        return mapping(dump() if dump is not None else vars(thing))
    except Exception:  # noqa: BLE001 - someone else's object: then it tells nothing
        return {}


def parsed(text: str | bytes) -> object:
    """The JSON in a text; None when it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def words(text: str) -> frozenset[str]:
    """Names, written in one line."""
    return frozenset(text.split())


class _CamelNames(dict[str, str]):
    """Snake-case name → as JSON APIs write it; only names that this package asks for get in."""

    def __missing__(self, name: str) -> str:
        first, *rest = name.split("_")
        self[name] = first + "".join(word.capitalize() for word in rest)
        return self[name]


_CAMEL = _CamelNames()
