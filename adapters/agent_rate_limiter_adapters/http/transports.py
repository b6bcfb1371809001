"""Transports that limit what goes through them, for httpx and for httpx2, sync and async."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import cache
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any

from agent_rate_limiter_adapters.http.body import decoder
from agent_rate_limiter_adapters.http.flow import Acquire, Begin, Load, Read, Send, Step, Terms, limited
from agent_rate_limiter_adapters.http.meter import Meter

if TYPE_CHECKING:
    from httpx2 import AsyncBaseTransport, AsyncByteStream, BaseTransport, Request, Response, SyncByteStream
    from typing_extensions import Self

    from agent_rate_limiter.providers import Failure


class Wrapping:
    """A transport around another one; sync and async differ in who awaits.

    Args:
        inner: sends the requests.
        terms: on which they are limited.
    """

    body: type[Any]
    """What streams are read through, of the library's own kind."""

    def __init__(self, inner: Any, terms: Terms) -> None:
        self.inner = inner
        self.terms = terms

    def _tapped(self, response: Response, meter: Meter | None) -> Response:
        if meter is not None:
            response.stream = self.body(response.stream, meter)
        return response

    def _whole(self, response: Response, raw: bytes) -> bytes:
        response.stream = self.terms.library.ByteStream(raw)
        decode = decoder(self.terms.library, response.headers)
        return raw if decode is None else decode(raw)


class SyncTransport(Wrapping):
    """Takes the steps of the flow, blocking."""

    inner: BaseTransport

    def handle_request(self, request: Request) -> Response:
        """Send a request, within its limits."""
        flow = limited(request, self.terms)
        try:
            step = next(flow)
            while True:
                try:
                    result = self._take(step)
                except BaseException as error:  # noqa: BLE001, PERF203 - the flow's to judge
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as end:
            return self._tapped(*end.value)

    def _take(self, step: Step) -> Any:
        if isinstance(step, Send):
            return self.inner.handle_request(step.request)
        if isinstance(step, Acquire):
            return step.attempts.acquire()
        if isinstance(step, Load):
            return step.request.read()
        return self._read(step.response) if isinstance(step, Read) else self._begin(step)

    def _read(self, response: Response, beginning: bytes = b"", pieces: Any = None) -> bytes:
        stream: Any = response.stream
        try:
            raw = beginning + b"".join(stream if pieces is None else pieces)
        finally:
            stream.close()
        return self._whole(response, raw)

    def _begin(self, step: Begin) -> Failure | None:
        response, meter = step
        stream: Any = response.stream
        pieces = iter(stream)
        try:
            for piece in pieces:
                if not meter.hold(piece):
                    break
        except BaseException:
            stream.close()
            raise
        if meter.refused is None:
            response.stream = self.body(stream, meter, pieces)
        else:
            self._read(response, b"".join(meter.release()), pieces)
        return meter.refused

    def close(self) -> None:
        """Close the inner transport."""
        self.inner.close()

    def __enter__(self) -> Self:
        """Open the inner transport."""
        self.inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the inner transport."""
        self.inner.__exit__(kind, error, trace)


class AsyncTransport(Wrapping):
    """Takes the steps of the flow, awaiting."""

    inner: AsyncBaseTransport

    async def handle_async_request(self, request: Request) -> Response:
        """Send a request, within its limits."""
        flow = limited(request, self.terms)
        try:
            step = next(flow)
            while True:
                try:
                    result = await self._take(step)
                except BaseException as error:  # noqa: BLE001, PERF203 - the flow's to judge
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as end:
            return self._tapped(*end.value)

    async def _take(self, step: Step) -> Any:
        if isinstance(step, Send):
            return await self.inner.handle_async_request(step.request)
        if isinstance(step, Acquire):
            return await step.attempts.acquire_async()
        if isinstance(step, Load):
            return await step.request.aread()
        return await (self._read(step.response) if isinstance(step, Read) else self._begin(step))

    async def _read(self, response: Response, beginning: bytes = b"", pieces: Any = None) -> bytes:
        stream: Any = response.stream
        try:
            raw = beginning + b"".join([piece async for piece in (stream if pieces is None else pieces)])
        finally:
            await stream.aclose()
        return self._whole(response, raw)

    async def _begin(self, step: Begin) -> Failure | None:
        response, meter = step
        stream: Any = response.stream
        pieces = aiter(stream)
        try:
            async for piece in pieces:
                if not meter.hold(piece):
                    break
        except BaseException:
            await stream.aclose()
            raise
        if meter.refused is None:
            response.stream = self.body(stream, meter, pieces)
        else:
            await self._read(response, b"".join(meter.release()), pieces)
        return meter.refused

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self.inner.aclose()

    async def __aenter__(self) -> Self:
        """Open the inner transport."""
        await self.inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the inner transport."""
        await self.inner.__aexit__(kind, error, trace)


class SyncBody:
    """A response's body, and a meter that reads along; `pieces` are those that it does not hold already."""

    def __init__(self, inner: SyncByteStream, meter: Meter, pieces: Iterator[bytes] | None = None) -> None:
        self._inner = inner
        self._meter = meter
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._meter.release()
        for piece in self._inner if self._pieces is None else self._pieces:
            self._meter.feed(piece)
            if shown := self._meter.shown(piece):
                yield shown
        if rest := self._meter.rest():
            yield rest
        self._meter.end()

    def close(self) -> None:
        """Whatever has not come will not be read."""
        try:
            self._inner.close()
        finally:
            self._meter.leave()


class AsyncBody:
    """A response's body, and a meter that reads along; `pieces` are those that it does not hold already."""

    def __init__(self, inner: AsyncByteStream, meter: Meter, pieces: AsyncIterator[bytes] | None = None) -> None:
        self._inner = inner
        self._meter = meter
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for held in self._meter.release():
            yield held
        async for piece in self._inner if self._pieces is None else self._pieces:
            self._meter.feed(piece)
            if shown := self._meter.shown(piece):
                yield shown
        if rest := self._meter.rest():
            yield rest
        self._meter.end()

    async def aclose(self) -> None:
        """Whatever has not come will not be read."""
        try:
            await self._inner.aclose()
        finally:
            self._meter.leave()


@cache
def transports(library: str) -> tuple[type[SyncTransport], type[AsyncTransport]]:
    """Return the sync and the async transport for "httpx" or "httpx2", on that library's own base classes."""
    module = import_module(library)

    def on(base: str, ours: type[Any], **fields: Any) -> type[Any]:
        return type(ours.__name__, (ours, getattr(module, base)), {"__module__": __name__, **fields})

    return (
        on("BaseTransport", SyncTransport, body=on("SyncByteStream", SyncBody)),
        on("AsyncBaseTransport", AsyncTransport, body=on("AsyncByteStream", AsyncBody)),
    )
