"""Retries through the real SDKs, over a real socket: they are the limiter's, and nobody multiplies them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
from google import genai

from agent_rate_limiter import MultiProviderLimiter, RetryBudget
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from tests.adapters.sdks import (
    SDKS,
    AsyncHalf,
    Sdk,
    both_ways,
    called,
    closed,
    every_sdk,
    limiter_of,
    streamed,
)
from tests.adapters.support import booked, finish

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class Aiohttp")  # Google's own client, async, unwrapped


@pytest.fixture(scope="module")
def running() -> Iterator[SimulatedProvider]:
    with SimulatedProvider(default={"output_tokens": 20}, seed=5) as provider:
        yield provider


@pytest.fixture
def provider(running: SimulatedProvider) -> SimulatedProvider:
    running.reset()
    return running


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
    assert called(sdk, provider, limiter_of(sdk)) == []
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
    asked = client if sync or not isinstance(client, genai.Client) else AsyncHalf(client)
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
            await closed(client)

    return asyncio.run(use())
