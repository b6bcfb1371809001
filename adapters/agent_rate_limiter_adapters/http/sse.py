"""Server-sent events, read as they arrive (HTML standard, "Interpreting an event stream")."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, cast

_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')


class UnaskedUsage:
    """Takes the event out of a stream that only we asked for: usage, without choices.

    Callers that did not ask for it may well read `chunk.choices[0]` of every chunk.
    """

    def __init__(self) -> None:
        self._held = b""

    def show(self, piece: bytes) -> bytes:
        """Return what the caller is to see of the events that a piece completes."""
        self._held += piece
        shown = b""
        while (end := _EVENT_END.search(self._held)) is not None:
            event, self._held = self._held[: end.end()], self._held[end.end() :]
            if not _NO_CHOICES.search(event) or not _states_usage(event):
                shown += event
        return shown

    def rest(self) -> bytes:
        """Return what came after the last whole event."""
        held, self._held = self._held, b""
        return held


def _states_usage(event: bytes) -> bool:
    try:
        document: Any = json.loads(event.partition(b"data:")[2])
    except ValueError:
        return False
    fields = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
    return bool(fields.get("usage")) and fields.get("choices") == []


class EventParser:
    """Finds the data of each event in the pieces of a stream, however these are cut."""

    def __init__(self) -> None:
        self._line: list[bytes] = []  # pieces of a line whose end has not come
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Read a piece; yield the data of the events that it completes."""
        self._line.append(piece)
        if b"\n" not in piece and b"\r" not in piece and not self._line[0].endswith(b"\r"):
            return
        lines = b"".join(self._line).splitlines(keepends=True)
        # A line without an end goes on in the next piece, and so may one that ends in \r, with \n.
        self._line = [] if lines[-1].endswith(b"\n") else [lines.pop()]
        for line in lines:
            yield from self._read(line.rstrip(b"\r\n"))

    def end(self) -> Iterator[bytes]:
        """Yield the data of an event that nothing but the end has completed."""
        yield from self._read(b"".join(self._line).rstrip(b"\r\n"))
        yield from self._read(b"")

    def _read(self, line: bytes) -> Iterator[bytes]:
        if line:
            field, _, value = line.partition(b":")
            if field.removeprefix(b"\xef\xbb\xbf") == b"data":  # a stream may begin with a byte order mark
                self._data.append(value.removeprefix(b" "))
        elif self._data:
            data, self._data = self._data, []
            yield b"\n".join(data)
