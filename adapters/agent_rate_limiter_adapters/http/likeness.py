"""Twins look like their originals: their classes, what errors call them, and that they are not pickled."""

from __future__ import annotations

from functools import cache
from typing import Any, NoReturn

from agent_rate_limiter import ConfigError


def like(cls: Any, *before: Any, **fields: Any) -> Any:
    """Return a subclass that looks like a class, with fields of its own; `before` are looked into first."""
    looks = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    return cls.__class__(cls.__name__, (*before, cls), {**looks, **fields})


@cache
def undying(cls: Any) -> Any:
    """Return the class of a twin, which leaves the shared connections open when it is dropped."""
    return cls if "_limited_twin_of" in cls.__dict__ else like(cls, _limited_twin_of=None, __del__=_go)


def _go(_: object) -> None:
    """Do nothing."""


def kind_of(thing: object) -> str:
    """Return the full name of a thing's class, as errors tell it."""
    kind = type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"


def stay(twin: object) -> NoReturn:
    """Refuse to be pickled; as `__reduce__`.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        f"A limited {type(twin).__name__} cannot be pickled: limit the original where it is unpickled, with a limiter "
        "on the same store."
    )
