"""Bedrock's event streams settle calls with what was used: through Anthropic's SDK and over plain HTTP.

botocore (1.44, November 2026) reads what these tests write, and Anthropic's SDK with it; it is not among the
requirements, as it holds others back.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from struct import pack
from typing import Any
from zlib import crc32

import httpx2
import pytest
from anthropic.lib.bedrock import AnthropicBedrock
from hypothesis import given
from hypothesis import strategies as st

from agent_rate_limiter import Limit, MultiProviderLimiter, Provider, Resource, RetryStrategy
from agent_rate_limiter_adapters.http import adapter
from agent_rate_limiter_adapters.http.eventstream import EventStreamParser
from tests.adapters.support import Heard, Reply, ScriptedServer, booked

KIND = "application/vnd.amazon.eventstream"
MODEL = "anthropic.claude"
ASKED: Any = [{"role": "user", "content": "Why?"}]


def header(name: str, value: str | bytes | int | bool) -> bytes:
    begin = bytes([len(name)]) + name.encode()
    if isinstance(value, bool):
        return begin + bytes([0 if value else 1])
    if isinstance(value, int):
        return begin + b"\x05" + pack(">q", value)
    raw = value if isinstance(value, bytes) else value.encode()
    return begin + (b"\x06" if isinstance(value, bytes) else b"\x07") + pack(">H", len(raw)) + raw


def message(payload: bytes, **headers: str | bytes | int | bool) -> bytes:
    """One message; `message_type` stands for `:message-type`."""
    head = b"".join(header(":" + name.replace("_", "-"), value) for name, value in headers.items())
    prelude = pack(">II", 16 + len(head) + len(payload), len(head))
    body = prelude + pack(">I", crc32(prelude)) + head + payload
    return body + pack(">I", crc32(body))


def event(kind: str, payload: Any, **headers: str | bytes | int | bool) -> bytes:
    told: dict[str, Any] = {"event_type": kind, "content_type": "application/json", "message_type": "event", **headers}
    return message(json.dumps(payload).encode(), **told)


def invoked(*events: Any) -> bytes:
    """InvokeModelWithResponseStream: the model's own events, as bytes in base64."""
    return b"".join(event("chunk", {"bytes": base64.b64encode(json.dumps(it).encode()).decode()}) for it in events)


def claude(text: str = "Blue.") -> bytes:
    usage = {"input_tokens": 31, "output_tokens": 1}
    begun = {"id": "m", "type": "message", "role": "assistant", "model": MODEL, "content": [], "usage": usage}
    return invoked(
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 12}},
        {"type": "message_stop"},
    )


CONVERSED = (
    event("messageStart", {"role": "assistant"})
    + event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Blue."}})
    + event("messageStop", {"stopReason": "end_turn"})
    + event(
        "metadata", {"usage": {"inputTokens": 31, "outputTokens": 12, "totalTokens": 43}, "metrics": {"latencyMs": 5}}
    )
)
THROTTLED = message(b'{"message":"Too many tokens"}', message_type="exception", exception_type="throttlingException")


def roomy(retry: RetryStrategy | None = None) -> MultiProviderLimiter:
    limits = [Limit(Resource.REQUESTS, 10_000, None), Limit(Resource.TOKENS, 10_000_000, None)]
    return MultiProviderLimiter(
        [Provider("bedrock", {"*": {"limits": limits}})], retry=retry or RetryStrategy(base=0.001)
    )


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.fixture
def bedrock() -> Iterator[Any]:
    """A server with its answers to come, and a client of it."""
    answers: list[bytes] = []

    def answer(request: Heard) -> Reply:
        assert "/model/" in request.path
        return Reply(list(cut(answers.pop(0), 50)), kind=KIND)

    with ScriptedServer(answer) as server:
        client = AnthropicBedrock(base_url=server.url, api_key="key", aws_region="us-east-1")
        yield answers, client, server
        client.close()


def streamed(client: AnthropicBedrock, limiter: MultiProviderLimiter) -> bytes:
    """The bytes of a stream, before botocore would make events of them."""
    create = limiter.wrap(client).messages.with_streaming_response.create
    with create(model=MODEL, max_tokens=50, messages=ASKED, stream=True) as response:
        return b"".join(response.iter_bytes())


def test_the_sdks_streams_are_settled_with_what_was_used(bedrock: Any) -> None:
    answers, client, _ = bedrock
    answers.append(claude())
    limiter = roomy()
    assert streamed(client, limiter) == claude()  # to the byte
    assert booked(limiter) == (1, 31, 12)


def test_a_refusal_at_the_beginning_is_retried(bedrock: Any) -> None:
    answers, client, _ = bedrock
    answers.extend([THROTTLED, claude()])
    limiter = MultiProviderLimiter([Provider("bedrock", {"*": {"rps": 1_000}})])
    assert streamed(client, limiter) == claude()
    assert booked(limiter) == (2, 31, 12)


def test_converse_streams_are_settled_with_their_metadata(bedrock: Any) -> None:
    answers, _, server = bedrock
    answers.append(CONVERSED)
    limiter = roomy()
    with adapter(httpx2.Client(base_url=server.url), limiter, provider="bedrock") as client:
        raw = client.post(f"/model/{MODEL}/converse-stream", json={"messages": ASKED}).content
    assert raw == CONVERSED  # to the byte
    assert booked(limiter) == (1, 31, 12)


# ---------------------------------------------------------------- the parser


def parsed(data: bytes, size: int = 1_000_000) -> list[Any]:
    parser = EventStreamParser()
    events = [json.loads(found) for piece in cut(data, size) for found in parser.feed(piece)]
    return [*events, *map(json.loads, parser.end())]


@pytest.mark.parametrize("size", [1, 7, 11, 12, 13, 10_000])
def test_pieces_may_be_cut_anywhere(size: int) -> None:
    assert [next(iter(it)) for it in parsed(CONVERSED, size)] == [
        "messageStart",
        "contentBlockDelta",
        "messageStop",
        "metadata",
    ]


def test_messages_of_every_kind() -> None:
    odd = event("chunk", {"a": 1}, flag=True, off=False, number=-5, raw=b"\x00\x01")
    failed = message(b"", message_type="error", error_code="Internal", error_message="broken")
    unnamed, empty = message(b"{}", message_type="event"), message(b"", message_type="event", event_type="ping")
    assert parsed(odd + failed + unnamed + empty + THROTTLED) == [
        {"chunk": {"a": 1}},
        {"error": {"code": "Internal", "message": "broken"}},
        {"ping": {}},
        {"throttlingException": {"message": "Too many tokens"}},
    ]


@given(st.binary(max_size=200), st.integers(1, 40))
def test_what_is_no_event_stream_yields_nothing(data: bytes, size: int) -> None:
    assert parsed(data, size) == []


@given(st.binary(max_size=60))
def test_headers_of_any_kind_are_read_without_an_error(headers: bytes) -> None:
    prelude = pack(">II", 16 + len(headers), len(headers))
    body = prelude + pack(">I", crc32(prelude)) + headers
    parsed(body + pack(">I", crc32(body)) + event("ping", {}))


def test_a_broken_checksum_ends_it() -> None:
    broken = bytearray(event("b", {}))
    broken[9] ^= 1
    assert parsed(event("a", {}) + bytes(broken) + event("c", {})) == [{"a": {}}]
