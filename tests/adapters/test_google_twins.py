"""Wrapped Google clients beside their originals: what is theirs stays theirs."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import httpx2
import pytest
from google import genai

from agent_rate_limiter import (
    ConfigError,
    MultiProviderLimiter,
    Provider,
)
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from agent_rate_limiter_adapters.google import adapter
from tests.adapters.openai_sdk import opened as clients
from tests.adapters.support import accounted, booked, finish
from tests.adapters.test_google import MODEL, ask, client_of, roomy, stream


def test_no_provider_for_the_client_is_told_when_it_is_wrapped(provider: SimulatedProvider) -> None:
    limiter = MultiProviderLimiter([Provider("openai", {"gpt-4": {}})])
    with pytest.raises(ConfigError, match=r"No provider is configured for http://127.*provider="):
        adapter(client_of(provider), limiter)


@pytest.mark.parametrize("thing", [object(), genai.Client, "gemini"])
def test_only_clients_are_wrapped(thing: object) -> None:
    with pytest.raises(ConfigError, match=r"give a google\.genai\.Client"):
        adapter(thing, roomy())


# ------------------------------------------------------------------ the original, and the twin


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the SDK leaves a dead loop's connections to the collector
def test_wrapping_twice_counts_once_in_every_event_loop(provider: SimulatedProvider) -> None:
    limiter = roomy()

    def calls() -> None:
        twin = adapter(adapter(client_of(provider), limiter), limiter)

        async def use() -> None:
            await ask(twin.aio.models)

        ask(twin.models)
        asyncio.run(use())
        asyncio.run(use())

    calls()
    gc.collect()
    assert booked(limiter) == accounted(provider)
    assert booked(limiter)[0] == 3


def test_the_original_stays_as_it_is(provider: SimulatedProvider) -> None:
    original = client_of(provider, timeout=12_000)
    api = original._api_client
    before = (api._http_options.model_dump(), api._httpx_client, api._async_httpx_client, api._retry, type(api))
    limiter = roomy()
    twin = adapter(original, limiter)
    assert type(twin).__name__ == "Client"
    assert isinstance(twin, genai.Client)
    assert twin._api_client._http_options.timeout == 12_000
    del twin
    gc.collect()
    ask(original.models)
    after = (api._http_options.model_dump(), api._httpx_client, api._async_httpx_client, api._retry, type(api))
    assert after == before
    assert original._api_client is api
    assert booked(limiter) == (0, 0, 0)
    assert provider.report().received == 1


def test_a_dropped_original_leaves_the_twins_calls_alone(provider: SimulatedProvider) -> None:
    twin = adapter(client_of(provider), roomy())
    provider.inject(Fault("slow_stream", seconds=0.005))
    pieces = stream(twin.models)
    next(pieces)
    clients.clear()
    gc.collect()
    assert list(pieces)
    ask(twin.models)
    twin.close()


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_http_clients_of_the_users_are_kept(provider: SimulatedProvider, library: Any) -> None:
    requests: list[Any] = []

    async def hook_async(request: Any) -> None:
        requests.append(request)

    limiter = roomy()
    sync = library.Client(event_hooks={"request": [requests.append]})
    asynchronous = library.AsyncClient(event_hooks={"request": [hook_async]})
    twin = adapter(client_of(provider, httpx_client=sync, httpx_async_client=asynchronous), limiter)

    async def use() -> None:
        ask(twin.models)
        await ask(twin.aio.models)
        await twin.aio.aclose()
        twin.close()
        assert not sync.is_closed  # it is the user's
        assert not asynchronous.is_closed
        await asynchronous.aclose()
        sync.close()

    asyncio.run(use())
    assert len(requests) == 2
    assert booked(limiter) == accounted(provider)


# ------------------------------------------------------------------ many at once


def test_threads_and_tasks_share_one_limit(provider: SimulatedProvider) -> None:
    limiter = roomy(concurrency=4)
    provider.set_limits(MODEL, concurrency=4)
    twin = adapter(client_of(provider), limiter)

    async def use() -> None:
        await asyncio.gather(*(finish((stream if number % 2 else ask)(twin.aio.models)) for number in range(20)))
        await twin.aio.aclose()

    with ThreadPoolExecutor(8) as pool:
        others = [pool.submit(ask, twin.models) for _ in range(20)]
        asyncio.run(use())
        for other in others:
            other.result()
    assert booked(limiter) == accounted(provider)
    assert provider.report().completed == 40
    assert limiter.snapshot().in_flight == limiter.snapshot().waiting == 0
