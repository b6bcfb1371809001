"""`@limiter.limit(...)`: one decorator for functions, coroutines, generators and async generators."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from agent_rate_limiter.calls.attempts import Attempts
from agent_rate_limiter.calls.fallback import (
    INJECTED,
    Limited,
    check_kind,
    check_servable,
    kind_of,
    parameters_of,
    servable,
)
from agent_rate_limiter.checks import check_estimate, check_priority, check_timeout, make_estimate
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.limits import Target
from agent_rate_limiter.sending import send, send_async, stream, stream_async
from agent_rate_limiter.usage import Estimate, Usage

if TYPE_CHECKING:
    from agent_rate_limiter.calls.life import Calls
    from agent_rate_limiter.calls.reservation import Reservation

P = ParamSpec("P")
R = TypeVar("R")
Start = Callable[["Reservation", tuple[Any, ...], dict[str, Any]], Any]
"""Starts the user's function for one admitted call."""
Size = Estimate | Callable[..., Estimate] | None
"""What a decorated call is expected to use, or a function of its arguments that says so."""
Serves = Callable[[Target], bool] | None
"""Which other targets a function can be told to call."""


class Terms:
    """How the calls of one decorated function are admitted.

    Args:
        calls: who admits them.
        target: where they go.
        estimate: what each is expected to use, or a function of the call's arguments that says so.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait; None waits for ever.
        fallbacks: where the function itself can send them instead.
    """

    def __init__(
        self,
        calls: Calls,
        target: Target,
        estimate: Estimate | Callable[..., Estimate],
        *,
        priority: int | None,
        timeout: float | None,
        fallbacks: tuple[Target, ...] = (),
    ) -> None:
        self.calls = calls
        self.target = target
        self.fallbacks = fallbacks
        self._estimate = estimate
        self._priority = priority
        self._timeout = timeout

    @classmethod
    def checked(
        cls,
        calls: Calls,
        target: Target,
        estimate: Size,
        *,
        priority: int | None,
        timeout: float | None,
        counts: Mapping[str, int],
        fallbacks: tuple[Target, ...] = (),
    ) -> Terms:
        """Check a decorator's arguments when it is applied, not when the function is first called.

        Raises:
            ConfigError: one makes no sense.
        """
        if priority is not None:
            check_priority(priority)
        if timeout is not None:
            check_timeout(timeout)
        if not callable(estimate):
            estimate = make_estimate(estimate, counts)
            check_estimate(estimate)
        elif counts:
            raise ConfigError(f"{next(iter(counts))} is given beside a function for the estimate: let that count it.")
        return cls(calls, target, estimate, priority=priority, timeout=timeout, fallbacks=fallbacks)

    def towards(self, target: Target) -> Terms:
        """Return the same terms for another target."""
        return Terms(self.calls, target, self._estimate, priority=self._priority, timeout=self._timeout)

    def attempts(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], others: tuple[Target, ...], serves: Serves
    ) -> Attempts:
        """Begin one call with these arguments."""
        estimate = self._estimate if isinstance(self._estimate, Estimate) else self._estimate(*args, **kwargs)
        return self.calls.attempts(
            self.target, estimate, self._priority, self._timeout, fallbacks=others, serves=serves
        )


class Call:
    """The user's function, and those that make the same call elsewhere.

    Args:
        function: the user's.
        terms: how its calls are admitted.
    """

    def __init__(self, function: Callable[..., Any], terms: Terms) -> None:
        check_servable(function, terms.target, terms.fallbacks)
        self.function = function
        self._terms = terms
        self._start = _prepared(function)
        self._told = servable(function, terms.target)
        self._elsewhere: dict[Target, Start] = {}
        self._others = terms.fallbacks

    def also(self, target: Target, function: Callable[..., Any]) -> None:
        """Let another function make the call at a target."""
        if target == self._terms.target:
            raise ConfigError(f"The fallback of {target} is {target} itself: name another target.")
        check_kind(self.function, function)
        self._elsewhere[target] = _prepared(function)
        self._others = (*self._others, target)

    def attempts(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Attempts:
        """Begin one call with these arguments."""
        return self._terms.attempts(args, kwargs, self._others, self._serves if self._told or self._others else None)

    def _serves(self, target: Target) -> bool:
        return target in self._elsewhere or (self._told is not None and self._told(target))

    def start(self, call: Reservation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the function that serves the target chosen."""
        return self._elsewhere.get(call.target, self._start)(call, args, kwargs)


def limited(
    function: Callable[P, R], terms: Terms, resolve: Callable[[str | Target], Target] = Target.parse
) -> Limited[P, R]:
    """Wrap a function of any of the four kinds; its result settles the call if it states its usage.

    Args:
        function: the user's.
        terms: how its calls are admitted.
        resolve: checks the target of a fallback.
    """
    call = Call(function, terms)

    def fallback(target: str | Target) -> Callable[[Callable[..., Any]], Any]:
        where = resolve(target)

        def register(other: Callable[..., Any]) -> Any:
            call.also(where, other)
            return _limited(Call(other, terms.towards(where)))

        return register

    wrapped: Any = _limited(call)
    wrapped.fallback = fallback
    chained: Limited[P, R] = wrapped
    return chained


def _limited(call: Call) -> Any:
    return functools.wraps(call.function)(_MADE[kind_of(call.function)](call))


def _function(made: Call) -> Callable[..., Any]:
    def call_sync(*args: Any, **kwargs: Any) -> Any:
        return send(made.attempts(args, kwargs), lambda call: made.start(call, args, kwargs), _read, joins=False)

    return call_sync


def _coroutine(made: Call) -> Callable[..., Any]:
    async def call_async(*args: Any, **kwargs: Any) -> Any:
        attempts = made.attempts(args, kwargs)
        return await send_async(attempts, lambda call: made.start(call, args, kwargs), _read, joins=False)

    return call_async


def _generator(made: Call) -> Callable[..., Any]:
    def items(*args: Any, **kwargs: Any) -> Generator[Any, None, Any]:
        attempts = made.attempts(args, kwargs)
        return (yield from stream(attempts, lambda call: made.start(call, args, kwargs), _Last, joins=False))

    return items


def _async_generator(made: Call) -> Callable[..., Any]:
    async def items(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        attempts = made.attempts(args, kwargs)
        async with aclosing(
            stream_async(attempts, lambda call: made.start(call, args, kwargs), _Last, joins=False)
        ) as inner:
            async for item in inner:
                yield item

    return items


_MADE = {
    "function": _function,
    "coroutine function": _coroutine,
    "generator": _generator,
    "async generator": _async_generator,
}


def _read(result: object) -> Usage | None:
    """Find the usage in what the user's function returned."""
    if result is None or isinstance(result, (str, bytes, int, float)):
        return None
    return result if isinstance(result, Usage) else _usage_in(result)


def _usage_in(result: object) -> Usage | None:
    from agent_rate_limiter.providers import read_usage

    return read_usage(result)


class _Last:
    """What a generator has yielded last, or returned, may state the usage."""

    final = False

    def __init__(self) -> None:
        self._item: object = None

    def feed(self, item: object) -> None:
        self._item = item

    def usage(self, *, whole: bool) -> Usage | None:
        return _read(self._item) if whole else None


def _prepared(function: Callable[..., Any]) -> Start:
    """A parameter named target, model or provider is given the one chosen."""
    wanted = [name for name in INJECTED if name in parameters_of(function)]
    if not wanted:
        return lambda _, args, kwargs: function(*args, **kwargs)
    signature = inspect.signature(function)

    places = list(signature.parameters)
    first = min(places.index(name) for name in wanted)
    by_name = all(signature.parameters[name].kind is not inspect.Parameter.POSITIONAL_ONLY for name in wanted)

    def start(call: Reservation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        chosen = {"target": str(call.target), "model": call.model, "provider": call.provider}
        if by_name and len(args) <= first:  # the usual case
            return function(*args, **{**kwargs, **{name: chosen[name] for name in wanted}})
        bound = signature.bind_partial(*args, **kwargs)
        bound.arguments.update({name: chosen[name] for name in wanted})
        return function(*bound.args, **bound.kwargs)

    return start
