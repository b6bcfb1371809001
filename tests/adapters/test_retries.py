"""Retries through the real SDKs, over a real socket: they are the limiter's, and nobody multiplies them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, NamedTuple

import anthropic
import httpx2
import openai
import pytest
from google import genai

from agent_rate_limiter import MultiProviderLimiter, Provider, RetryBudget, RetryStrategy
from agent_rate_limiter.providers import FailureKind, read_failure
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from tests.adapters.support import booked, finish

QUESTION: Any = [{"role": "user", "content": "Why is the sky blue?"}]
WAIT, PARKED, NO_CREDIT = FailureKind.WAIT, FailureKind.PARKED, FailureKind.NO_CREDIT
OVERLOADED, TOO_LARGE, TRANSIENT = FailureKind.OVERLOADED, FailureKind.TOO_LARGE, FailureKind.TRANSIENT
FATAL = FailureKind.FATAL
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class Aiohttp")  # Google's own client, async, unwrapped
EAGER = genai.types.HttpRetryOptions(attempts=5, initial_delay=0.01)
ONE = genai.types.HttpRetryOptions(attempts=1)  # None retries lost connections, after up to ten seconds (3.4)


@pytest.fixture(scope="module")
def running() -> Iterator[SimulatedProvider]:
    with SimulatedProvider(default={"output_tokens": 20}, seed=5) as provider:
        yield provider


@pytest.fixture
def provider(running: SimulatedProvider) -> SimulatedProvider:
    running.reset()
    return running


# ------------------------------------------------------------------ the SDKs, as their users have them


class Sdk(NamedTuple):
    """An SDK: how its clients are made, with `retries` of its own, and called."""

    name: str
    model: str
    client: Callable[[SimulatedProvider, bool, int], Any]
    ask: Callable[[Any, bool], Any]
    errors: tuple[type[Exception], ...]
    """Broken streams and, at Google, lost connections come as the HTTP library's."""


def _openai(provider: SimulatedProvider, sync: bool, retries: int) -> Any:
    kind: Any = openai.OpenAI if sync else openai.AsyncOpenAI
    return kind(base_url=provider.openai_url, api_key="sk-test", max_retries=retries)


def _ask_openai(client: Any, stream: bool) -> Any:
    return client.chat.completions.create(model="gpt-4", messages=QUESTION, max_tokens=30, stream=stream)


def _anthropic(provider: SimulatedProvider, sync: bool, retries: int) -> Any:
    kind: Any = anthropic.Anthropic if sync else anthropic.AsyncAnthropic
    return kind(base_url=provider.anthropic_url, api_key="sk-test", max_retries=retries)


def _ask_anthropic(client: Any, stream: bool) -> Any:
    return client.messages.create(model="claude-opus-4", messages=QUESTION, max_tokens=30, stream=stream)


class _Async:
    """A client of Google's is both; this one stands for its async half."""

    def __init__(self, client: genai.Client) -> None:
        self.client = client


def _google(provider: SimulatedProvider, sync: bool, retries: int) -> Any:
    del sync
    options = genai.types.HttpOptions(base_url=provider.gemini_url, retry_options=EAGER if retries else ONE)
    return genai.Client(api_key="key", http_options=options)


def _ask_google(client: Any, stream: bool) -> Any:
    models = client.client.aio.models if isinstance(client, _Async) else client.models
    call = models.generate_content_stream if stream else models.generate_content
    return call(model="gemini-2.5-flash", contents="Why is the sky blue?")


SDKS = {
    "openai": Sdk("openai", "gpt-4", _openai, _ask_openai, (openai.APIError,)),
    "anthropic": Sdk(
        "anthropic", "claude-opus-4", _anthropic, _ask_anthropic, (anthropic.APIError, httpx2.TransportError)
    ),
    "google": Sdk("gemini", "gemini-2.5-flash", _google, _ask_google, (genai.errors.APIError, httpx2.TransportError)),
}
every_sdk = pytest.mark.parametrize("sdk", SDKS.values(), ids=SDKS)
both_ways = pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
streamed = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


def limiter_of(sdk: Sdk, **retry: Any) -> MultiProviderLimiter:
    strategy = RetryStrategy(**{"base": 0.01, **retry})
    return MultiProviderLimiter([Provider(sdk.name, {sdk.model: {"concurrency": 50}})], retry=strategy)


async def _closed(client: Any) -> None:
    if isinstance(client, genai.Client):
        await client.aio.aclose()
    await finish(client.close())


def called(
    sdk: Sdk,
    provider: SimulatedProvider,
    limiter: MultiProviderLimiter,
    *,
    sync: bool = True,
    stream: bool = False,
    times: int = 1,
) -> list[Exception]:
    """Call through a wrapped client that would retry by itself; return the SDK's errors."""
    raised: list[Exception] = []

    async def use() -> None:
        client = limiter.wrap(sdk.client(provider, sync, 5))
        asked = client if sync or not isinstance(client, genai.Client) else _Async(client)
        for _ in range(times):
            try:
                await finish(sdk.ask(asked, stream))
            except sdk.errors as error:
                raised.append(error)
        await _closed(client)

    asyncio.run(use())
    return raised


# ------------------------------------------------------------------ attempts


@every_sdk
@both_ways
@streamed
def test_attempts_are_the_limiters_and_nobody_multiplies_them(
    provider: SimulatedProvider, sdk: Sdk, *, sync: bool, stream: bool
) -> None:
    limiter = limiter_of(sdk)
    provider.inject("server_error", times=2)
    assert called(sdk, provider, limiter, sync=sync, stream=stream) == []
    report = provider.report()
    assert (report.received, report.completed) == (3, 1)
    assert booked(limiter)[0] == 3
    assert limiter.snapshot().in_flight == 0


@every_sdk
@both_ways
@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_max_attempts_is_obeyed_and_then_the_sdks_own_error_comes(
    provider: SimulatedProvider, sdk: Sdk, attempts: int, *, sync: bool
) -> None:
    provider.inject("server_error", times=20)
    (error,) = called(sdk, provider, limiter_of(sdk, max_attempts=attempts), sync=sync)
    assert isinstance(error, sdk.errors)
    assert "500" in str(error)
    assert provider.report().received == attempts


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("openai", "insufficient_quota"),
        ("openai", "organization_spend_limit_exceeded"),
        ("openai", "request_too_large"),
        ("anthropic", "credit_balance_too_low"),
        ("anthropic", "enforced_spend_limit_reached"),
        ("anthropic", "billing_error"),
        ("google", "limit_zero"),
        *((name, "authentication") for name in SDKS),
    ],
)
@both_ways
def test_what_waiting_does_not_cure_makes_exactly_one_attempt(
    provider: SimulatedProvider, name: str, fault: str, *, sync: bool
) -> None:
    provider.inject(fault, times=20)
    (error,) = called(SDKS[name], provider, limiter_of(SDKS[name]), sync=sync)
    assert isinstance(error, SDKS[name].errors)
    assert provider.report().received == 1


@every_sdk
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refused_request_is_not_retried(provider: SimulatedProvider, sdk: Sdk, status: int) -> None:
    provider.inject(Fault("answer", status=status, body={"error": {"message": "No.", "type": "refused"}}), times=9)
    (error,) = called(sdk, provider, limiter_of(sdk))
    assert isinstance(error, sdk.errors)
    assert provider.report().received == 1


RATE_LIMIT: Mapping[str, Fault] = {
    "openai": Fault("rate_limit", headers={"retry-after": "0.05", "retry-after-ms": None}),
    "anthropic": Fault("rate_limit", headers={"retry-after": "0.05"}),
    "google": Fault("rate_limit", retry_after=0.05),
}


@pytest.mark.parametrize("name", SDKS)
@both_ways
@streamed
def test_a_rate_limit_waits_as_long_as_it_was_told_and_succeeds(
    provider: SimulatedProvider, name: str, *, sync: bool, stream: bool
) -> None:
    provider.inject(RATE_LIMIT[name], times=2)
    begun = time.monotonic()
    assert called(SDKS[name], provider, limiter_of(SDKS[name]), sync=sync, stream=stream) == []
    assert time.monotonic() - begun >= 0.1
    report = provider.report()
    assert (report.received, report.refused, report.completed) == (3, 2, 1)


@every_sdk
@pytest.mark.parametrize(
    "fault",
    ["server_error", "unavailable", "overloaded", "bad_gateway", "gateway_timeout", "reset", "reset_after_headers"],
)
def test_failures_of_the_server_and_the_network_are_retried(provider: SimulatedProvider, sdk: Sdk, fault: str) -> None:
    provider.inject(fault)
    raised = called(sdk, provider, limiter_of(sdk))
    if fault == "reset_after_headers":  # the answer had begun: the SDK's to report
        assert len(raised) == 1
        assert provider.report().received == 1
    else:
        assert raised == []
        assert provider.report().received == 2


@every_sdk
def test_the_retry_budget_bounds_the_retries_of_all_calls(provider: SimulatedProvider, sdk: Sdk) -> None:
    provider.inject("server_error", times=50)
    limiter = limiter_of(sdk, budget=RetryBudget(ratio=0, minimum=3))
    assert len(called(sdk, provider, limiter, times=4)) == 4
    assert provider.report().received == 4 + 3


# ------------------------------------------------------------------ streams


@pytest.mark.parametrize(
    ("name", "fault"),
    [(name, fault) for name in SDKS for fault in ("stream_error", "reset_stream")],
)
@both_ways
def test_a_stream_is_not_retried_once_it_has_begun(
    provider: SimulatedProvider, name: str, fault: str, *, sync: bool
) -> None:
    provider.inject(Fault(fault, after_pieces=2), times=9)
    raised = called(SDKS[name], provider, limiter_of(SDKS[name]), sync=sync, stream=True)
    assert len(raised) == 1
    assert provider.report().received == 1


# ------------------------------------------------------------------ the decorator, around an SDK that nobody wrapped


@every_sdk
@both_ways
@streamed
def test_the_decorator_retries_functions_of_every_kind(
    provider: SimulatedProvider, sdk: Sdk, *, sync: bool, stream: bool
) -> None:
    provider.inject("server_error", times=2)
    assert _decorated(sdk, provider, limiter_of(sdk), sync=sync, stream=stream)
    assert provider.report().received == 3


@every_sdk
@both_ways
@pytest.mark.parametrize(("pieces", "attempts"), [(0, 2), (2, 1)])
def test_the_decorator_retries_a_stream_only_before_its_first_chunk(
    provider: SimulatedProvider, sdk: Sdk, pieces: int, attempts: int, *, sync: bool
) -> None:
    if pieces == 0 and sdk.name != "gemini":
        pieces, attempts = 1, 1  # their streams begin with an event that has no text
    provider.inject(Fault("stream_error", after_pieces=pieces))
    if attempts == 1:
        with pytest.raises(sdk.errors):
            _decorated(sdk, provider, limiter_of(sdk), sync=sync, stream=True)
    else:
        assert _decorated(sdk, provider, limiter_of(sdk), sync=sync, stream=True)
    assert provider.report().received == attempts


def _decorated(
    sdk: Sdk, provider: SimulatedProvider, limiter: MultiProviderLimiter, *, sync: bool, stream: bool
) -> list[Any]:
    """What a decorated function returns that calls an SDK whose own retries are off."""
    client = sdk.client(provider, sync, 0)
    asked = client if sync or not isinstance(client, genai.Client) else _Async(client)
    limited = limiter.limit(provider=sdk.name, model=sdk.model)

    @limited
    def plain() -> Any:
        return sdk.ask(asked, stream)

    @limited
    async def plain_async() -> Any:
        return await sdk.ask(asked, stream)

    @limited
    def pieces() -> Iterator[Any]:
        yield from sdk.ask(asked, stream)

    @limited
    async def pieces_async() -> AsyncIterator[Any]:
        async for piece in await sdk.ask(asked, stream):
            yield piece

    async def use() -> list[Any]:
        function: Any = (pieces if stream else plain) if sync else (pieces_async if stream else plain_async)
        try:
            return await finish(function())
        finally:
            await _closed(client)

    return asyncio.run(use())


# ------------------------------------------------------------------ what each error means, told by the SDK's exception


class Case(NamedTuple):
    sdk: str
    fault: str | Fault
    expected: FailureKind
    kind: str | None = None  # as the limiter knows it from its configuration; None tells it from the exception


def _in_stream(code: str, message: str) -> Fault:
    return Fault("stream_error", error={"type": code, "code": code, "message": message}, after_pieces=0)


_AZURE = {"error": {"code": "429", "message": "You have exceeded token rate limit. Please retry after 22 seconds."}}
CASES = [
    # (a) wait and retry
    *(Case(name, "rate_limit", WAIT) for name in SDKS),
    Case("openai", Fault("rate_limit", dimension="rpm"), WAIT),
    Case("openai", Fault("rate_limit", dimension="tpd"), PARKED),
    Case("openai", Fault("rate_limit", dimension="rpd"), PARKED),
    Case("openai", Fault("rate_limit", bare=True), WAIT),
    Case("openai", Fault("rate_limit", retry_after=121), WAIT),
    Case("openai", Fault("answer", status=429, body=_AZURE), WAIT, "azure"),
    Case("anthropic", "ramp_limit_exceeded", WAIT),
    Case("google", "vertex_exhausted", WAIT, "vertex"),
    Case("openai", "bedrock_throttling", WAIT, "bedrock"),
    Case("openai", "mistral_rate_limited", WAIT, "mistral"),
    Case("openai", "xai_rate_limited", WAIT, "xai"),
    Case("openai", "cohere_rate_limited", WAIT, "cohere"),
    # (b) stop: quota or credit is gone
    Case("openai", "insufficient_quota", NO_CREDIT),
    Case("openai", "credit_balance_exhausted", NO_CREDIT),
    Case("openai", "organization_spend_limit_exceeded", NO_CREDIT),
    Case("openai", "project_spend_limit_exceeded", NO_CREDIT),
    Case("openai", "organization_usage_limit_exceeded", NO_CREDIT),
    Case("anthropic", "enforced_spend_limit_reached", NO_CREDIT),
    Case("anthropic", "contract_spend_limit_reached", NO_CREDIT),
    Case("anthropic", "credit_balance_too_low", NO_CREDIT),
    Case("anthropic", "usage_limit_reached", NO_CREDIT),
    Case("anthropic", "workspace_usage_limit_reached", NO_CREDIT),
    Case("anthropic", "billing_error", NO_CREDIT),
    Case("google", "daily_quota", PARKED),
    Case("google", "limit_zero", NO_CREDIT),
    Case("openai", "openrouter_no_credits", NO_CREDIT, "openrouter"),
    Case("openai", "deepseek_no_balance", NO_CREDIT, "deepseek"),
    Case("openai", "xai_free_quota", NO_CREDIT, "xai"),
    Case("openai", "bedrock_quota_exceeded", NO_CREDIT, "bedrock"),
    # (c) overloaded: fall back or shed load
    *(Case(name, "overloaded", OVERLOADED) for name in SDKS),
    Case("openai", "slow_down", OVERLOADED),
    Case("openai", "slow_down_429", WAIT),
    Case("openai", "resource_unavailable", OVERLOADED),
    Case("openai", "high_demand", OVERLOADED, "azure"),
    Case("openai", "mistral_capacity", OVERLOADED, "mistral"),
    Case("openai", "bedrock_not_ready", OVERLOADED, "bedrock"),
    Case("openai", "bedrock_unavailable", OVERLOADED, "bedrock"),
    Case("anthropic", _in_stream("overloaded_error", "Overloaded"), OVERLOADED),
    Case("google", Fault("stream_error", after_pieces=0), OVERLOADED),
    Case("openai", _in_stream("rate_limit_exceeded", "Rate limit reached. Please try again in 4s."), WAIT),
    # (d) never fits
    Case("openai", "request_too_large", TOO_LARGE),
    # the server and the network
    *(Case(name, "server_error", TRANSIENT) for name in SDKS),
    *(Case(name, fault, TRANSIENT) for name in SDKS for fault in ("bad_gateway", "gateway_timeout", "reset")),
    *(Case(name, "reset_after_headers", TRANSIENT) for name in SDKS),
    *(Case(name, Fault("reset_stream"), TRANSIENT) for name in SDKS),
    # the request itself
    *(Case(name, "authentication", FATAL) for name in SDKS),
    *(Case(name, Fault("answer", status=404, body={"error": {"message": "?"}}), FATAL) for name in SDKS),
]


def _id(case: Case) -> str:
    fault = case.fault
    return f"{case.sdk}-{fault}" if isinstance(fault, str) else f"{case.sdk}-{fault.kind}-{fault.dimension}"


@pytest.mark.parametrize("case", CASES, ids=_id)
@both_ways
def test_what_an_sdks_exception_means(provider: SimulatedProvider, case: Case, *, sync: bool) -> None:
    provider.inject(case.fault)
    sdk = SDKS[case.sdk]
    stream = isinstance(case.fault, Fault) and "stream" in case.fault.kind

    async def use() -> Exception:
        client = sdk.client(provider, sync, 0)
        asked = client if sync or not isinstance(client, genai.Client) else _Async(client)
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever the SDK makes of it
            await finish(sdk.ask(asked, stream))
        await _closed(client)
        return caught.value

    failure = read_failure(asyncio.run(use()), case.kind, time.time())
    assert failure is not None
    assert failure.kind is case.expected, failure
