"""The limited twin of a client of OpenAI's own SDK, and the original."""

from __future__ import annotations

import asyncio
import gc
import importlib
from typing import Any

import pytest
from openai import OpenAI

from agent_rate_limiter import ConfigError
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from agent_rate_limiter_adapters.openai import adapter
from tests.adapters.openai_sdk import SDK_LIBRARIES, ask, both, client_of
from tests.adapters.support import accounted, booked, finish, roomy


@both
def test_the_original_stays_as_it_is(provider: SimulatedProvider, kind: Any) -> None:
    original = client_of(kind, provider, default_headers={"x-team": "blue"}, timeout=12.0)
    before = (original.max_retries, original._client, original._client._transport, dict(original._client._mounts))
    limiter = roomy()

    async def use() -> None:
        twin = adapter(original, limiter)
        twin._client.headers["x-twin"] = "yes"
        twin._client.event_hooks["request"].append(print)
        assert type(twin).__name__ == type(original).__name__
        assert isinstance(twin, kind)
        assert isinstance(twin.with_options(timeout=1), type(twin))
        assert (twin.max_retries, twin.timeout, twin.base_url) == (0, 12.0, original.base_url)
        await finish(ask(original))
        await finish(twin.close())
        await finish(ask(original))  # on new connections
        await finish(original.close())

    asyncio.run(use())
    after = (original.max_retries, original._client, original._client._transport, dict(original._client._mounts))
    assert after == before
    assert "x-twin" not in original._client.headers
    assert print not in original._client.event_hooks["request"]
    assert booked(limiter) == (0, 0, 0)


def test_a_dropped_twin_leaves_the_originals_calls_alone(provider: SimulatedProvider) -> None:
    original = client_of(OpenAI, provider)
    provider.inject(Fault("slow_stream", seconds=0.005))
    stream = iter(ask(original, stream=True))
    next(stream)
    adapter(original, roomy())
    gc.collect()
    assert list(stream)


def test_a_dropped_original_leaves_the_twins_calls_alone(provider: SimulatedProvider) -> None:
    original = OpenAI(base_url=provider.openai_url, api_key="sk-test")
    with adapter(original, roomy()) as twin:
        provider.inject(Fault("slow_stream", seconds=0.005))
        stream = iter(ask(twin, stream=True))
        next(stream)
        del original
        gc.collect()
        assert list(stream)


@pytest.mark.parametrize("library", SDK_LIBRARIES)
@both
def test_a_http_client_of_the_users_keeps_its_hooks_mounts_and_timeouts(
    provider: SimulatedProvider, kind: Any, library: str
) -> None:
    module = importlib.import_module(library)
    limiter = roomy()
    requests: list[Any] = []
    mounted: list[Any] = []

    def hook(request: Any) -> None:
        requests.append(request)

    async def hook_async(request: Any) -> None:
        requests.append(request)

    sync = kind is OpenAI
    base = module.HTTPTransport if sync else module.AsyncHTTPTransport

    class Mounted(base):  # type: ignore[misc, valid-type]
        def handle_request(self, request: Any) -> Any:
            mounted.append(request)
            return super().handle_request(request)

        def handle_async_request(self, request: Any) -> Any:
            mounted.append(request)
            return super().handle_async_request(request)

    async def use() -> None:
        http_client = (module.Client if sync else module.AsyncClient)(
            timeout=7.0,
            event_hooks={"request": [hook if sync else hook_async]},
            mounts={"http://127.0.0.1": Mounted(), "https://": None},
        )
        client = adapter(client_of(kind, provider, http_client=http_client), limiter)
        await finish(ask(client))
        await finish(ask(client, stream=True))
        assert client._client.timeout.read == 7.0
        await finish(client.close())

    asyncio.run(use())
    assert len(requests) == len(mounted) == 2
    assert booked(limiter) == accounted(provider)
    assert booked(limiter)[0] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": "3"}, "timeout is '3': give seconds"),
        ({"priority": "high"}, "priority is 'high': give a whole number"),
        ({"fallback": []}, "no option 'fallback' for this client; did you mean 'fallbacks'?"),
        ({"speed": 3}, "no option 'speed' for this client; it is one of provider, fallbacks, priority, timeout,"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_when_the_client_is_wrapped(options: Any, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        roomy().wrap(OpenAI(api_key="sk-test"), **options)
    assert message in str(refused.value)
