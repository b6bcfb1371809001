"""docs/http.md runs, and what it recommends for clients without an SDK does what it says."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests

from agent_rate_limiter import MultiProviderLimiter, Provider, RetryStrategy
from agent_rate_limiter.testing import SimulatedProvider
from agent_rate_limiter.testing.simulated import Fault

DOCS = Path(__file__).parents[2] / "docs/http.md"
GPT = "openai:gpt-4"
BODY: dict[str, Any] = {"model": "gpt-4", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 50}


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatedProvider]:
    with SimulatedProvider({"gpt-4": {"output_tokens": 20}}) as provider:
        yield provider


@pytest.fixture(autouse=True)
def _clean(provider: SimulatedProvider) -> None:
    provider.reset()


def roomy() -> MultiProviderLimiter:
    prices = {"input_per_1m": 1, "output_per_1m": 1}
    return MultiProviderLimiter(
        [Provider("openai", {"gpt-4": {"rpm": 5_000, **prices}})], retry=RetryStrategy(base=0.001)
    )


def booked(limiter: MultiProviderLimiter) -> tuple[object, object]:
    (row,) = limiter.costs.report().to_dicts()
    return row["requests"], row["output_tokens"]


def test_the_page_runs(provider: SimulatedProvider, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "docs", "BASE_URL": provider.openai_url}
    for content in re.findall(r"^```python\n(.*?)^```$", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(compile(content, "docs/http.md", "exec"), names)  # noqa: S102 - it is what users run
    assert capsys.readouterr().out.split() == ["20", "20", "100", "20"]
    assert provider.report().completed == 9
    assert booked(names["limiter"]) == (9, 180)
    assert names["limiter"].snapshot().in_flight == 0


def ask_with_requests(provider: SimulatedProvider, limiter: MultiProviderLimiter) -> Any:
    @limiter.limit(target=GPT, max_output_tokens=50)
    def ask() -> requests.Response:
        response = requests.post(f"{provider.openai_url}/chat/completions", json=BODY, timeout=10)
        response.raise_for_status()
        return response

    return ask()


async def explain(response: aiohttp.ClientResponse) -> None:
    """As the page has it."""
    if response.status >= 400:
        about: Any = {"status": response.status, "message": await response.text(), "headers": response.headers}
        raise aiohttp.ClientResponseError(response.request_info, response.history, **about)


def ask_with_aiohttp(provider: SimulatedProvider, limiter: MultiProviderLimiter) -> Any:
    @limiter.limit(target=GPT, max_output_tokens=50)
    async def ask() -> aiohttp.ClientResponse:
        async with aiohttp.ClientSession(raise_for_status=explain) as session:
            response = await session.post(f"{provider.openai_url}/chat/completions", json=BODY)
            await response.read()
            return response

    return asyncio.run(ask())


@pytest.mark.parametrize("ask", [ask_with_requests, ask_with_aiohttp])
def test_a_response_object_settles_the_call(provider: SimulatedProvider, ask: Any) -> None:
    limiter = roomy()
    ask(provider, limiter)
    assert booked(limiter) == (1, 20)


@pytest.mark.parametrize("ask", [ask_with_requests, ask_with_aiohttp])
def test_a_429_waits_as_long_as_its_headers_say(provider: SimulatedProvider, ask: Any) -> None:
    provider.inject(
        Fault("rate_limit", dimension="rpm", headers={"retry-after-ms": "120", "retry-after": "1"}), times=1
    )
    limiter = roomy()
    begun = time.monotonic()
    ask(provider, limiter)
    assert time.monotonic() - begun >= 0.12
    assert booked(limiter) == (2, 20)
    report = provider.report()
    assert (report.received, report.refused) == (2, 1)


@pytest.mark.parametrize("ask", [ask_with_requests, ask_with_aiohttp])
def test_gone_credit_fails_at_once(provider: SimulatedProvider, ask: Any) -> None:
    provider.inject("insufficient_quota")
    with pytest.raises((requests.HTTPError, aiohttp.ClientResponseError)):
        ask(provider, roomy())
    assert provider.report().received == 1


@pytest.mark.parametrize("ask", [ask_with_requests, ask_with_aiohttp])
def test_a_reset_connection_is_tried_again(provider: SimulatedProvider, ask: Any) -> None:
    provider.inject("reset", times=2)
    ask(provider, roomy())
    assert provider.report().received == 3
