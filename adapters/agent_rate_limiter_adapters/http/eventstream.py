"""AWS event streams, read as they arrive (application/vnd.amazon.eventstream, as botocore and Smithy define it).

A message is: its length and that of its headers (4 bytes each), a checksum of both, headers, payload, a checksum.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from struct import unpack_from
from zlib import crc32

_PRELUDE = 12
_CHECKSUM = 4
_LONGEST = 24 * 1024 * 1024
"""Bytes of a message, at most (Smithy's specification): more is no event stream."""
_TEXT = 7
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value, by its type; those of bytes (6) and text (7) begin with their length."""


class EventStreamParser:
    """Finds each event in the pieces of a stream, as the JSON `{type: payload}`."""

    def __init__(self) -> None:
        self._rest = b""
        self._lost = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Read a piece; yield the events that it completes. What is no event stream yields nothing."""
        if self._lost:
            return
        self._rest += piece
        while len(self._rest) >= _PRELUDE:
            total, headers, checksum = unpack_from(">III", self._rest)
            whole = _PRELUDE + headers + _CHECKSUM <= total <= _LONGEST
            if not whole or crc32(self._rest[:8]) != checksum:
                self._lost, self._rest = True, b""
                return
            if len(self._rest) < total:
                return
            message, self._rest = self._rest[:total], self._rest[total:]
            yield from _event(message[_PRELUDE : _PRELUDE + headers], message[_PRELUDE + headers : -_CHECKSUM])

    def end(self) -> Iterator[bytes]:
        """An event that was cut off says nothing."""
        return iter(())


def _event(headers: bytes, payload: bytes) -> Iterator[bytes]:
    told = _headers(headers)
    kind = told.get(":message-type", "event")
    if kind == "error":
        error = {"code": told.get(":error-code", ""), "message": told.get(":error-message", "")}
        yield json.dumps({"error": error}).encode()
    elif name := told.get(":exception-type" if kind == "exception" else ":event-type"):
        yield b"{%s:%s}" % (json.dumps(name).encode(), payload or b"{}")


def _headers(data: bytes) -> dict[str, str]:
    """The headers whose values are text."""
    found: dict[str, str] = {}
    at = 0
    while at + 2 <= len(data):
        name = data[at + 1 : at + 1 + data[at]].decode("utf-8", "replace")
        at += 1 + data[at]
        kind, at = data[at : at + 1], at + 1
        size = _SIZES.get(kind[0]) if kind else None
        if size is None:
            size = int.from_bytes(data[at : at + 2], "big")
            at += 2
        if kind == bytes([_TEXT]):
            found[name] = data[at : at + size].decode("utf-8", "replace")
        at += size
    return found
