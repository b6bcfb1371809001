"""What is wrong with a configuration, in words: where it stands, what it is, and the fix."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast

from agent_rate_limiter.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Path = tuple[int | str, ...]
"""Where a value stands: the keys and positions that lead to it."""

_SECRET = {"api_key", "base_url", "secret", "store", "webhook"}
_MISSING = object()
_MAPPING = "write it as 'key: value' pairs"
_LIST = "write it as a list"
_TEXT = object()
_FIXES = {
    "missing": "add it",
    "list_type": _LIST,
    "tuple_type": _LIST,
    "dict_type": _MAPPING,
    "model_type": _MAPPING,
    "invalid_key": "write the key as text, in quotes",
}
_DOMAIN_ERROR = re.compile(r"(?P<field>\w+) is .*: (?P<fix>.*?)\.?", re.DOTALL)
_LONGEST = 80


def problem(path: Path, value: object, fix: str) -> str:
    """Say what is wrong with a value; one that may hold a secret is not repeated."""
    what = "" if path and path[-1] in _SECRET else f"is {shown(value)}: "
    return f"{_spelled(path)}{what}{fix}."


def problems_in(
    errors: Iterable[ErrorDetails],
    keys_at: Callable[[Path], Collection[str]],
    originals: Mapping[Path, str],
) -> dict[Path, str]:
    """Translate what pydantic found.

    Args:
        errors: its findings.
        keys_at: tells the keys that the schema knows at a place.
        originals: what was written where a value came from the environment; shown instead of that value.
    """
    problems: dict[Path, str] = {}
    for error in errors:
        if error["type"] == "extra_forbidden":
            problems[error["loc"]] = _unknown_key(error["loc"], keys_at(error["loc"][:-1]))
        else:
            path, value, fix = _explained(error)
            problems.setdefault(path, problem(path, originals.get(path, value), fix))
    return problems


def _unknown_key(path: Path, known: Collection[str]) -> str:
    key = str(path[-1])
    near = sorted(get_close_matches(key, known, n=5), key=lambda name: sorted(name) != sorted(key))
    hint = f"did you mean {near[0]!r}?" if near else f"it is one of {', '.join(known)}."
    return f"{_spelled(path)}unknown key; {hint}"


def _explained(error: ErrorDetails) -> tuple[Path, object, str]:
    path, value = error["loc"], error["input"]
    if path and path[-1] == "[key]":
        path = path[:-1]
    cause = cast("Mapping[str, Any]", error.get("ctx", {})).get("error")
    found = _DOMAIN_ERROR.fullmatch(str(cause)) if isinstance(cause, ConfigError) else None
    if found is None:
        fix = str(cause) if cause is not None else _FIXES.get(error["type"], error["msg"])
        return path, _written(error), fix
    if isinstance(value, Mapping):
        entry = cast("Mapping[str, object]", value)
        return (*path, found["field"]), entry.get(found["field"], _MISSING), found["fix"]
    return path, value, found["fix"]


def _written(error: ErrorDetails) -> object:
    if error["type"] == "missing":
        return _MISSING
    misplaced = isinstance(error["input"], str) and error["type"] in _FIXES
    return _TEXT if misplaced else error["input"]  # `openai: sk-…` may be a key


def shown(value: object) -> str:
    """Show a value as Python writes it, in short; what a list or mapping holds may be secret."""
    if value is _MISSING or value is _TEXT:
        return "missing" if value is _MISSING else "text"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple, set, frozenset)):
        return "a list"
    if not isinstance(value, (str, int, float, type(None))):
        return f"a {type(value).__name__}"
    try:
        text = repr(value)
    except ValueError:  # an integer too long to be written
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _spelled(path: Path) -> str:
    """Spell a path as `providers[0].models.gpt-4.rpm: `; nothing for the whole."""
    text = ""
    for part in path:
        plain = isinstance(part, str) and re.fullmatch(r"[\w-]+", part)
        text += f".{part}" if plain else f"[{shown(part)}]"
    return f"{text.removeprefix('.')}: " if text else ""
