"""HTTP: routes, and how answers, streams and broken connections go over the wire."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import chain
from typing import Any, Protocol, TypeVar, cast

from aiohttp import web

from agent_rate_limiter.testing.simulated import anthropic, gemini
from agent_rate_limiter.testing.simulated.anthropic import Messages
from agent_rate_limiter.testing.simulated.calls import Answer, Api, BadRequest, Event, Reply
from agent_rate_limiter.testing.simulated.chat import Chat, Embeddings
from agent_rate_limiter.testing.simulated.gemini import Generate
from agent_rate_limiter.testing.simulated.options import Dialect
from agent_rate_limiter.testing.simulated.reports import Outcome
from agent_rate_limiter.testing.simulated.responses import Responses
from agent_rate_limiter.testing.simulated.simulation import WIRES, Exchange, Simulation
from agent_rate_limiter.testing.simulated.timeline import Timeline
from agent_rate_limiter.testing.simulated.tokens import compact
from agent_rate_limiter.testing.simulated.wires import Moment

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_OPENAI: list[tuple[str, Api]] = [
    ("chat/completions", Chat()),
    ("responses", Responses()),
    ("embeddings", Embeddings()),
]
OK = 200
_REFUSALS = {413, 429}  # too large ever to fit, too many
_LINGER = "hh" if os.name == "nt" else "ii"  # two C integers, short ones on Windows
_BROKEN = {"stream_error", "azure_failed_first", "truncated_stream", "reset_stream"}
_HARMLESS = {
    "user-agent", "content-type", "accept", "anthropic-version", "anthropic-beta", "idempotency-key",
    "x-stainless-retry-count", "x-stainless-async", "x-stainless-lang", "x-stainless-package-version",
    "x-client-request-id", "x-goog-api-client", "x-request-id", "traceparent",
}  # fmt: skip


class Desk(Protocol):
    """What the handlers need of the provider: its books under a lock, and its time."""

    timeline: Timeline

    def within(self, step: Callable[[Simulation, Moment], T]) -> T:
        """Run a step on the simulation, now."""
        ...

    def dialect_of(self, natural: Dialect) -> Dialect:
        """The dialect in which an API is spoken here."""
        ...


class Handlers:
    """The routes of every API.

    Args:
        desk: the provider.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def application(self) -> web.Application:
        """All routes of all providers, side by side."""
        app = web.Application(client_max_size=64 * 2**20)
        roots: list[tuple[str, Dialect]] = [
            ("/v1", "openai"),
            ("/openai/v1", "groq"),
            ("/openai/deployments/{model}", "azure"),
        ]
        for root, dialect in roots:
            for path, api in _OPENAI:
                app.router.add_post(f"{root}/{path}", self._serve(api, dialect))
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_post("/v1/messages", self._serve(Messages(), "anthropic"))
        app.router.add_post("/v1/messages/count_tokens", self._count_messages)
        app.router.add_get("/{version:v1|v1beta|v1alpha}/models/{model}", self._describe_gemini)
        app.router.add_post("/{version:v1|v1beta|v1alpha}/models/{model}:countTokens", self._count_gemini)
        for method in ("generateContent", "streamGenerateContent"):
            path = f"/{{version:v1|v1beta|v1alpha}}/models/{{model}}:{method}"
            app.router.add_post(path, self._serve(Generate(), "gemini"))
        return app

    def _serve(self, api: Api, natural: Dialect) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            dialect = self._desk.dialect_of(natural)
            exchange = await self._open(request, api, dialect)
            try:
                return await self._answer(request, exchange)
            except ConnectionError:  # the client has gone: aiohttp finds that out once more, quietly
                self._close(exchange, "dropped")
                return web.Response()
            finally:
                self._close(exchange, "failed")  # a no-op unless something went wrong above

        return handler

    async def _open(self, request: web.Request, api: Api, dialect: Dialect) -> Exchange:
        """Understand the request and let the provider decide on it."""
        body: Mapping[str, Any] = {}
        model = request.match_info.get("model")
        caller = (_key(request), _harmless(request))
        try:
            body = await _json(request)
            call = api.call(body, model, stream=request.path.endswith(":streamGenerateContent"))
        except BadRequest as error:
            bad, name = error, model or str(body.get("model", ""))
            return self._desk.within(lambda sim, moment: sim.reject(api, dialect, bad, name, moment))
        return self._desk.within(lambda sim, moment: sim.open(api, dialect, call, caller, moment))

    async def _answer(self, request: web.Request, exchange: Exchange) -> web.StreamResponse:
        if exchange.answer is not None:
            return await self._say(request, exchange, exchange.answer)
        if exchange.reply is not None:
            return self._whole(exchange, exchange.reply)
        if exchange.fault is not None and exchange.mishap == "hang":
            await self._desk.timeline.pause(exchange.fault.seconds)
        return self._hang_up(request, exchange, web.Response())

    async def _say(self, request: web.Request, exchange: Exchange, answer: Answer) -> web.StreamResponse:
        """The model's answer, in the time that it takes."""
        await self._desk.timeline.pause(answer.latency)
        if exchange.call.stream and (exchange.api.name != "generate" or request.query.get("alt") == "sse"):
            return await self._stream(request, exchange, answer)
        if exchange.mishap == "reset_after_headers":
            return self._hang_up(request, exchange, await self._prepare(request, exchange, "application/json"))
        await self._generate(exchange, answer.tokens.output, answer)
        body: Any = exchange.api.body(exchange.call, answer, self._epoch())
        if exchange.call.stream:  # without `alt=sse`, Gemini streams a JSON array
            body = [json.loads(event.data.decode().removeprefix("data: ")) for event in self._events(exchange, answer)]
        return self._whole(exchange, Reply(OK, body))

    def _whole(self, exchange: Exchange, reply: Reply) -> web.Response:
        """An answer in one piece; the exchange is over before it is sent, so that the next call finds room."""
        exchange.status = reply.status
        wrong: Outcome = "refused" if reply.status in _REFUSALS else "failed"
        self._close(exchange, "completed" if reply.status == OK else wrong)
        plain = isinstance(reply.body, str)
        return web.Response(
            status=reply.status,
            text=reply.body if plain else compact(reply.body),
            headers=self._headers(exchange),
            content_type="text/html" if plain else "application/json",
        )

    async def _stream(self, request: web.Request, exchange: Exchange, answer: Answer) -> web.StreamResponse:
        """Server-sent events; the exchange is over before the last of them is sent, as above."""
        response = await self._prepare(request, exchange, "text/event-stream")
        if exchange.mishap == "reset_after_headers":
            return self._hang_up(request, exchange, response)
        outcome: Outcome = "refused" if exchange.refused else "failed" if exchange.mishap in _BROKEN else "completed"
        events = self._events(exchange, answer)
        event = next(events, None)
        while event is not None:
            following = next(events, None)
            await self._generate(exchange, event.tokens, answer)
            if following is None:
                self._close(exchange, outcome)
            await response.write(event.data)
            event = following
        if exchange.mishap == "reset_stream":
            return self._hang_up(request, exchange, response)
        await response.write_eof()
        return response

    def _events(self, exchange: Exchange, answer: Answer) -> Iterator[Event]:
        """The events of a stream, cut and ended as its fault has it."""
        call, fault = exchange.call, exchange.fault
        if exchange.refused is not None:
            return exchange.api.failure(call, answer, exchange.refused)
        events = exchange.api.events(call, answer, self._epoch())
        if fault is None or fault.kind not in _BROKEN:
            return events
        begun = _pieces(events, fault.after_pieces)
        if fault.kind in {"truncated_stream", "reset_stream"}:
            return begun
        error = {**exchange.wire.stream_error(), **(fault.error or {})}
        error["failed_first"] = fault.kind == "azure_failed_first"
        return chain(begun, exchange.api.failure(call, answer, error))

    async def _prepare(self, request: web.Request, exchange: Exchange, kind: str) -> web.StreamResponse:
        response = web.StreamResponse(headers=self._headers(exchange))
        response.content_type = kind
        await response.prepare(request)
        exchange.status = OK
        return response

    async def _generate(self, exchange: Exchange, tokens: int, answer: Answer) -> None:
        """Take as long as the model takes for these tokens, and count them."""
        if not tokens:
            return
        if exchange.fault is not None and exchange.mishap == "slow_stream":
            await self._desk.timeline.pause(exchange.fault.seconds)
        elif answer.tokens_per_second is not None:
            await self._desk.timeline.pause(tokens / answer.tokens_per_second)
        self._desk.within(lambda sim, moment: sim.produce(exchange, tokens, moment))

    def _hang_up(self, request: web.Request, exchange: Exchange, response: web.StreamResponse) -> web.StreamResponse:
        """Reset the connection: with no time to linger, closing it sends RST instead of FIN."""
        self._close(exchange, "failed")
        transport = request.transport
        if transport is not None:
            raw = transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(_LINGER, 1, 0))
            transport.abort()
        return response

    def _close(self, exchange: Exchange, outcome: Outcome) -> None:
        self._desk.within(lambda sim, moment: sim.close(exchange, outcome, moment))

    def _epoch(self) -> int:
        return int(self._desk.timeline.moment().now)

    def _headers(self, exchange: Exchange) -> dict[str, str]:
        return self._desk.within(lambda sim, moment: sim.headers(exchange, moment))

    async def _list_models(self, request: web.Request) -> web.Response:
        del request
        models = self._desk.within(lambda sim, _: sim.organization.models)
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "simulated"} for name in models]
        return web.json_response({"object": "list", "data": data})

    async def _describe_gemini(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        if self._desk.within(lambda sim, _: sim.organization.config(name)) is None:
            return _error(WIRES["gemini"].problem("model_not_found", name))
        limits = {"inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536}
        methods = {"supportedGenerationMethods": ["generateContent", "countTokens"]}
        return web.json_response({"name": f"models/{name}", "displayName": name, **limits, **methods})

    async def _count_messages(self, request: web.Request) -> web.Response:
        return await _counted(request, "anthropic", "input_tokens", anthropic.input_tokens)

    async def _count_gemini(self, request: web.Request) -> web.Response:
        return await _counted(request, "gemini", "totalTokens", gemini.input_tokens)


async def _counted(
    request: web.Request, dialect: Dialect, name: str, count: Callable[[Mapping[str, Any]], int]
) -> web.Response:
    try:
        return web.json_response({name: count(await _json(request))})
    except BadRequest as bad:
        return _error(WIRES[dialect].problem("bad_request", "", str(bad), bad.param))


def _error(reply: Reply) -> web.Response:
    return web.json_response(reply.body, status=reply.status, headers=reply.headers)


async def _json(request: web.Request) -> Mapping[str, Any]:
    try:
        body = json.loads(await request.read())
    except ValueError:
        raise BadRequest("We could not parse the JSON body of your request.") from None
    if not isinstance(body, dict):
        raise BadRequest("The body of your request must be a JSON object.")
    return cast("Mapping[str, Any]", body)


def _pieces(events: Iterator[Event], count: int) -> Iterator[Event]:
    """A stream's events up to so many pieces of text."""
    for event in events:
        if event.tokens and count == 0:
            return
        yield event
        count -= bool(event.tokens)


def _key(request: web.Request) -> str:
    names = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
    return next((request.headers[name] for name in names if name in request.headers), request.query.get("key", ""))


def _harmless(request: web.Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items() if name.lower() in _HARMLESS}
