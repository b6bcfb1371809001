"""The parser of server-sent events, against the standard's rules and any cutting."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_rate_limiter_adapters.http.sse import EventParser


def events(*pieces: bytes) -> list[bytes]:
    parser = EventParser()
    found = [data for piece in pieces for data in parser.feed(piece)]
    return [*found, *parser.end()]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: one\n\ndata: two\n\n", [b"one", b"two"]),
        (b"data: one\r\n\r\ndata: two\r\n\r\n", [b"one", b"two"]),
        (b"data: one\r\rdata: two\r\r", [b"one", b"two"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data:no space\n\ndata:  two spaces\n\n", [b"no space", b" two spaces"]),
        (b": keep-alive\n\ndata: one\n\n: again\n\n", [b"one"]),
        (b"event: delta\nid: 7\nretry: 10\ndata: one\n\n", [b"one"]),
        (b"\xef\xbb\xbfdata: one\n\n", [b"one"]),
        (b"data: with: colon\n\n", [b"with: colon"]),
        (b"data\n\n", [b""]),
        (b"datas: no\nno colon\n\n", []),
        (b"data: [DONE]\n\n", [b"[DONE]"]),
        (b"data: cut short", [b"cut short"]),
        (b"data: cut short\n", [b"cut short"]),
        (b"\n\n\n", []),
        (b"", []),
    ],
)
def test_events_are_found(stream: bytes, expected: list[bytes]) -> None:
    assert events(stream) == expected
    assert events(*(bytes([byte]) for byte in stream)) == expected


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3), max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.data(),
)
def test_any_cutting_gives_the_same_events(told: list[dict[str, str]], end: str, data: st.DataObject) -> None:
    lines = [
        line
        for event in told
        for line in (": note", f"data: {json.dumps(event, ensure_ascii=data.draw(st.booleans()))}", "")
    ]
    stream = "".join(line + end for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [json.loads(event) for event in events(*pieces)] == told


@given(st.lists(st.binary(max_size=30)))
def test_garbage_never_raises(pieces: list[bytes]) -> None:
    events(*pieces)
