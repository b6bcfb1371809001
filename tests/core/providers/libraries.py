"""Real SDKs and HTTP libraries, called over a real socket, and a server that answers as a test wants."""

from __future__ import annotations

import asyncio
import http.server
import json
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import aiohttp
import anthropic
import httpx
import httpx2
import openai
import requests
from google import genai
from google.genai.types import HttpOptions

HI: Any = [{"role": "user", "content": "hi"}]


class Server(http.server.ThreadingHTTPServer):
    """Answers every request with what the test wants."""

    daemon_threads = True
    status = 200
    headers: dict[str, str]
    content = b""
    hang_up = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, status: int, headers: dict[str, str], body: object) -> None:
        self.status, self.headers = status, {"content-type": "application/json", **headers}
        self.content = body if isinstance(body, bytes) else json.dumps(body).encode()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = cast("Server", self.server)
        self.rfile.read(int(self.headers.get("content-length") or 0))
        if server.hang_up:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response_only(server.status)  # without a Date of its own
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(server.content)))
        self.end_headers()
        self.wfile.write(server.content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Keep quiet."""


@contextmanager
def running() -> Iterator[Server]:
    """Run a server, on a free port of loopback."""
    with Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.005,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def call_with_openai(url: str) -> None:
    with openai.OpenAI(api_key="k", base_url=url, max_retries=0) as client:
        for _ in client.chat.completions.create(model="m", messages=HI, stream=True):
            pass


def call_with_openai_async(url: str) -> None:
    async def call() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=url, max_retries=0) as client:
            await client.responses.create(model="m", input="hi")

    asyncio.run(call())


def call_with_openai_on_httpx(url: str) -> None:
    with httpx.Client() as http_client:
        older: Any = http_client  # the SDK takes it, its types do not
        client = openai.OpenAI(api_key="k", base_url=url, max_retries=0, http_client=older)
        client.chat.completions.create(model="m", messages=HI)


def call_with_anthropic(url: str) -> None:
    with anthropic.Anthropic(api_key="k", base_url=url, max_retries=0) as client:
        for _ in client.messages.create(model="m", messages=HI, max_tokens=9, stream=True):
            pass


def call_with_google(url: str) -> None:
    with genai.Client(api_key="k", http_options=HttpOptions(base_url=url)) as client:
        client.models.generate_content(model="m", contents="hi")


def call_with_httpx(url: str) -> None:
    httpx.post(url, json={}).raise_for_status()


def call_with_httpx2(url: str) -> None:
    httpx2.post(url, json={}).raise_for_status()


def call_with_requests(url: str) -> None:
    requests.post(url, json={}, timeout=5).raise_for_status()


def call_with_aiohttp(url: str) -> None:
    async def call() -> None:
        async with aiohttp.ClientSession() as session, session.post(url, json={}) as response:
            response.raise_for_status()

    asyncio.run(call())


def call_with_urllib(url: str) -> None:
    urllib.request.urlopen(url, data=b"{}", timeout=5).close()  # noqa: S310 - loopback


SDKS: dict[str, list[Callable[[str], None]]] = {
    "openai": [call_with_openai, call_with_openai_async, call_with_openai_on_httpx],
    "azure": [call_with_openai],
    "anthropic": [call_with_anthropic],
    "gemini": [call_with_google],
}
HTTP: list[Callable[[str], None]] = [
    call_with_httpx,
    call_with_httpx2,
    call_with_requests,
    call_with_aiohttp,
    call_with_urllib,
]
CALLERS = [*(caller for callers in SDKS.values() for caller in callers), *HTTP]
