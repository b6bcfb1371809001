"""Streams and calls that run in a context of their own, whoever reads them, wherever and in whichever thread.

A stream is often asked for in one place and read in another. In its own copy of the context in which it was asked
for, it keeps that place's labels and spans, and what is set for its sake (the reservation it holds) reaches no other
call of the reader.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Generator, Iterator
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")
_END: Any = object()


def reading(context: Context, items: Iterator[T]) -> Generator[T, None, None]:
    """Yield what a generator yields, which runs in the context."""
    try:
        while (item := context.run(next, items, _END)) is not _END:
            yield item
    finally:
        context.run(close, items)


async def reading_async(context: Context, items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """Yield what an async generator yields, which runs in the context."""
    try:
        while (item := await Within(context, _next(items))) is not _END:
            yield item
    finally:
        await Within(context, close_async(items))


def close(items: Iterator[Any]) -> None:
    """Close a generator; other iterators have nothing to close."""
    if isinstance(items, Generator):
        items.close()


async def close_async(items: AsyncIterator[Any]) -> None:
    """Close an async generator."""
    if isinstance(items, AsyncGenerator):
        await items.aclose()


async def flattened(opened: Awaitable[AsyncIterator[T]]) -> AsyncGenerator[T, None]:
    """Yield what an async generator yields that has to be awaited first."""
    items = await opened
    try:
        async for item in items:
            yield item
    finally:
        await close_async(items)


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items, _END)


class Within(Awaitable[T]):
    """Awaits something in a context: it sees and sets what is there, and the awaiting task's own is untouched.

    Args:
        context: a copy that nobody else is in.
        awaited: runs there.
    """

    def __init__(self, context: Context, awaited: Awaitable[T]) -> None:
        self._context = context
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, T]:
        """Pass on what it waits for, and what it is told."""
        steps: Any = self._awaited.__await__()
        run = self._context.run
        try:
            waited_for = run(steps.send, None)
            while True:
                try:
                    told = yield waited_for
                except BaseException as error:  # noqa: BLE001, PERF203 - a cancelled task's: theirs to judge
                    waited_for = run(steps.throw, error)
                else:
                    waited_for = run(steps.send, told)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
