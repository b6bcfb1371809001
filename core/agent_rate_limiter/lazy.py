"""Names of a package that are imported when they are first used: what nobody asks for costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from sys import modules


def lazy(
    package: str, home: Mapping[str, str], names: Sequence[str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__`.

    Args:
        package: its name.
        home: which of its modules each name is in.
        names: all that it exports.
    """

    def get(name: str) -> object:
        if name not in home:
            message = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(message)
        found: object = getattr(import_module(f"{package}.{home[name]}"), name)
        setattr(modules[package], name, found)
        return found

    return get, lambda: sorted(names)
