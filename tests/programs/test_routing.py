"""Every way to make a call takes the same way: one trace, through each entry point, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import pytest
from openai import AsyncOpenAI, OpenAI

from agent_rate_limiter import AllTargetsFailed, MultiProviderLimiter, Provider, RetryStrategy
from agent_rate_limiter.testing import SimulatedProvider
from agent_rate_limiter.testing.simulated import Fault

PRIMARY, BACKUP, LAST = "gpt-4", "gpt-4o-mini", "gpt-4o"
QUESTION = [{"role": "user", "content": "Why?"}]
TARGET = f"openai:{PRIMARY}"

TRACE = (
    ((), PRIMARY),
    ((PRIMARY,), BACKUP),  # one failure is no outage
    ((), PRIMARY),
    ((PRIMARY, BACKUP), LAST),
    ((PRIMARY,), BACKUP),
    ((PRIMARY,), BACKUP),  # three in a row are: its breaker opens
    ((), BACKUP),
    ((BACKUP, LAST), PRIMARY),  # better one that may be down than none
    ((), PRIMARY),
    ((PRIMARY, BACKUP, LAST), None),
)
"""Which models fail when a call comes, and which one serves it."""

Make = Callable[[MultiProviderLimiter, SimulatedProvider], Callable[[], str]]


def limiter_of() -> MultiProviderLimiter:
    provider = Provider("openai", {name: {"rpm": 1_000} for name in (PRIMARY, BACKUP, LAST)})
    fallbacks = {TARGET: [f"openai:{BACKUP}", f"openai:{LAST}"]}
    return MultiProviderLimiter([provider], fallbacks=fallbacks, retry=RetryStrategy(max_attempts=1))


opened: list[OpenAI] = []


def sync_client(provider: SimulatedProvider) -> OpenAI:
    client = OpenAI(base_url=provider.openai_url, api_key="any", max_retries=0)
    opened.append(client)
    return client


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    yield
    while opened:
        opened.pop().close()


def async_client(provider: SimulatedProvider) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=provider.openai_url, api_key="any", max_retries=0)


def create(client: Any, model: str, *, stream: bool = False) -> Any:
    return client.chat.completions.create(model=model, messages=QUESTION, max_tokens=5, stream=stream)


async def asked(client: AsyncOpenAI, call: Callable[[AsyncOpenAI], Any]) -> str:
    async with client:
        return cast("str", await call(client))


def decorated(limiter: MultiProviderLimiter, provider: SimulatedProvider) -> Callable[[], str]:
    client = sync_client(provider)

    @limiter.limit(target=TARGET)
    def ask(model: str = "") -> Any:
        return create(client, model)

    return lambda: str(ask().model)


def decorated_apart(limiter: MultiProviderLimiter, provider: SimulatedProvider) -> Callable[[], str]:
    client = sync_client(provider)

    @limiter.limit(target=TARGET)
    def ask() -> Any:
        return create(client, PRIMARY)

    @ask.fallback(f"openai:{BACKUP}")
    def _() -> Any:
        return create(client, BACKUP)

    @ask.fallback(f"openai:{LAST}")
    def _() -> Any:
        return create(client, LAST)

    return lambda: str(ask().model)


def decorated_async(limiter: MultiProviderLimiter, provider: SimulatedProvider) -> Callable[[], str]:
    @limiter.limit(target=TARGET)
    async def ask(client: AsyncOpenAI, model: str = "") -> Any:
        return await create(client, model)

    async def served(client: AsyncOpenAI) -> str:
        return str((await ask(client)).model)

    return lambda: asyncio.run(asked(async_client(provider), served))


def decorated_stream(limiter: MultiProviderLimiter, provider: SimulatedProvider) -> Callable[[], str]:
    client = sync_client(provider)

    @limiter.limit(target=TARGET)
    def ask(model: str = "") -> Iterator[Any]:
        with create(client, model, stream=True) as chunks:
            yield from chunks

    def served() -> str:
        return {str(chunk.model) for chunk in ask()}.pop()

    return served


def decorated_async_stream(limiter: MultiProviderLimiter, provider: SimulatedProvider) -> Callable[[], str]:
    @limiter.limit(target=TARGET)
    async def ask(client: AsyncOpenAI, model: str = "") -> AsyncIterator[Any]:
        async with await create(client, model, stream=True) as chunks:
            async for chunk in chunks:
                yield chunk

    async def served(client: AsyncOpenAI) -> str:
        return {str(chunk.model) async for chunk in ask(client)}.pop()

    return lambda: asyncio.run(asked(async_client(provider), served))


def wrapped(limiter: MultiProviderLimiter, provider: SimulatedProvider) -> Callable[[], str]:
    client = limiter.wrap(sync_client(provider))
    return lambda: str(create(client, PRIMARY).model)


def wrapped_stream(limiter: MultiProviderLimiter, provider: SimulatedProvider) -> Callable[[], str]:
    client = limiter.wrap(sync_client(provider))

    def served() -> str:
        with create(client, PRIMARY, stream=True) as chunks:
            return {str(chunk.model) for chunk in chunks}.pop()

    return served


def wrapped_async(limiter: MultiProviderLimiter, provider: SimulatedProvider) -> Callable[[], str]:
    async def served(client: AsyncOpenAI) -> str:
        return str((await create(limiter.wrap(client), PRIMARY)).model)

    return lambda: asyncio.run(asked(async_client(provider), served))


def wrapped_async_stream(limiter: MultiProviderLimiter, provider: SimulatedProvider) -> Callable[[], str]:
    async def served(client: AsyncOpenAI) -> str:
        async with await create(limiter.wrap(client), PRIMARY, stream=True) as chunks:
            return {str(chunk.model) async for chunk in chunks}.pop()

    return lambda: asyncio.run(asked(async_client(provider), served))


def attempted(limiter: MultiProviderLimiter, provider: SimulatedProvider) -> Callable[[], str]:
    """A block cannot be run again: `attempts` are what it is made of."""
    client = sync_client(provider)

    def served() -> str:
        attempts = limiter.attempts(limiter.target_for("openai", PRIMARY), limiter_estimate(), serves=lambda _: True)
        while True:
            with attempts.acquire() as call:
                try:
                    response = create(client, call.model)
                except Exception as error:
                    if not attempts.failed(call, error):
                        raise
                else:
                    call.settle(response)
                    return str(response.model)

    return served


def limiter_estimate() -> Any:
    from agent_rate_limiter import Estimate

    return Estimate(max_output_tokens=5)


WAYS: tuple[Make, ...] = (
    decorated,
    decorated_apart,
    decorated_async,
    decorated_stream,
    decorated_async_stream,
    wrapped,
    wrapped_stream,
    wrapped_async,
    wrapped_async_stream,
    attempted,
)


@pytest.fixture(scope="module")
def running() -> Iterator[SimulatedProvider]:
    with SimulatedProvider(default={"output_tokens": 5}) as provider:
        yield provider


@pytest.mark.parametrize("make", WAYS, ids=lambda make: make.__name__)
def test_the_same_trace_takes_the_same_way(running: SimulatedProvider, make: Make) -> None:
    running.reset()
    limiter = limiter_of()
    ask = make(limiter, running)
    for place, (down, served) in enumerate(TRACE):
        for model in down:
            running.inject(Fault("server_error", model=model), times=1)
        if served is None:
            with pytest.raises(AllTargetsFailed):
                ask()
        else:
            assert ask() == served, f"step {place}: {down}"
    assert limiter.snapshot().in_flight == 0


@pytest.mark.parametrize("make", WAYS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("fault", ["reset", "reset_after_headers"])
def test_a_lost_connection_falls_back_too(running: SimulatedProvider, make: Make, fault: str) -> None:
    running.reset()
    limiter = limiter_of()
    running.inject(Fault(fault, model=PRIMARY), times=1)
    assert make(limiter, running)() == BACKUP
    assert limiter.snapshot().in_flight == 0


@pytest.mark.parametrize("make", [wrapped, wrapped_async, decorated], ids=lambda make: make.__name__)
def test_each_attempt_is_sent_once_and_counted_once(running: SimulatedProvider, make: Make) -> None:
    running.reset()
    limiter = limiter_of()
    ask = make(limiter, running)
    running.inject(Fault("unavailable", model=PRIMARY), times=1)
    assert ask() == BACKUP
    report = running.report()
    assert (report.received, report.completed) == (2, 1)
    rows = {row["model"]: row["requests"] for row in limiter.costs.report().to_dicts()}
    assert rows == {PRIMARY: 1, BACKUP: 1}
