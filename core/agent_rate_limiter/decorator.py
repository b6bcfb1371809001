"""`@limiter.limit(...)`: one decorator for functions, coroutines, generators and async generators."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from agent_rate_limiter import context
from agent_rate_limiter.attempts import Attempts
from agent_rate_limiter.fallback import Chain, Limited
from agent_rate_limiter.limits import Target
from agent_rate_limiter.usage import Estimate, Usage

if TYPE_CHECKING:
    from agent_rate_limiter.calls import Calls
    from agent_rate_limiter.reservation import Reservation

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Start = Callable[["Reservation", tuple[Any, ...], dict[str, Any]], Any]
"""Starts the user's function for one admitted call."""


class Terms:
    """How the calls of one decorated function are admitted.

    Args:
        calls: who admits them.
        target: where they go.
        estimate: what each is expected to use, or a function of the call's arguments that says so.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait; None waits for ever.
    """

    def __init__(
        self,
        calls: Calls,
        target: Target,
        estimate: Estimate | Callable[..., Estimate],
        priority: int | None,
        timeout: float | None,
    ) -> None:
        self.calls = calls
        self.target = target
        self._estimate = estimate
        self._priority = priority
        self._timeout = timeout

    def attempts(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Attempts:
        """Begin one call with these arguments."""
        estimate = self._estimate if isinstance(self._estimate, Estimate) else self._estimate(*args, **kwargs)
        return Attempts(self.calls, self.target, estimate, self._priority, self._timeout)

    def towards(self, target: Target) -> Terms:
        """Return the same terms for another target."""
        return Terms(self.calls, target, self._estimate, self._priority, self._timeout)


def limited(
    function: Callable[P, R], terms: Terms, resolve: Callable[[str | Target], Target] = Target.parse
) -> Limited[P, R]:
    """Wrap a function of any of the four kinds; its result settles the call if it states its usage.

    Args:
        function: the user's.
        terms: how its calls are admitted.
        resolve: checks the target of a fallback.
    """

    def elsewhere(target: str | Target, other: Callable[..., Any]) -> tuple[Target, Any]:
        where = resolve(target)
        return where, _limited(other, terms.towards(where))

    chained: Limited[P, R] = Chain(terms.calls, terms.target, elsewhere).begin(_limited(function, terms))
    return chained


def _limited(function: Callable[..., Any], terms: Terms) -> Callable[..., Any]:
    awaited = inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - an object with one
    kind = _coroutine if awaited else next((kind for is_kind, kind in _KINDS if is_kind(function)), _function)
    return functools.wraps(function)(kind(_prepared(function), terms))


def _function(start: Start, terms: Terms) -> Callable[..., Any]:
    def call_sync(*args: Any, **kwargs: Any) -> Any:
        attempts = terms.attempts(args, kwargs)
        while True:
            call = attempts.acquire()
            try:
                with context.holding(call):
                    result = start(call, args, kwargs)
            except BaseException as error:
                if not attempts.failed(call, error):
                    raise
            else:
                return _awaited(call, result) if inspect.isawaitable(result) else _concluded(call, result)

    return call_sync


def _coroutine(start: Start, terms: Terms) -> Callable[..., Any]:
    async def call_async(*args: Any, **kwargs: Any) -> Any:
        attempts = terms.attempts(args, kwargs)
        while True:
            call = await attempts.acquire_async()
            try:
                with context.holding(call):
                    result = await start(call, args, kwargs)
            except BaseException as error:
                if not attempts.failed(call, error):
                    raise
            else:
                return _concluded(call, result)

    return call_async


def _generator(start: Start, terms: Terms) -> Callable[..., Any]:
    def stream(*args: Any, **kwargs: Any) -> Generator[Any, None, Any]:
        attempts = terms.attempts(args, kwargs)
        while True:
            call, last = attempts.acquire(), _END
            try:
                with closing(start(call, args, kwargs)) as items:
                    while not isinstance(item := _next(call, items), _End):
                        last = item
                        yield item
            except BaseException as error:
                if not attempts.failed(call, error, resend=last is _END):
                    raise
            else:
                _concluded(call, last if item.value is None else item.value)
                return item.value

    return stream


def _async_generator(start: Start, terms: Terms) -> Callable[..., Any]:
    async def stream_async(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        attempts = terms.attempts(args, kwargs)
        while True:
            call, last = await attempts.acquire_async(), _END
            try:
                async with aclosing(start(call, args, kwargs)) as items:
                    while (item := await _anext(call, items)) is not _END:
                        last = item
                        yield item
            except BaseException as error:
                if not attempts.failed(call, error, resend=last is _END):
                    raise
            else:
                _concluded(call, last)
                return

    return stream_async


async def _awaited(call: Reservation, result: Any) -> Any:
    """What a plain function returned to be awaited is a call in flight until then."""
    try:
        with context.holding(call):
            value = await result
    except BaseException as error:
        call.fail(error)
        raise
    return _concluded(call, value)


def _next(call: Reservation, items: Iterator[Any]) -> Any:
    with context.holding(call):  # not while suspended: the caller's other calls are not this one
        try:
            return next(items)
        except StopIteration as end:
            return _End(end.value)


class _End(NamedTuple):
    """A generator has returned a value."""

    value: Any


async def _anext(call: Reservation, items: AsyncIterator[Any]) -> Any:
    with context.holding(call):  # as above
        return await anext(items, _END)


_END = object()
_KINDS = (
    (inspect.isasyncgenfunction, _async_generator),
    (inspect.iscoroutinefunction, _coroutine),
    (inspect.isgeneratorfunction, _generator),
)


def _concluded(call: Reservation, result: T) -> T:
    """Settle with the result if it says what was used, else with the estimate."""
    if not call.done and not call.claimed:
        silent = result is _END or result is None or isinstance(result, (str, bytes, int, float))
        call.settle(None if silent else result if isinstance(result, Usage) else call.read(result))
    return result


def _prepared(function: Callable[..., Any]) -> Start:
    """A parameter named target, model or provider is given the one chosen."""
    signature = inspect.signature(function)
    wanted = [name for name in ("target", "model", "provider") if name in signature.parameters]
    if not wanted:
        return lambda _, args, kwargs: function(*args, **kwargs)

    def start(call: Reservation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        chosen = {"target": str(call.target), "model": call.model, "provider": call.provider}
        bound = signature.bind_partial(*args, **kwargs)
        bound.arguments.update({name: chosen[name] for name in wanted})
        return function(*bound.args, **bound.kwargs)

    return start
