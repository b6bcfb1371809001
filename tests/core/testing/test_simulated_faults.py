"""Broken connections and streams, and when faults happen, seen through a real SDK and bare HTTP."""

from __future__ import annotations

import json
import socket
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import OpenAI

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from tests.core.testing.simulated import NOW, QUESTION, Clock, ask, post

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionChunk


@pytest.mark.parametrize(("kind", "admitted"), [("reset", 0), ("reset_after_headers", 1)])
def test_a_reset_connection_is_a_connection_error(
    provider: SimulatedProvider, client: OpenAI, kind: str, admitted: int
) -> None:
    provider.inject(kind)
    with pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(model="m", messages=QUESTION)
    provider.inject(kind)
    with pytest.raises(openai.APIConnectionError):
        list(client.chat.completions.create(model="m", messages=QUESTION, stream=True))
    client.chat.completions.create(model="m", messages=QUESTION)
    report = provider.report()
    assert (report.failed, report.admitted, report.completed) == (2, 2 * admitted + 1, 1)


def test_a_reset_is_a_reset_and_no_polite_farewell(provider: SimulatedProvider) -> None:
    provider.inject("reset")
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'
    host, port = provider.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        raw.sendall(head.encode() + body)
        with pytest.raises(ConnectionResetError):
            raw.recv(1)


def test_a_hang_ends_by_the_clients_patience_or_its_own_time() -> None:
    with (
        SimulatedProvider(speed=1_000) as provider,
        OpenAI(base_url=provider.openai_url, api_key="x", max_retries=0) as client,
    ):
        provider.inject(Fault("hang", seconds=20))
        with pytest.raises(openai.APIConnectionError):
            client.chat.completions.create(model="m", messages=QUESTION)
        assert provider.requests[0].seconds >= 20
        provider.inject("hang")
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.05).chat.completions.create(model="m", messages=QUESTION)
        client.chat.completions.create(model="m", messages=QUESTION)


@pytest.mark.parametrize("kind", ["truncated_stream", "reset_stream"])
def test_a_stream_may_stop_in_the_middle(provider: SimulatedProvider, client: OpenAI, kind: str) -> None:
    provider.inject(Fault(kind, after_pieces=2))
    options: Any = {"stream_options": {"include_usage": True}}
    stream = client.chat.completions.create(model="m", messages=QUESTION, stream=True, **options)
    chunks: list[ChatCompletionChunk] = []
    with pytest.raises(openai.APIConnectionError) if kind == "reset_stream" else nullcontext():
        chunks.extend(stream)
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(texts) == 2
    assert not any(chunk.usage for chunk in chunks)
    report = provider.report()
    assert (report.failed, report.completed, report.output_tokens) == (1, 0, 8)


def test_a_chat_stream_may_end_in_an_error(provider: SimulatedProvider, client: OpenAI) -> None:
    error = {"code": "rate_limit_exceeded", "type": "tokens", "message": "Too many."}
    provider.inject(Fault("stream_error", error=error))
    provider.inject("stream_error")
    for code in ("rate_limit_exceeded", "server_error"):
        with pytest.raises(openai.APIError) as caught:
            list(client.chat.completions.create(model="m", messages=QUESTION, stream=True))
        assert not isinstance(caught.value, openai.APIStatusError)
        assert caught.value.code == code
    assert [request.status for request in provider.requests] == [200, 200]


def test_a_responses_stream_may_end_in_an_error(provider: SimulatedProvider, client: OpenAI) -> None:
    error = {"code": "rate_limit_exceeded", "type": "too_many_requests", "message": "Too many."}
    provider.inject(Fault("stream_error", error=error))
    events = list(client.responses.create(model="m", input="hi", stream=True))
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]
    assert events[-1].type == "response.failed"
    assert events[-1].response.error is not None
    assert events[-1].response.error.code == "rate_limit_exceeded"


def test_azures_other_order_fails_first_and_nests_the_error(provider: SimulatedProvider) -> None:
    provider.inject(Fault("azure_failed_first", after_pieces=0))
    lines = post(provider, path="/v1/responses", input="hi", stream=True).text.splitlines()
    failed, error = [json.loads(line[6:]) for line in lines if line.startswith("data: ")][-2:]
    assert (failed["type"], failed["response"]["error"]) == ("response.failed", None)
    assert (error["type"], error["error"]["code"]) == ("error", "server_error")


def test_a_slow_stream_takes_its_time_between_pieces() -> None:
    with (
        SimulatedProvider(speed=1_000, output_tokens=40) as provider,
        OpenAI(base_url=provider.openai_url, api_key="x", max_retries=0) as client,
    ):
        provider.inject(Fault("slow_stream", seconds=2))
        list(client.chat.completions.create(model="m", messages=QUESTION, stream=True))
        assert provider.requests[0].seconds >= 20
        assert provider.report().completed == 1


def test_faults_of_streams_leave_other_calls_alone(provider: SimulatedProvider, client: OpenAI) -> None:
    provider.inject("truncated_stream")
    client.chat.completions.create(model="m", messages=QUESTION)
    list(client.chat.completions.create(model="m", messages=QUESTION, stream=True))
    assert [request.outcome for request in provider.requests] == ["completed", "failed"]


def test_a_dropped_stream_is_settled_with_what_was_generated() -> None:
    with (
        SimulatedProvider(speed=20, output_tokens=2_000, tokens_per_second=500) as provider,
        OpenAI(base_url=provider.openai_url, api_key="x", max_retries=0) as client,
    ):
        stream = client.chat.completions.create(model="m", messages=QUESTION, stream=True)
        for number, _ in enumerate(stream):
            if number == 3:
                stream.response.close()
                break
        client.chat.completions.create(model="m", messages=QUESTION, max_tokens=1)
        while len(provider.requests) < 2:
            pass
        dropped = provider.requests[0]
    assert (dropped.outcome, dropped.status) == ("dropped", 200)
    assert 0 < dropped.output_tokens < 2_000


def test_times_at_and_lasting(provider: SimulatedProvider, clock: Clock) -> None:
    provider.inject("overloaded", at=10, lasting=20)
    provider.inject("slow_down_429", times=2, at=40)
    statuses = {}
    for second in (0, 9.9, 10, 20, 29.9, 30, 40, 41, 42):
        clock.now = NOW + second
        statuses[second] = post(provider).status_code
    assert statuses == {0: 200, 9.9: 200, 10: 503, 20: 503, 29.9: 503, 30: 200, 40: 429, 41: 429, 42: 200}


def test_what_is_scheduled_counts_from_the_first_start() -> None:
    clock = Clock()
    provider = SimulatedProvider(clock=clock)
    clock.now += 100  # not served yet
    provider.inject("overloaded", at=10, lasting=10)
    with provider:
        assert post(provider).status_code == 200
    clock.now += 15
    with provider:
        assert post(provider).status_code == 503


def test_a_share_of_requests_decided_by_the_seed_and_the_attempt_not_by_timing() -> None:
    def run(seed: int) -> list[int]:
        with SimulatedProvider(seed=seed) as provider:
            provider.inject("overloaded", probability=0.3)
            return [post(provider).status_code for _ in range(60)]

    first = run(1)
    assert first == run(1) != run(2)
    assert 8 <= first.count(503) <= 28  # 18 expected; five standard deviations are 17.7


def test_faults_may_concern_one_model_or_one_api(provider: SimulatedProvider, client: OpenAI) -> None:
    provider.inject(Fault("slow_down", model="other"))
    provider.inject(Fault("slow_down", api="embeddings"))
    assert post(provider).status_code == 200
    with pytest.raises(openai.InternalServerError):
        client.embeddings.create(model="m", input="hi")


def test_failed_requests_use_up_request_limits_where_they_count(provider: SimulatedProvider, client: OpenAI) -> None:
    provider.inject("server_error", times=4)
    for _ in range(4):
        assert post(provider).status_code == 500
    assert ask(client)["x-ratelimit-remaining-requests"] == "95"
    assert ask(client)["x-ratelimit-remaining-tokens"] == "9990"


def test_reset_forgets_faults(provider: SimulatedProvider) -> None:
    provider.inject("slow_down", times=None, lasting=100)
    provider.reset()
    assert post(provider).status_code == 200


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Fault("slowdown"), "no kind 'slowdown'"),
        (lambda: Fault("answer"), "needs a status"),
        (lambda: Fault("rate_limit", dimension="tokens"), "no dimension 'tokens'"),
        (lambda: SimulatedProvider().inject("slow_down", probability=2), "probability=2 must be from 0 to 1"),
    ],
)
def test_nonsense_is_refused(make: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make()
