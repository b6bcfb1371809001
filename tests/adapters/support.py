"""What the adapters' tests share: a limiter's books, and a server that answers as it is told, to the byte."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

from agent_rate_limiter import Limit, MultiProviderLimiter, Provider, RateLimiter, Resource, RetryStrategy
from agent_rate_limiter.testing.simulated import SimulatedProvider

if TYPE_CHECKING:
    from typing_extensions import Self

MODEL = "gpt-4"
ONCE = RetryStrategy(max_attempts=1)


def roomy(provider: str = "openai", model: str = MODEL, **options: Any) -> MultiProviderLimiter:
    """A limiter in which nothing binds, nothing refills, and nothing is retried: what is used stays visible."""
    totals = [Limit(Resource.REQUESTS, 10_000, None), Limit(Resource.TOKENS, 10_000_000, None)]
    return MultiProviderLimiter([Provider(provider, {model: {"limits": totals, **options}})], retry=ONCE)


def used(limiter: RateLimiter | MultiProviderLimiter, resource: str) -> float:
    """How much of the limit on a resource is taken."""
    status = next(status for status in limiter.snapshot().limits if status.resource == resource)
    return round(status.amount - status.available)


def booked(limiter: RateLimiter | MultiProviderLimiter) -> tuple[int, int, int]:
    """Requests, input and output tokens in the limiter's books."""
    rows = limiter.costs.report().to_dicts()
    return tuple(sum(int(str(row[name])) for row in rows) for name in ("requests", "input_tokens", "output_tokens"))  # type: ignore[return-value]


def accounted(provider: SimulatedProvider) -> tuple[int, int, int]:
    """The same in the provider's books."""
    report = provider.report()
    return report.received, report.input_tokens, report.output_tokens


async def finish(result: Any) -> list[Any]:
    """Await, enter and read to the end whatever a call returned, sync or async."""
    if inspect.isawaitable(result):
        return await finish(await result)
    if hasattr(result, "__next__"):
        return list(result)
    if hasattr(result, "__anext__"):
        return [item async for item in result]
    if hasattr(result, "__aenter__"):
        async with result as inner:
            return await finish(inner)
    return await _finish_sync(result)


async def _finish_sync(result: Any) -> list[Any]:
    if hasattr(result, "__enter__"):
        with result as inner:
            return await finish(inner)
    if type(result).__name__ in {"APIResponse", "AsyncAPIResponse"}:  # of with_streaming_response
        return await finish(result.read())
    return [result]


class Heard(NamedTuple):
    """A request as the server heard it; names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Reply(NamedTuple):
    """An answer, in the pieces in which it is sent; one that breaks off ends without its last chunk."""

    pieces: Iterable[bytes]
    kind: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = {}
    breaks_off: bool = False


class ScriptedServer:
    """A real HTTP server on loopback whose answers a test writes byte by byte."""

    def __init__(self, script: Callable[[Heard], Reply]) -> None:
        self.script = script
        self.heard: list[Heard] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server.answer(self)

            do_GET = do_POST  # noqa: N815 - the base class's name

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as above
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Hear a request, and send its reply in chunks."""
        heard = Heard(handler.command, handler.path, _headers(handler), _received(handler))
        self.heard.append(heard)
        reply = self.script(heard)
        handler.send_response(reply.status)
        for name, value in {"content-type": reply.kind, "transfer-encoding": "chunked", **reply.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        for piece in reply.pieces:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            handler.wfile.flush()
        if reply.breaks_off:
            handler.close_connection = True
        else:
            handler.wfile.write(b"0\r\n\r\n")

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def _headers(handler: BaseHTTPRequestHandler) -> dict[str, str]:
    return {name.lower(): value for name, value in handler.headers.items()}


def _received(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("transfer-encoding") != "chunked":
        return handler.rfile.read(int(handler.headers.get("content-length") or 0))
    body = b""
    while size := int(handler.rfile.readline(), 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return body
