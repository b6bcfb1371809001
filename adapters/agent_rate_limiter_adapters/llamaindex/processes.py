"""Pickled models, and which limiter they are under when they are unpickled, here or in another process."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

from agent_rate_limiter import ConfigError, Target

if TYPE_CHECKING:
    from agent_rate_limiter import MultiProviderLimiter, RateLimiter

Make = Callable[[], Any]
"""Makes the limiter of another process; a function of a module, as it is pickled by its name."""

_limiters: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
"""The limiters of this process whose models were pickled."""


def name_of(limiter: RateLimiter | MultiProviderLimiter) -> str:
    """Return the name by which `limiter_named` finds a limiter of this process."""
    here = this_process()
    names = (name for name, known in _limiters.items() if known is limiter and name.startswith(here))
    name = next(names, None) or f"{here}{uuid4()}"
    _limiters[name] = limiter
    return name


def limiter_named(name: str, make: Make | None, model: str) -> Any:
    """Return the limiter of an unpickled model.

    Args:
        name: of the limiter, in the process that has it.
        make: makes one in any other process.
        model: whose it is, for the error.
    """
    known = _limiters.get(name) if name.startswith(this_process()) else None  # not what a fork inherited
    if known is not None:
        return known
    return Lost(model) if make is None else _made(make, this_process())


def this_process() -> str:
    """Return what names of limiters in this process begin with."""
    return f"{os.getpid()}/"


@cache
def _made(make: Make, process: str) -> Any:
    """One limiter for a process."""
    del process
    return make()


class Lost:
    """In place of a limiter that is in another process: the model can be unpickled here, but makes no call.

    A worker of a pool that could not even unpickle its work would die, and be started anew for ever.

    Args:
        model: whose limiter it was.
    """

    def __init__(self, model: str) -> None:
        self._model = model

    def target_for(self, provider: str, model: str) -> Target:
        """Any target will do."""
        return Target(provider, model)

    def can_wrap(self, _: object) -> bool:
        """There is nothing to wrap it with."""
        return False

    def attempts(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse to begin a call.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"{self._model} was limited in another process, whose limits cannot come along: say what limits it here, "
            "with limiter.wrap(model, in_workers=make_limiter), a function that makes a limiter on the same store."
        )

    scope = explain = attempts
