"""`@fn.fallback(target)`: how to make the same call elsewhere, when its first target cannot serve it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

from agent_rate_limiter.errors import AllTargetsFailed, LimitExceeded
from agent_rate_limiter.providers.model import FailureKind

if TYPE_CHECKING:
    from agent_rate_limiter.calls import Calls
    from agent_rate_limiter.limits import Target

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

_ELSEWHERE = frozenset(
    {FailureKind.WAIT, FailureKind.PARKED, FailureKind.NO_CREDIT, FailureKind.OVERLOADED, FailureKind.TRANSIENT}
)
"""Failures that another target need not share; a bad request is bad everywhere."""


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


class Chain:
    """One function and its fallbacks.

    Args:
        calls: reads failures.
        target: where the function's own calls go.
        limit: makes a limited function for a target.
    """

    def __init__(
        self, calls: Calls, target: Target, limit: Callable[[str | Target, Callable[..., Any]], tuple[Target, Any]]
    ) -> None:
        self._calls = calls
        self._limit = limit
        self._links: list[tuple[Target, Any]] = []
        self._target = target

    def begin(self, primary: Callable[..., Any]) -> Any:
        """Return the function that tries the primary, then the fallbacks."""
        self._links = [(self._target, primary)]
        tried = next((kind for is_kind, kind in _KINDS if is_kind(primary)), _call)(self)
        chained: Any = functools.wraps(primary)(tried)
        chained.fallback = self.fallback
        return chained

    def fallback(self, target: str | Target) -> Callable[[Callable[..., Any]], Any]:
        """As `Limited.fallback`."""

        def register(function: Callable[..., Any]) -> Any:
            where, link = self._limit(target, function)
            self._links.append((where, link))
            return link

        return register

    def attempts(self) -> Iterator[_Link]:
        """Every link in turn; ends when one has succeeded, raises when none has."""
        causes: dict[str, BaseException] = {}
        last: Exception | None = None
        for target, function in self._links:
            link = _Link(function)
            yield link
            if link.error is None:
                return
            if not self._elsewhere(link.error) or len(self._links) == 1:
                raise link.error
            causes[str(target)] = last = link.error
        raise AllTargetsFailed(causes) from last

    def _elsewhere(self, error: BaseException) -> bool:
        if isinstance(error, LimitExceeded):
            return True
        failure = self._calls.read_failure(error)
        return failure is not None and failure.kind in _ELSEWHERE


class _Link:
    """One target's try."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.error: Exception | None = None


def _call(chain: Chain) -> Callable[..., Any]:
    def tried(*args: Any, **kwargs: Any) -> Any:
        result: Any = None
        for link in chain.attempts():
            try:
                result = link.function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001, PERF203 - the chain judges it
                link.error = error
        return result

    return tried


def _coroutine(chain: Chain) -> Callable[..., Any]:
    async def tried(*args: Any, **kwargs: Any) -> Any:
        result: Any = None
        for link in chain.attempts():
            try:
                result = await link.function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001, PERF203 - as above
                link.error = error
        return result

    return tried


def _generator(chain: Chain) -> Callable[..., Any]:
    def tried(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        began = False
        for link in chain.attempts():
            items: Any = link.function(*args, **kwargs)
            try:
                first = next(items)
                began = True
                yield first
                return cast("Any", (yield from items))
            except StopIteration as end:
                return end.value
            except Exception as error:
                if began:
                    raise
                link.error = error
        return None

    return tried


def _async_generator(chain: Chain) -> Callable[..., Any]:
    async def tried(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        began = False
        for link in chain.attempts():
            items = link.function(*args, **kwargs)
            try:
                async for item in items:
                    began = True
                    yield item
            except Exception as error:
                if began:
                    raise
                link.error = error
            finally:
                await items.aclose()

    return tried


_KINDS = (
    (inspect.isasyncgenfunction, _async_generator),
    (inspect.iscoroutinefunction, _coroutine),
    (inspect.isgeneratorfunction, _generator),
)
