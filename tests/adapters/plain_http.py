"""Plain clients of httpx and httpx2, sync and async, and calls to make with them."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from agent_rate_limiter_adapters.http import adapter
from tests.adapters.support import MODEL, Reply, ScriptedServer, finish

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
ANSWER = {"choices": [{"message": {"content": "Blue."}, "finish_reason": "stop"}], "usage": USAGE}
ASKED: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 50}
PATH = "/v1/chat/completions"
SIDES = [(library, side) for library in ("httpx", "httpx2") for side in ("Client", "AsyncClient")]

everywhere = pytest.mark.parametrize(("library", "side"), SIDES, ids=[f"{library}-{side}" for library, side in SIDES])


def reply_json(body: Any, **rest: Any) -> Reply:
    return Reply([json.dumps(body).encode()], **rest)


def reply_events(*events: Any, end: bytes = b"\n", done: bool = True, **rest: Any) -> Reply:
    lines = [b"data: " + json.dumps(event).encode() for event in events] + [b"data: [DONE]"] * done
    return Reply([b"".join(line + end * 2 for line in lines)], kind="text/event-stream", **rest)


CHUNKS: list[Any] = [
    {"choices": [{"delta": {"content": "Because it "}}]},
    {"choices": [{"delta": {"content": "scatters."}, "finish_reason": "stop"}]},
    {"choices": [], "usage": USAGE},
]


def send(
    library: str,
    side: str,
    server: ScriptedServer,
    use: Callable[[Any], Any],
    limiter: Any,
    **options: Any,
) -> Any:
    """Use a limited client of one library and side; the provider is named, as nobody knows the server's host."""

    async def run() -> Any:
        client = getattr(importlib.import_module(library), side)(base_url=server.url, verify=False)  # no TLS: faster
        twin = adapter(client, limiter, **{"provider": "openai", **options})
        try:
            result = use(twin)
            return await result if asyncio.iscoroutine(result) else result
        finally:
            await finish(twin.aclose() if side == "AsyncClient" else twin.close())

    return asyncio.run(run())


def post(client: Any, **rest: Any) -> Any:
    return client.post(PATH, **{"json": ASKED, **rest})


def streamed(client: Any, how: str = "iter_bytes") -> Any:
    """Post, and read the answer piece by piece, as it was sent or decoded."""

    async def read() -> bytes:
        async with client.stream("POST", PATH, json={**ASKED, "stream": True}) as response:
            return b"".join([piece async for piece in getattr(response, f"a{how}")()])

    if hasattr(client, "aclose"):
        return read()
    with client.stream("POST", PATH, json={**ASKED, "stream": True}) as response:
        return b"".join(getattr(response, how)())
