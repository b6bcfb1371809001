"""Server-sent events, read as they arrive (HTML standard, "Interpreting an event stream")."""

from __future__ import annotations

from collections.abc import Iterator


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
