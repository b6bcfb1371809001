"""Refusals in a form that CrewAI does not retry: errors of this library that are `HookAborted`s too."""

from __future__ import annotations

from functools import cache
from typing import Any

from crewai.hooks.dispatch import HookAborted

from agent_rate_limiter import RateLimiterError

SOURCE = "agent_rate_limiter"


def refusal(error: RateLimiterError) -> RateLimiterError:
    """Return the same error, of its own class and a `HookAborted`: it ends a task at once, tools are not run again.

    Args:
        error: any error of this library.
    """
    if isinstance(error, HookAborted):
        return error
    own: Any = type(error)
    kind = _class_of(own)
    refused = kind.__new__(kind)  # its constructor may take anything
    refused.args = error.args
    refused.__dict__.update(error.__dict__, reason=str(error), source=SOURCE, plain=error)
    refused.__cause__ = error.__cause__
    return refused  # type: ignore[no-any-return]  # of a class made here


@cache
def _class_of(kind: Any) -> Any:
    def reduce(self: Any) -> tuple[Any, tuple[RateLimiterError]]:
        return refusal, (self.plain,)

    fields = {"__module__": kind.__module__, "__doc__": kind.__doc__, "__reduce__": reduce}
    return type(kind.__name__, (kind, HookAborted), fields)
