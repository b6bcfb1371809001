"""`${NAME}` in configuration: values that come from the environment."""

from __future__ import annotations

import os
import re

from agent_rate_limiter.errors import ConfigError

KEY_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*(?::-)?\}")
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
    if found[0] in {"$", "$$"}:
        return "$"
    if name is None:
        raise ConfigError("write '${NAME}' or '${NAME:-default}', and '$${' for the two characters themselves")
    value = os.environ.get(name)
    if value is None and default is None:
        raise ConfigError(f"the environment variable {name} is not set: set it, or write '${{{name}:-default}}'")
    return default if default is not None and not value else value or ""
