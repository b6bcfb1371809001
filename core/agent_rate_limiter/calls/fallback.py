"""What a decorated function can do besides being called, and where its calls can go instead."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from agent_rate_limiter.errors import ConfigError

if TYPE_CHECKING:
    from agent_rate_limiter.limits import Target

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class Limited(Protocol[P, R_co]):
    """A function whose calls are admitted first."""

    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call it, once it is admitted."""
        ...

    def __get__(self, instance: Any, owner: Any = None) -> Callable[..., R_co]:
        """Bind it, as any function in a class."""
        ...

    def fallback(self, target: str | Target) -> Callable[[Callable[..., Any]], Any]:
        """Decorate how the same call is made elsewhere; tried in the order they are written.

        A fallback is used when the call is refused (a limit, a deadline, a budget), or when its provider
        cannot serve it although it was retried. A stream falls back only before its first chunk.

        Args:
            target: where it goes instead, as `provider:model`.

        Raises:
            ConfigError: the target is not configured.
        """
        ...


INJECTED = ("target", "model", "provider")
"""Parameters by which a function is told where to send its call."""


def parameters_of(function: Callable[..., Any]) -> Collection[str]:
    """Return the names of a function's parameters; of one that does not tell, none.

    Raises:
        ConfigError: it is no function.
    """
    if not callable(function):
        raise ConfigError(f"{function!r} is decorated: decorate a function, a method or a generator.")
    try:
        return inspect.signature(function).parameters
    except ValueError:  # builtins
        return ()


def servable(function: Callable[..., Any], target: Target) -> Callable[[Target], bool] | None:
    """Tell which other targets a function can be told to call: any, those of its provider, or (None) none."""
    told = set(INJECTED) & set(parameters_of(function))
    if "target" in told or {"provider", "model"} <= told:
        return lambda _: True
    return (lambda other: other.provider == target.provider) if "model" in told else None


def check_servable(function: Callable[..., Any], target: Target, fallbacks: tuple[Target, ...]) -> None:
    """Refuse fallbacks that a function cannot be told of.

    Raises:
        ConfigError: it has no parameter for them.
    """
    serves = servable(function, target)
    for fallback in fallbacks:
        if serves is None or not serves(fallback):
            raise ConfigError(
                f"fallbacks hold '{fallback}', but {_name(function)} cannot be told: give it a parameter named target "
                f"(or model, for models of {target.provider!r}), or say how the call is made there with "
                f"@{_name(function)}.fallback('{fallback}')."
            )


def check_kind(function: Callable[..., Any], other: Callable[..., Any]) -> None:
    """Refuse a fallback that would have to be called in another way than its function.

    Raises:
        ConfigError: one is a coroutine function or a generator, and the other is not.
    """
    parameters_of(other)
    ours, theirs = kind_of(function), kind_of(other)
    if ours != theirs:
        raise ConfigError(f"The fallback {_name(other)} is a {theirs}, but {_name(function)} is a {ours}: make it one.")


def kind_of(function: Callable[..., Any]) -> str:
    """Return "function", "coroutine function", "generator" or "async generator"."""
    if inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004 - an object with one
        return "coroutine function"
    return next((kind for is_kind, kind in _KINDS if is_kind(function)), "function")


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


_KINDS = (
    (inspect.isasyncgenfunction, "async generator"),
    (inspect.iscoroutinefunction, "coroutine function"),
    (inspect.isgeneratorfunction, "generator"),
)
