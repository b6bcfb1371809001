"""Errors and headers as providers send them at the worst moment, seen through a real SDK and bare HTTP."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import openai
import pytest
from openai import OpenAI

from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from agent_rate_limiter.testing.simulated.catalogue import NAMES
from tests.core.testing.simulated import NOW, QUESTION, ask, post


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
        headers = post(provider, path="/v1/messages", max_tokens=5).headers
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
