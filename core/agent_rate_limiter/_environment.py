"""`${NAME}` in configuration: values that come from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from agent_rate_limiter.errors import ConfigError

KEY_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<optional>:-)?\}")
"""A secret: a variable's name alone, since a default would be a secret in the file."""

_REFERENCE = re.compile(r"\$(?:\$|\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})?)")


def expand(text: str) -> str:
    """Replace `${NAME}` by the variable, `${NAME:-text}` by it or else the text, and `$$` by a dollar sign.

    As in a shell, the text after `:-` also stands in for a variable that is empty. A dollar sign before
    anything else stays, so "$5/day" is what it seems.

    Raises:
        ConfigError: a variable is not set, or a reference is not written like these. Never says a value.
    """
    return _REFERENCE.sub(_value, text)


def _value(found: re.Match[str]) -> str:
    name, default = found["name"], found["default"]
    if found[0] == "$$":
        return "$"
    if name is None:
        raise ConfigError("write '${NAME}' or '${NAME:-default}', and '$${' for the two characters themselves")
    value = os.environ.get(name)
    if value is None and default is None:
        raise ConfigError(f"the environment variable {name} is not set: set it, or write '${{{name}:-default}}'")
    return default if default is not None and not value else value or ""


class Expanded(NamedTuple):
    """Data with its `${NAME}` replaced; what was written there; and what is wrong with it, as fixes."""

    data: Any
    originals: dict[tuple[int | str, ...], str]
    problems: dict[tuple[int | str, ...], str]


def expanded(data: object) -> Expanded:
    """Replace `${NAME}` in every text but keys and API keys, which stay references until they are needed."""
    originals: dict[tuple[int | str, ...], str] = {}
    problems: dict[tuple[int | str, ...], str] = {}

    def walk(value: object, path: tuple[int | str, ...]) -> object:
        if isinstance(value, Mapping):
            entries = cast("Mapping[str, object]", value)
            return {key: walk(entry, (*path, key)) for key, entry in entries.items()}
        if type(value) in {list, tuple}:  # a Target stays one
            items = cast("list[object]", value)
            return [walk(item, (*path, place)) for place, item in enumerate(items)]
        return replaced(value, path) if isinstance(value, str) and path[-1:] != ("api_key",) else value

    def replaced(text: str, path: tuple[int | str, ...]) -> str:
        try:
            result = expand(text)
        except ConfigError as error:
            problems[path], result = str(error), text
        if result != text or path in problems:
            originals[path] = text
        return result

    return Expanded(walk(data, ()), originals, problems)
