"""`sqlite:///agents.db`: the file that a URI names."""

from __future__ import annotations

import os
from urllib.parse import unquote

from agent_rate_limiter.errors import ConfigError

_SCHEME = "sqlite://"


def file_of(field: str, uri: str) -> str:
    """Return the path in a URI: three slashes begin a relative one, four an absolute one, as everywhere.

    Args:
        field: what it was given for.
        uri: begins with `sqlite://`.

    Raises:
        ConfigError: it names no file.
    """
    rest = uri.removeprefix(_SCHEME)
    if not rest.startswith("/"):
        raise ConfigError(f"{field} is {uri!r}: write three slashes before a path, '{_SCHEME}/{rest}'.")
    if "?" in rest:
        raise ConfigError(f"{field} is {uri!r}: a file takes no parameters; a '?' in its name is written %3F.")
    path = unquote(rest[1:])
    if path.startswith("~/"):
        path = os.path.expanduser(path)  # noqa: PTH111 - where there is no home, it is left as it is
    if "\0" in path or path[-1:] in {"", "/"} or path == ":memory:" or os.path.isdir(path):  # noqa: PTH112 - never raises
        raise ConfigError(f"{field} is {uri!r}: name a file, such as '{_SCHEME}/agents.db'.")
    return path
