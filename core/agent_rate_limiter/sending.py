"""Make one logical call: wait until it is admitted, send, try again, settle. For the decorator, and for adapters.

Each takes `limiter.attempts(...)`, and a function that makes one attempt. Sync and async differ in who awaits.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, aclosing, closing, nullcontext
from dataclasses import replace
from inspect import isawaitable
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeGuard, TypeVar, cast

from agent_rate_limiter.checks import check_priority, check_timeout
from agent_rate_limiter.errors import ConfigError

if TYPE_CHECKING:
    from agent_rate_limiter.calls.attempts import Attempts
    from agent_rate_limiter.calls.reservation import Reservation
    from agent_rate_limiter.usage import Usage

R = TypeVar("R")
T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
Read = Callable[[Any], "Usage | None"]
"""Finds the usage in a result; None charges the estimate."""


def check_terms(limiter: object, *, priority: int | None = None, timeout: float | None = None) -> None:
    """Refuse now, and not at the first call, what makes no sense.

    Raises:
        ConfigError: it is no limiter, no priority, or no timeout.
    """
    if not hasattr(limiter, "attempts"):
        raise ConfigError(f"limiter is {limiter!r}: give a RateLimiter or a MultiProviderLimiter.")
    if priority is not None:
        check_priority(priority)
    if timeout is not None:
        check_timeout(timeout)


def with_input(call: Reservation, usage: Usage | None) -> Usage | None:
    """Return a usage that is guessed by what came out, with what went in: as it was estimated.

    Args:
        call: whose.
        usage: one that is stated stays as it is.
    """
    if usage is None or usage.exact or usage.input_tokens:
        return usage
    return replace(usage, input_tokens=call.estimate.input_tokens)


class Meter(Protocol[T_contra]):
    """Reads along what a stream brings."""

    def feed(self, item: T_contra) -> None:
        """Note an item that has come."""
        ...

    @property
    def final(self) -> bool:
        """Whether all is known, although more items may come: the call is settled now."""
        ...

    def usage(self, *, whole: bool) -> Usage | None:
        """Say what has been used; None when nothing is known.

        Args:
            whole: whether the stream has come to its end, and was not left or broken.
        """
        ...


def send(attempts: Attempts, make: Callable[[Reservation], R], read: Read, *, joins: bool = True) -> R:
    """Make a call that returns its result, blocking the thread while it waits.

    A result that says that the call was refused, though nothing was raised (an HTTP response with status 429), is taken
    for the error it is: the call is made again, and the result is returned if it may not be. A result that is to be
    awaited is a call in flight until it was.

    Args:
        attempts: the logical call.
        make: makes one attempt, to `reservation.target`; layers inside find the reservation.
        read: finds the usage in the result.
        joins: whether it may be the call of a layer outside, whose reservation it then takes over.
    """
    call = (attempts.claim() if joins else None) or attempts.acquire()
    while True:
        try:
            with call.offered():
                result = make(call)
        except BaseException as error:
            if not attempts.failed(call, error):
                raise
        else:
            if _is_awaited(result):
                return cast("R", _send_on(attempts, make, read, call, result))
            if _ended(attempts, call, result, read):
                return result
        call = attempts.acquire()


async def send_async(
    attempts: Attempts, make: Callable[[Reservation], Awaitable[R]], read: Read, *, joins: bool = True
) -> R:
    """Make a call that is awaited, letting the event loop run while it waits. As `send`."""
    call = (attempts.claim() if joins else None) or await attempts.acquire_async()
    return cast("R", await _send_on(attempts, make, read, call))


async def _send_on(
    attempts: Attempts,
    make: Callable[[Reservation], Any],
    read: Read,
    call: Reservation,
    begun: Awaitable[Any] | None = None,
) -> Any:
    """Make the call that is admitted, or await what was begun of it; then go on as `send` does."""
    while True:
        try:
            with call.offered():
                result = make(call) if begun is None else begun
                if _is_awaited(result):  # of a plain function's fallback it need not be
                    result = await result
        except BaseException as error:
            if not attempts.failed(call, error):
                raise
        else:
            if _ended(attempts, call, result, read):
                return result
        call, begun = await attempts.acquire_async(), None


def stream(
    attempts: Attempts,
    make: Callable[[Reservation], Iterator[T]],
    meter: Callable[[], Meter[T]],
    *,
    joins: bool = True,
) -> Generator[T, Any, Any]:
    """Make a call that brings one item after the other; tried again until the first has come.

    While it is suspended, layers inside do not find the reservation: what its consumer calls is another call. A stream
    that is left early, or breaks off, is charged what was seen of it, and the estimate at least.

    Args:
        attempts: the logical call.
        make: makes one attempt, to `reservation.target`.
        meter: makes what reads along, anew for each attempt.
        joins: as for `send`.

    Returns:
        What the generator that `make` began has returned, if it was one.
    """
    call = (attempts.claim() if joins else None) or attempts.acquire()
    while True:
        tap = _Tap(attempts, call, meter())
        try:
            with call.offered():
                items = make(call)
            with _closing(items):
                while not isinstance(item := _next(call, items), _End):
                    tap.feed(item)
                    yield item
        except BaseException as error:
            if not tap.broken(error):
                raise
        else:
            tap.end(item.value)
            return item.value
        call = attempts.acquire()


async def stream_async(
    attempts: Attempts,
    make: Callable[[Reservation], AsyncIterator[T]],
    meter: Callable[[], Meter[T]],
    *,
    joins: bool = True,
) -> AsyncGenerator[T, None]:
    """Make a call that brings one item after the other, letting the event loop run meanwhile. As `stream`."""
    call = (attempts.claim() if joins else None) or await attempts.acquire_async()
    while True:
        tap = _Tap(attempts, call, meter())
        try:
            with call.offered():
                items = make(call)
            async with _aclosing(items):
                while not isinstance(item := await _anext(call, items), _End):
                    tap.feed(item)
                    yield item
        except BaseException as error:
            if not tap.broken(error):
                raise
        else:
            tap.end()
            return
        call = await attempts.acquire_async()


class _Tap(Generic[T]):
    """One attempt of a stream, and what is known of it."""

    def __init__(self, attempts: Attempts, call: Reservation, meter: Meter[T]) -> None:
        self._attempts = attempts
        self._call = call
        self._meter = meter
        self._began = False

    def feed(self, item: T) -> None:
        self._began = True
        self._meter.feed(item)
        if self._meter.final:  # its consumer may not ask for more
            self.end()

    def end(self, returned: Any = None) -> None:
        if returned is not None:
            self._meter.feed(returned)
        _settle(self._call, self._meter.usage(whole=True))

    def broken(self, error: BaseException) -> bool:
        """End the attempt; True when it is to be tried again."""
        usage = self._meter.usage(whole=False)
        if isinstance(error, GeneratorExit):  # maybe in a finalizer: nothing may be waited for
            self._call.abandon(with_input(self._call, usage))
            return False
        if self._began and usage is not None:
            _settle(self._call, usage)
        return self._attempts.failed(self._call, error, resend=not self._began)


def _is_awaited(result: object) -> TypeGuard[Awaitable[Any]]:
    """As inspect.isawaitable, which takes ten times as long for what is none."""
    kind = type(result)
    return hasattr(kind, "__await__") or (kind is GeneratorType and isawaitable(result))


def _ended(attempts: Attempts, call: Reservation, result: object, read: Read) -> bool:
    """End an attempt that returned. False: it was refused, and is to be made again."""
    if call.done:  # a layer inside may have settled it, or will
        return True
    usage = read(result)
    if usage is None and (failure := call.refusal(result)) is not None:
        return not attempts.failed(call, failure)
    call.settle(with_input(call, usage))
    return True


def _settle(call: Reservation, usage: Usage | None) -> None:
    if not call.done:  # as above
        call.settle(with_input(call, usage))


def _closing(items: Any) -> AbstractContextManager[Any]:
    return closing(items) if hasattr(items, "close") else nullcontext()


def _aclosing(items: Any) -> AbstractAsyncContextManager[Any]:
    return aclosing(items) if hasattr(items, "aclose") else nullcontext()


def _next(call: Reservation, items: Iterator[Any]) -> Any:
    with call.offered():
        try:
            return next(items)
        except StopIteration as end:
            return _End(end.value)


async def _anext(call: Reservation, items: AsyncIterator[Any]) -> Any:
    with call.offered():
        try:
            return await anext(items)
        except StopAsyncIteration:
            return _End()


class _End(NamedTuple):
    """There are no more items; a generator may have returned a value."""

    value: Any = None
