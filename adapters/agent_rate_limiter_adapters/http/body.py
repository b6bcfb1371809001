"""Bodies: what a request asks for, and a response's body as it is without its encoding."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from httpx2 import URL, Headers, Request

_FORM_FIELD = re.compile(rb'form-data; name="(\w+)"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{0,200})\r\n--')
_FORM_BEGINNING = 100_000
"""Bytes of a form that are searched: its fields come before its files."""
_SIGNED = ("x-amz-content-sha256", "content-digest", "content-md5", "digest", "signature")


def parse(content: bytes) -> Any:
    """Read JSON; None when it is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def asked(request: Request) -> dict[str, Any]:
    """Return what a request asks for: its JSON object, or the fields of its form; empty when it has neither."""
    if _is_form(request):
        return _form(request.content[:_FORM_BEGINNING])
    return document(request)


def document(request: Request) -> dict[str, Any]:
    """Return a request's JSON object; empty when it has none."""
    body: Any = None if _is_form(request) else parse(request.content)
    return cast("dict[str, Any]", body) if isinstance(body, dict) else {}


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").startswith("multipart/form-data")


def _form(content: bytes) -> dict[str, Any]:
    return {name.decode(): value.decode("utf-8", "replace") for name, value in _FORM_FIELD.findall(content)}


def with_body(request: Request, body: Mapping[str, Any], url: URL | None = None) -> Request:
    """Return the request with another JSON body, and perhaps another URL."""
    return _resent(request, json.dumps(body, separators=(",", ":")).encode(), url)


def with_url(request: Request, url: URL) -> Request:
    """Return the request as it goes to another URL."""
    return _resent(request, request.content, url)


def _resent(request: Request, content: bytes, url: URL | None) -> Request:
    headers = request.headers.copy()
    for name in ("content-length", "transfer-encoding"):
        headers.pop(name, None)
    where = request.url if url is None else url
    return type(request)(request.method, where, headers=headers, content=content, extensions=request.extensions)


def signed(headers: Headers) -> bool:
    """Whether a request's headers vouch for its body, which then must stay as it is."""
    return any(name in headers for name in _SIGNED) or headers.get("authorization", "").startswith("AWS4-")


def decoder(library: Any, headers: Headers) -> Callable[[bytes], bytes] | None:
    """Return what takes away the encoding of a response's body; None where it has none."""
    if headers.get("content-encoding", "identity").strip().lower() in {"", "identity"}:
        return None
    return lambda raw: _decoded(library, headers, raw)


def _decoded(library: Any, headers: Headers, raw: bytes) -> bytes:
    """Decode as much as can be read."""
    pieces: list[bytes] = []
    try:
        for piece in library.Response(200, headers=headers, stream=library.ByteStream(raw)).iter_bytes():
            pieces.append(piece)  # noqa: PERF402 - what came before an error counts
    except (library.DecodingError, ValueError):
        pass  # cut short, or an encoding that is not installed
    return b"".join(pieces)
