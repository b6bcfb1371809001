"""Reads along what a response brings, and settles its call when it ends, however it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from agent_rate_limiter_adapters.http.body import parse
from agent_rate_limiter_adapters.http.eventstream import EventStreamParser
from agent_rate_limiter_adapters.http.sse import EventParser, UnaskedUsage

if TYPE_CHECKING:
    from agent_rate_limiter import Estimate, Reservation, Usage
    from agent_rate_limiter.providers import Dialect, Failure, StreamReader

_STREAMS: Mapping[str, type[EventParser | EventStreamParser]] = {
    "text/event-stream": EventParser,
    "application/vnd.amazon.eventstream": EventStreamParser,  # Bedrock
}
_MEDIA = ("audio/", "image/", "video/", "application/octet-stream")
"""Bodies that state no usage, and may be large."""


class Meter:
    """Finds the usage in a response's body while somebody else reads it.

    Args:
        reservation: ends once: at the body's end, when it breaks off, is closed early, or dropped.
        dialect: the provider's.
        reader: for the events of this response.
        estimate: what the call was expected to use.
        kind: the body's media type.
        decode: takes away the body's encoding; None where it has none.
        hide_usage: keep the event from the caller that only states usage; in streams without an encoding.
    """

    def __init__(
        self,
        reservation: Reservation,
        dialect: Dialect,
        reader: StreamReader,
        estimate: Estimate,
        *,
        kind: str,
        decode: Callable[[bytes], bytes] | None = None,
        hide_usage: bool = False,
    ) -> None:
        self._reservation = reservation
        self._dialect = dialect
        self._reader = reader
        self._estimate = estimate
        self._decode = decode
        make = _STREAMS.get(kind)
        self._events = None if make is None else make()
        whole = self._events is None or decode is not None
        self._kept: list[bytes] | None = [] if whole else None  # what can only be read when it has all come
        self._told = not kind.startswith(_MEDIA)
        sent_as_text = isinstance(self._events, EventParser) and decode is None
        self._unasked = UnaskedUsage() if hide_usage and sent_as_text else None
        self._ended = False
        self._held: list[bytes] | None = None

    @property
    def begins_with_events(self) -> bool:
        """Whether the body's beginning tells whether the call was refused after all: a refusal inside a 200."""
        return self._events is not None and self._kept is None

    def hold(self, piece: bytes) -> bool:
        """Note a piece of the body's beginning. True while more is needed to know whether the call was refused."""
        self._held = [*(self._held or ()), piece]
        self._follow(piece)
        return not self._reader.begun and self._reader.failure is None

    def release(self) -> list[bytes]:
        """Return what was held: as the caller is to see it, or as it came if that is a refusal alone."""
        held, self._held = self._held or [], None
        if self.refused is not None:
            return held
        if self._reader.done:
            self.end()
        return [shown for piece in held if (shown := self.shown(piece))]

    @property
    def refused(self) -> Failure | None:
        """The refusal that the body consists of, and nothing else."""
        return None if self._reader.begun else self._reader.failure

    def shown(self, piece: bytes) -> bytes:
        """Return what the caller is to see, now that this piece has come."""
        return piece if self._unasked is None else self._unasked.show(piece)

    def rest(self) -> bytes:
        """Return what the caller has not seen yet, now that all has come."""
        return b"" if self._unasked is None else self._unasked.rest()

    def feed(self, piece: bytes) -> None:
        """Note a piece of the body, as it came over the wire."""
        if self._kept is None:
            self._follow(piece)
        elif self._told:
            self._kept.append(piece)

    def end(self) -> None:
        """All has come: settle the call, if it is not."""
        if not self._ended:
            self._ended = True
            usage, failure = self._usage(), self._reader.failure
            if usage is None and failure is not None:  # a refusal inside a 200
                self._reservation.fail(failure)
            else:
                self._reservation.settle(usage)

    def leave(self) -> None:
        """Nobody reads on. This may happen in a finalizer, and so anywhere: nothing may be waited for."""
        if not self._ended:
            self._ended = True
            self._reservation.abandon(self._usage())

    def __del__(self) -> None:
        """Nobody has even closed it."""
        if not getattr(self, "_ended", True):
            self.leave()

    def _usage(self) -> Usage | None:
        if self._events is None:
            return self._stated(parse(self._body()))
        self._follow(self._body())
        self._read(self._events.end())
        return self._seen()

    def _body(self) -> bytes:
        body = b"".join(self._kept or ())
        return body if self._decode is None else self._decode(body)

    def _stated(self, document: Any) -> Usage | None:
        """What a whole body says; a list is a stream that was not sent as one (Gemini)."""
        usage = self._dialect.usage(document)
        if usage is not None:
            return usage
        events = cast("Iterable[Any]", document) if isinstance(document, list) else (document,)
        for event in events:
            self._reader.feed(event)
        return self._seen()

    def _seen(self) -> Usage | None:
        """What a stream used: the final numbers, or else what was seen of it; None when that is nothing."""
        usage = self._reader.usage
        if usage is None or usage.exact:
            return usage
        return replace(usage, input_tokens=usage.input_tokens or self._estimate.input_tokens)

    def _follow(self, piece: bytes) -> None:
        if self._events is not None:
            self._read(self._events.feed(piece))

    def _read(self, events: Iterable[bytes]) -> None:
        for data in events:
            done = data == b"[DONE]"
            self._reader.feed("[DONE]" if done else parse(data))
            ends = done or self._reader.failure is not None  # SDKs close a stream here, without reading on
            if ends and self._held is None:
                self.end()
