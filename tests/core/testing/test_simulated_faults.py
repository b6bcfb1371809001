"""Everything that can go wrong on purpose, seen through real SDKs and bare HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from openai import OpenAI

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from agent_rate_limiter.testing.simulated.catalogue import NAMES

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

NOW = 1_795_471_200.0  # 2026-11-23 22:00:00 UTC
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Why is the sky blue?"}]


class Clock:
    now = NOW


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider(clock: Clock) -> Iterator[SimulatedProvider]:
    models = {"m": {"rpm": 100, "tpm": 10_000, "output_tokens": 50}}
    with SimulatedProvider(models, clock=lambda: clock.now) as running:  # type: ignore[arg-type]
        yield running


@pytest.fixture
def client(provider: SimulatedProvider) -> Iterator[OpenAI]:
    with OpenAI(base_url=provider.openai_url, api_key="x", max_retries=0, timeout=5) as running:
        yield running


def post(provider: SimulatedProvider, path: str = "/v1/chat/completions", **more: Any) -> httpx.Response:
    with httpx.Client(verify=False) as http:  # noqa: S501 - loopback without TLS: no need to read certificates
        return http.post(provider.url + path, json={"model": "m", "messages": QUESTION, **more})


def ask(client: OpenAI) -> httpx.Headers:
    return httpx.Headers(dict(client.chat.completions.with_raw_response.create(model="m", messages=QUESTION).headers))


# ---------------------------------------------------------------- errors, word for word


@pytest.mark.parametrize(
    ("kind", "status", "path", "expected"),
    [
        ("insufficient_quota", 429, ("error", "code"), "insufficient_quota"),
        ("insufficient_quota", 429, ("error", "type"), "insufficient_quota"),
        ("credit_balance_exhausted", 429, ("error", "code"), "credit_balance_exhausted"),
        ("credit_balance_exhausted", 429, ("error", "type"), "insufficient_quota"),
        ("organization_spend_limit_exceeded", 429, ("error", "code"), "organization_spend_limit_exceeded"),
        ("project_spend_limit_exceeded", 429, ("error", "code"), "project_spend_limit_exceeded"),
        ("organization_usage_limit_exceeded", 429, ("error", "code"), "organization_usage_limit_exceeded"),
        ("slow_down", 503, ("error", "code"), "slow_down"),
        ("slow_down_429", 429, ("error", "type"), "rate_limit_error"),
        ("resource_unavailable", 429, ("error", "message"), "Resource Unavailable"),
        ("overloaded", 503, ("error", "code"), "server_is_overloaded"),
        ("server_error", 500, ("error", "type"), "server_error"),
        ("unavailable", 503, ("error", "message"), "Service unavailable."),
        ("authentication", 401, ("error", "code"), "invalid_api_key"),
        ("high_demand", 429, ("error", "code"), "429"),
        ("mistral_rate_limited", 429, ("code",), "1300"),
        ("mistral_rate_limited", 429, ("message",), "Rate limit exceeded"),
        ("mistral_capacity", 429, ("code",), "3505"),
        ("xai_rate_limited", 429, ("code",), "resource-exhausted"),
        ("xai_free_quota", 429, ("error",), "Free usage quota exceeded."),
        (
            "cohere_rate_limited",
            429,
            ("message",),
            "You are past the per minute request limit, please wait and try again later.",
        ),
        ("bedrock_throttling", 429, ("message",), "Too many tokens, please wait before trying again."),
        ("openrouter_no_credits", 402, ("error", "code"), 402),
        ("deepseek_no_balance", 402, ("error", "message"), "Insufficient Balance"),
        ("vertex_exhausted", 429, ("error", "message"), "Resource exhausted, please try again later."),
    ],
)
def test_named_errors_are_what_providers_send(
    provider: SimulatedProvider, kind: str, status: int, path: tuple[str, ...], expected: object
) -> None:
    provider.inject(kind)
    answer = post(provider)
    assert answer.status_code == status
    value = answer.json()
    for name in path:
        value = value[name]
    assert value == expected


@pytest.mark.parametrize("kind", NAMES)
def test_every_named_error_is_an_error_that_names_the_model_at_most(provider: SimulatedProvider, kind: str) -> None:
    provider.inject(kind)
    answer = post(provider)
    assert answer.status_code >= 400
    assert "{model}" not in answer.text
    assert ("<html>" in answer.text) == (answer.headers["content-type"].startswith("text/html"))
    report = provider.report()
    assert (report.refused, report.failed) == ((1, 0) if answer.status_code == 429 else (0, 1))
    assert provider.requests[0].fault == kind
    assert post(provider).status_code == 200


def test_bedrock_names_the_error_in_a_header(provider: SimulatedProvider) -> None:
    provider.inject("bedrock_quota_exceeded")
    answer = post(provider)
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (400, "ServiceQuotaExceededException")


def test_any_answer_can_be_scripted(provider: SimulatedProvider) -> None:
    provider.inject(Fault("answer", status=418, body={"teapot": True}, headers={"X-Odd": "yes"}, retry_after=2.5))
    answer = post(provider)
    assert (answer.status_code, answer.json()) == (418, {"teapot": True})
    assert (answer.headers["x-odd"], answer.headers["retry-after"]) == ("yes", "2.5")


@pytest.mark.parametrize(
    ("fault", "headers"),
    [
        (Fault("rate_limit"), {"retry-after": "1", "retry-after-ms": "1000"}),
        (Fault("rate_limit", retry_after=0), {"retry-after": "0", "retry-after-ms": "0"}),
        (Fault("rate_limit", retry_after=121), {"retry-after": "121", "retry-after-ms": "121000"}),
        (Fault("rate_limit", bare=True), {}),
        (Fault("rate_limit", dimension="tpd", bare=True), {}),
        (Fault("rate_limit", headers={"retry-after-ms": None}, retry_after=3), {"retry-after": "3"}),
        (Fault("overloaded", retry_after=5), {"retry-after": "5"}),
    ],
)
def test_what_a_refusal_tells_can_be_chosen(
    provider: SimulatedProvider, client: OpenAI, fault: Fault, headers: dict[str, str]
) -> None:
    provider.inject(fault)
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="m", messages=QUESTION)
    told = caught.value.response.headers
    assert {name: value for name, value in told.items() if name.startswith("retry-after")} == headers
    assert bool([name for name in told if "ratelimit" in name]) == (not fault.bare)


def test_an_injected_rate_limit_names_its_dimension(provider: SimulatedProvider, client: OpenAI) -> None:
    provider.inject(Fault("rate_limit", dimension="tpd", retry_after=3600))
    with pytest.raises(openai.RateLimitError, match=r"on tokens per day \(TPD\).* Please try again in 1h0m0s"):
        client.chat.completions.create(model="m", messages=QUESTION)
    provider.inject("request_too_large")
    with pytest.raises(openai.RateLimitError, match=r"Request too large for m .*Limit 10000, Requested 10001"):
        client.chat.completions.create(model="m", messages=QUESTION)


def test_wire_values_are_the_clients_whatever_the_speed() -> None:
    with SimulatedProvider(speed=60) as provider:
        provider.inject(Fault("rate_limit", retry_after=121))
        answer = post(provider)
    assert answer.headers["retry-after"] == "121"
    assert "2m1s" in answer.json()["error"]["message"]


# ---------------------------------------------------------------- headers that lie


def test_remaining_may_be_negative_rounded_or_stale(provider: SimulatedProvider, client: OpenAI) -> None:
    assert ask(client)["x-ratelimit-remaining-tokens"] == "9995"
    provider.inject(Fault("headers", remaining=-1))
    assert ask(client)["x-ratelimit-remaining-tokens"] == "-1"
    provider.inject(Fault("headers", round_remaining=1_000))
    assert ask(client)["x-ratelimit-remaining-tokens"] == "10000"
    assert ask(client)["x-ratelimit-remaining-tokens"] == "9980"
    provider.inject(Fault("headers", stale=True), times=2)
    assert [ask(client)["x-ratelimit-remaining-tokens"] for _ in range(3)] == ["9980", "9980", "9965"]
    assert provider.report().completed == 7


def test_headers_can_be_set_and_taken_away(provider: SimulatedProvider, client: OpenAI) -> None:
    odd = {"x-ratelimit-remaining-tokens": "-27689", "x-ratelimit-limit-tokens": None, "retry-after": "4"}
    provider.inject(Fault("headers", headers=odd))
    headers = ask(client)
    assert headers["x-ratelimit-remaining-tokens"] == "-27689"
    assert headers["retry-after"] == "4"
    assert "x-ratelimit-limit-tokens" not in headers
    provider.inject(Fault("headers", bare=True))
    assert not [name for name in ask(client) if "ratelimit" in name]
    provider.inject(Fault("headers", retry_after=7))
    assert ask(client)["retry-after"] == "7"


def test_a_skewed_clock_moves_dates_and_absolute_resets_alike(provider: SimulatedProvider) -> None:
    provider.set_limits("m", itpm=60)

    def times() -> tuple[float, float]:
        headers = post(provider, "/v1/messages", max_tokens=5).headers
        reset = headers["anthropic-ratelimit-input-tokens-reset"].replace("Z", "+00:00")
        date = parsedate_to_datetime(headers["date"])
        return date.timestamp(), date.fromisoformat(reset).timestamp()

    assert times() == (NOW, NOW + 5)
    provider.inject(Fault("headers", clock_skew=120))
    assert times() == (NOW + 120, NOW + 130)


def test_faults_of_headers_add_up(provider: SimulatedProvider, client: OpenAI) -> None:
    provider.inject(Fault("headers", remaining=-1))
    provider.inject(Fault("headers", retry_after=9))
    provider.inject("slow_down")
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="m", messages=QUESTION)
    assert caught.value.response.headers["x-ratelimit-remaining-tokens"] == "-1"
    assert caught.value.response.headers["retry-after"] == "9"


# ---------------------------------------------------------------- broken connections and streams


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
    lines = post(provider, "/v1/responses", input="hi", stream=True).text.splitlines()
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


# ---------------------------------------------------------------- when


def test_times_at_and_lasting(provider: SimulatedProvider, clock: Clock) -> None:
    provider.inject("overloaded", at=10, lasting=20)
    provider.inject("slow_down_429", times=2, at=40)
    statuses = {}
    for second in (0, 9.9, 10, 20, 29.9, 30, 40, 41, 42):
        clock.now = NOW + second
        statuses[second] = post(provider).status_code
    assert statuses == {0: 200, 9.9: 200, 10: 503, 20: 503, 29.9: 503, 30: 200, 40: 429, 41: 429, 42: 200}


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
