"""Errors of the provider, the network and the limiter, as OpenAI's own SDK lets its callers see them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import OpenAI

from agent_rate_limiter import (
    ConfigError,
    MultiProviderLimiter,
    Provider,
    RateLimiterError,
)
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from agent_rate_limiter_adapters.openai import adapter
from tests.adapters.openai_sdk import ask, both, client_of
from tests.adapters.refusing import refusals
from tests.adapters.support import MODEL, booked, finish, roomy, used


@both
@pytest.mark.parametrize("options", [{}, {"max_retries": 5}])
def test_a_429_is_one_attempt_and_one_request_without_tokens(
    provider: SimulatedProvider, kind: Any, options: dict[str, Any]
) -> None:
    limiter = roomy()
    provider.inject(Fault("rate_limit", retry_after=0.01), times=5)

    async def use() -> None:
        client = adapter(client_of(kind, provider), limiter).with_options(**options)
        with pytest.raises(openai.RateLimitError, match="Rate limit reached"):
            await finish(ask(client))
        with pytest.raises(openai.RateLimitError):
            await finish(ask(client, stream=True))
        await finish(client.close())

    asyncio.run(use())
    assert provider.report().received == 2
    assert booked(limiter) == (2, 0, 0)
    assert used(limiter, "requests") == 2
    assert used(limiter, "tokens") == 0
    assert limiter.snapshot().in_flight == 0


@both
def test_a_call_that_cannot_connect_costs_nothing(kind: Any) -> None:
    limiter = roomy()
    with socket.socket() as taken:  # bound, not listening: refuses
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"

        async def use() -> None:
            client = adapter(kind(base_url=url, api_key="k"), limiter)
            with pytest.raises(openai.APIConnectionError):
                await finish(ask(client))
            await finish(client.close())

        asyncio.run(use())
    assert booked(limiter) == (0, 0, 0)
    assert used(limiter, "requests") == 0
    assert limiter.snapshot().in_flight == 0


@both
def test_a_connection_lost_after_sending_keeps_the_estimate(provider: SimulatedProvider, kind: Any) -> None:
    limiter = roomy()
    provider.inject("reset")

    async def use() -> None:
        client = adapter(client_of(kind, provider), limiter)
        with pytest.raises(openai.APIConnectionError):
            await finish(ask(client))
        await finish(client.close())

    asyncio.run(use())
    assert used(limiter, "requests") == 1
    assert used(limiter, "tokens") >= 60
    assert limiter.snapshot().in_flight == 0


REFUSALS = refusals("openai", MODEL)


@both
@pytest.mark.parametrize(("error", "make"), REFUSALS.items(), ids=[error.__name__ for error in REFUSALS])
def test_the_limiters_errors_come_as_they_are_once(
    provider: SimulatedProvider, kind: Any, error: type[RateLimiterError], make: Callable[[], MultiProviderLimiter]
) -> None:
    limiter = make()
    acquired: list[object] = []

    async def use() -> BaseException:
        client = adapter(client_of(kind, provider, max_retries=4), limiter, timeout=0.02)
        client = client.with_options(max_retries=4)
        name = "acquire" if kind is OpenAI else "acquire_async"
        acquire = getattr(limiter._calls, name)

        def counting(*args: Any, **rest: Any) -> Any:
            acquired.append(args)
            return acquire(*args, **rest)

        setattr(limiter._calls, name, counting)
        with pytest.raises(RateLimiterError) as caught:
            await finish(ask(client))
        await finish(client.close())
        return caught.value

    raised = asyncio.run(use())
    assert type(raised) is error
    assert raised.__cause__ is None
    assert raised.__context__ is None or raised.__suppress_context__
    assert len(acquired) == (0 if error is ConfigError else 1)
    assert provider.report().received == 0


def test_no_provider_for_the_client_is_told_when_it_is_wrapped(provider: SimulatedProvider) -> None:
    limiter = MultiProviderLimiter([Provider("anthropic", {"claude-opus-4": {}})])
    with pytest.raises(ConfigError, match=r"No provider is configured for http://127.*provider="):
        adapter(client_of(OpenAI, provider), limiter)


@pytest.mark.parametrize("thing", [object(), openai.OpenAI, "gpt-4"])
def test_only_clients_are_wrapped(thing: object) -> None:
    with pytest.raises(ConfigError, match="give an OpenAI, AsyncOpenAI, AzureOpenAI or AsyncAzureOpenAI"):
        adapter(thing, roomy())
