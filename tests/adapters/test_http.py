"""Plain clients of httpx and httpx2, sync and async, limited, against a server that is scripted to the byte."""

from __future__ import annotations

import gzip
import importlib
import json
from typing import Any

import pytest

from agent_rate_limiter import (
    ConfigError,
    Limit,
    MultiProviderLimiter,
    Provider,
    Resource,
)
from tests.adapters.plain_http import (
    ANSWER,
    ASKED,
    CHUNKS,
    PATH,
    everywhere,
    post,
    reply_events,
    reply_json,
    send,
    streamed,
)
from tests.adapters.support import MODEL, Heard, Reply, ScriptedServer, booked, roomy, used

# ------------------------------------------------------------------ what is read


@everywhere
@pytest.mark.parametrize("encoded", [False, True])
def test_a_json_answer_is_settled_and_reaches_the_caller_as_it_was(library: str, side: str, encoded: bool) -> None:
    limiter = roomy()
    body = json.dumps(ANSWER).encode()
    sent = gzip.compress(body) if encoded else body
    reply = Reply([sent[:9], sent[9:]], headers={"content-encoding": "gzip"} if encoded else {})
    with ScriptedServer(lambda _: reply) as server:
        assert send(library, side, server, post, limiter).content == body
        assert send(library, side, server, lambda client: streamed(client, "iter_raw"), limiter) == sent
    assert booked(limiter) == (2, 22, 14)
    assert limiter.snapshot().in_flight == 0


@everywhere
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("encoded", [False, True])
def test_a_stream_is_read_however_it_is_cut(library: str, side: str, end: bytes, encoded: bool) -> None:
    limiter = roomy()
    whole = b"".join(reply_events(*CHUNKS, end=end).pieces)
    sent = gzip.compress(whole) if encoded else whole
    pieces = [sent[at : at + 7] for at in range(0, len(sent), 7)]
    headers = {"content-encoding": "gzip"} if encoded else {}
    with ScriptedServer(lambda _: Reply(pieces, "text/event-stream; charset=utf-8", headers=headers)) as server:
        seen = send(library, side, server, streamed, limiter)
    unasked = [event for event in whole.split(end + end) if b'"choices": []' in event or b'"choices":[]' in event]
    assert len(unasked) == 1  # the usage that only we asked for
    assert seen == (whole if encoded else whole.replace(unasked[0] + end + end, b""))
    assert booked(limiter) == (1, 11, 7)
    assert used(limiter, "tokens") == 18


@everywhere
def test_a_stream_without_a_last_line_end_is_seen_whole(library: str, side: str) -> None:
    pieces = [b'data: {"choices": [{"delta": {"content": "x"}}]}', b"\n\ndata: [DO", b"NE]"]
    with ScriptedServer(lambda _: Reply(pieces, "text/event-stream")) as server:
        assert send(library, side, server, streamed, roomy()) == b"".join(pieces)


@everywhere
@pytest.mark.parametrize("reply", [reply_json(ANSWER), reply_events(*CHUNKS), reply_events(*CHUNKS, done=False)])
def test_a_call_is_settled_by_the_time_its_answer_is_read(library: str, side: str, reply: Reply) -> None:
    limiter = roomy()
    with ScriptedServer(lambda _: reply) as server, limiter.reserve(f"openai:{MODEL}", output_tokens=9) as call:
        send(library, side, server, streamed, limiter)
        assert call.usage is not None
        assert (call.usage.input_tokens, call.usage.output_tokens, call.usage.exact) == (11, 7, True)
        assert call.cost is not None  # settled, not just left


@everywhere
def test_what_headers_say_is_heeded(library: str, side: str) -> None:
    limiter = MultiProviderLimiter()
    headers = {"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499"}
    with ScriptedServer(
        lambda _: reply_json(ANSWER, headers={**headers, "x-ratelimit-reset-requests": "120ms"})
    ) as server:
        send(library, side, server, post, limiter)
    assert [(status.resource, status.amount) for status in limiter.snapshot().limits] == [("requests", 500)]


@everywhere
def test_a_stream_that_breaks_off_is_charged_its_estimate_at_least(library: str, side: str) -> None:
    limiter = roomy()
    module = importlib.import_module(library)
    reply = reply_events(CHUNKS[0], done=False, breaks_off=True)
    with ScriptedServer(lambda _: reply) as server, pytest.raises(module.RemoteProtocolError):
        send(library, side, server, streamed, limiter)
    assert booked(limiter)[0] == 1
    assert used(limiter, "tokens") > 50
    assert limiter.snapshot().in_flight == 0


@everywhere
def test_an_answer_without_usage_is_charged_its_estimate(library: str, side: str) -> None:
    limiter = roomy()
    replies = [Reply([b"RIFF", b"\x00" * 99], "audio/wav"), Reply([b"not json"]), reply_json({"data": []}), Reply([])]
    with ScriptedServer(lambda _: replies.pop()) as server:
        for _ in range(4):
            send(library, side, server, post, limiter)
    assert booked(limiter)[0] == 4
    assert used(limiter, "tokens") > 200
    assert limiter.snapshot().in_flight == 0


@everywhere
def test_a_200_that_is_an_error_counts_as_a_request_without_tokens(library: str, side: str) -> None:
    limiter = roomy()
    error = {"error": {"message": "Please try again in 10ms.", "type": "tokens", "code": "rate_limit_exceeded"}}
    replies = [reply_json(error), reply_events(error, done=False)]
    with ScriptedServer(lambda _: replies.pop()) as server:
        send(library, side, server, streamed, limiter)
        send(library, side, server, post, limiter)
    assert booked(limiter) == (2, 0, 0)
    assert used(limiter, "tokens") == 0


@everywhere
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_an_error_is_readable_and_counts_as_a_request_without_tokens(library: str, side: str, status: int) -> None:
    limiter = roomy()
    body = json.dumps({"error": {"message": "No.", "code": "nope"}}).encode()
    headers = {"content-encoding": "gzip", "retry-after": "0.01"}
    reply = Reply([gzip.compress(body)], status=status, headers=headers)
    with ScriptedServer(lambda _: reply) as server:
        response = send(library, side, server, post, limiter)
        assert (response.status_code, response.content) == (status, body)
        assert gzip.decompress(send(library, side, server, lambda c: streamed(c, "iter_raw"), limiter)) == body
    assert booked(limiter) == (2, 0, 0)
    assert limiter.snapshot().in_flight == 0


@everywhere
def test_a_redirected_call_is_counted_where_it_ends(library: str, side: str) -> None:
    limiter = roomy()

    def script(heard: Heard) -> Reply:
        if heard.path == PATH:
            return Reply([], status=307, headers={"location": f"/moved{PATH}"})
        return reply_json(ANSWER)

    with ScriptedServer(script) as server:
        response = send(library, side, server, lambda client: post(client, follow_redirects=True), limiter)
        assert json.loads(server.heard[1].body) == ASKED
    assert response.json() == ANSWER
    assert booked(limiter) == (1, 11, 7)
    assert used(limiter, "requests") == 1


# ------------------------------------------------------------------ what is sent


@everywhere
def test_a_stream_is_asked_for_its_usage_and_nothing_else_changes(library: str, side: str) -> None:
    limiter = roomy()
    asked = {**ASKED, "stream": True, "messages": [{"role": "user", "content": "雪 \ud83d"}]}
    content = json.dumps(asked).encode()
    headers = {"content-type": "application/json", "x-team": "blue"}

    def use(client: Any) -> Any:
        return client.post(f"{PATH}?beta=1", content=content, headers=headers)

    with ScriptedServer(lambda _: reply_events(*CHUNKS)) as server:
        send(library, side, server, use, limiter)
        send(library, side, server, use, limiter, include_usage=False)
        changed, unchanged = server.heard
    assert json.loads(changed.body) == {**asked, "stream_options": {"include_usage": True}}
    assert unchanged.body == content
    assert changed.path == unchanged.path == f"{PATH}?beta=1"
    assert int(changed.headers.pop("content-length")) == len(changed.body)
    assert int(unchanged.headers.pop("content-length")) == len(content)
    assert changed.headers == unchanged.headers


@everywhere
@pytest.mark.parametrize(
    "vouching", [{"authorization": "AWS4-HMAC-SHA256 Credential=…"}, {"x-amz-content-sha256": "00"}, {"digest": "00"}]
)
def test_a_signed_body_stays_as_it_is(library: str, side: str, vouching: dict[str, str]) -> None:
    asked = {**ASKED, "stream": True}
    headers = {name: value.encode() for name, value in vouching.items()}
    with ScriptedServer(lambda _: reply_events(*CHUNKS)) as server:
        send(library, side, server, lambda client: post(client, json=asked, headers=headers), roomy())
        assert json.loads(server.heard[0].body) == asked


@everywhere
def test_a_form_names_its_model_too_and_its_file_arrives_whole(library: str, side: str) -> None:
    limiter = roomy()
    sound = bytes(range(256)) * 1000

    def use(client: Any) -> Any:
        fields = {"model": MODEL, "prompt": "name"}
        return client.post("/v1/audio/transcriptions", data=fields, files={"file": ("a.wav", sound)})

    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}
    with ScriptedServer(lambda _: reply_json({"text": "Hi", "usage": usage})) as server:
        send(library, side, server, use, limiter)
        assert sound in server.heard[0].body
    assert booked(limiter) == (1, 14, 45)
    with pytest.raises(ConfigError, match="openai:other"), ScriptedServer(lambda _: reply_json({})) as server:
        send(
            library,
            side,
            server,
            lambda client: client.post("/v1/audio/transcriptions", data={"model": "other"}, files={"file": b""}),
            limiter,
        )


@everywhere
@pytest.mark.parametrize("asked", [ASKED, {**ASKED, "stream": True}])
def test_a_body_that_is_generated_is_sent_whole(library: str, side: str, asked: dict[str, Any]) -> None:
    limiter = roomy()
    content = json.dumps(asked).encode()

    def pieces() -> Any:
        yield content[:10]
        yield content[10:]

    async def pieces_async() -> Any:
        yield content[:10]
        yield content[10:]

    def use(client: Any) -> Any:
        return client.post(PATH, content=pieces_async() if side == "AsyncClient" else pieces())

    with ScriptedServer(lambda _: reply_json(ANSWER)) as server:
        send(library, side, server, use, limiter)
        heard = server.heard[0]
    extra = {"stream_options": {"include_usage": True}} if "stream" in asked else {}
    assert json.loads(heard.body) == {**asked, **extra}
    assert ("transfer-encoding" in heard.headers) != ("content-length" in heard.headers)
    assert booked(limiter) == (1, 11, 7)


@everywhere
def test_what_is_no_model_call_passes_through(library: str, side: str) -> None:
    limiter = MultiProviderLimiter([Provider("openai", {MODEL: {"limits": [Limit(Resource.REQUESTS, 1, None)]}})])
    taken = limiter.acquire(f"openai:{MODEL}")
    body = b"\x00not json"
    with ScriptedServer(lambda heard: Reply([heard.body], "text/plain")) as server:
        for call in [("GET", "/v1/models"), ("GET", PATH), ("POST", "/v1/files"), ("POST", "/v1/batches")]:

            def use(client: Any, call: tuple[str, str] = call) -> Any:
                return client.request(*call, content=body)

            assert send(library, side, server, use, limiter).content == body
    assert booked(limiter) == (0, 0, 0)
    taken.cancel()


@everywhere
@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b"{}", b'{"model": 3}'])
def test_a_model_call_without_a_model_needs_a_default(library: str, side: str, body: bytes) -> None:
    default = MultiProviderLimiter([Provider("openai", {"*": {"limits": [Limit(Resource.REQUESTS, 9, None)]}})])
    with ScriptedServer(lambda _: reply_json(ANSWER)) as server:
        send(library, side, server, lambda client: client.post(PATH, content=body), default)
        with pytest.raises(ConfigError, match=r"openai:\*"):
            send(library, side, server, lambda client: client.post(PATH, content=body), roomy())
        assert len(server.heard) == 1
    assert booked(default) == (1, 11, 7)
