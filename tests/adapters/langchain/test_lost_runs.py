"""Runs of which LangChain tells no end, and streams: no slot is kept, and each is one call."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.rate_limiters import BaseRateLimiter

from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from agent_rate_limiter_adapters.langchain import RateLimitCallbackHandler, rate_limited
from tests.adapters.langchain.calls import PROMPT, call, calling
from tests.adapters.langchain.models import accounts, books, charged, limiter_of, openai_at
from tests.adapters.openai_sdk import until

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestWarning"),  # the module's mark, on tests that are not async
]


class Raising(BaseCallbackHandler):
    """Another handler, which breaks a run off after ours has begun it."""

    raise_error = True
    run_inline = True

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        raise ValueError("no")


class Refusing(BaseRateLimiter):
    def acquire(self, *, blocking: bool = True) -> bool:
        raise ValueError("no")

    async def aacquire(self, *, blocking: bool = True) -> bool:
        raise ValueError("no")


@pytest.mark.parametrize("held", [True, False])
async def test_a_cancelled_call_gives_its_slot_back(provider: SimulatedProvider, held: bool) -> None:
    limiter = limiter_of(concurrency=1)
    provider.inject(Fault("hang", seconds=5))
    config = calling(RateLimitCallbackHandler(limiter))
    task = asyncio.create_task(openai_at(provider, max_retries=0).ainvoke(PROMPT, config))
    await until(lambda: limiter.snapshot().in_flight == 1)
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.wait([task])
    if not held:
        del task
    assert charged(limiter) == (1, 0)  # it may have been sent


async def test_a_call_that_times_out_gives_its_slot_back(provider: SimulatedProvider) -> None:
    limiter = limiter_of(concurrency=1)
    provider.inject(Fault("hang", seconds=5))
    config = calling(RateLimitCallbackHandler(limiter))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(openai_at(provider, max_retries=0).ainvoke(PROMPT, config), 0.05)
    await until(lambda: limiter.snapshot().in_flight == 0)
    assert charged(limiter) == (1, 0)


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
async def test_what_breaks_a_run_off_before_it_is_sent(provider: SimulatedProvider, way: str) -> None:
    limiter = limiter_of(concurrency=2)
    ours = RateLimitCallbackHandler(limiter)
    with pytest.raises(ValueError, match="no"):
        await call(way, openai_at(provider), calling(ours, Raising()))
    with pytest.raises(ValueError, match="no"):
        await call(way, openai_at(provider, rate_limiter=Refusing()), calling(ours))
    await asyncio.to_thread(gc.collect)  # a worker thread keeps what was raised in it until its next job
    assert limiter.snapshot().in_flight == 0
    assert provider.report().received == 0


def test_the_others_of_a_generate_that_fails(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    provider.inject(Fault("server_error"), times=1)
    model = openai_at(provider, max_retries=0)
    with pytest.raises(Exception, match="server"):
        model.generate([[HumanMessage("a")], [HumanMessage("b")]], callbacks=[RateLimitCallbackHandler(limiter)])
    gc.collect()
    assert limiter.snapshot().in_flight == 0
    assert provider.report().received == 1


@pytest.mark.parametrize("version", ["v1", "v3"])
def test_streams_that_are_left(provider: SimulatedProvider, version: str) -> None:
    limiter = limiter_of(concurrency=1)
    provider.inject(Fault("slow_stream", seconds=0.005))
    config: Any = calling(RateLimitCallbackHandler(limiter))
    model = openai_at(provider)
    stream = iter(
        model.stream(PROMPT, config) if version == "v1" else model.stream_events(PROMPT, config, version="v3")
    )
    next(stream)
    del stream
    gc.collect()
    assert charged(limiter) == (1, 0)


async def test_a_stream_whose_chunks_are_awaited_by_different_tasks_is_one_call(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    stream = openai_at(provider, stream_usage=True).astream(PROMPT, calling(RateLimitCallbackHandler(limiter)))
    while True:
        try:
            await asyncio.wait_for(stream.__anext__(), 5)  # a task each, before 3.12
        except StopAsyncIteration:
            break
    assert books(limiter) == accounts(provider)


async def test_what_a_streams_consumer_calls_is_another_call(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    config = calling(RateLimitCallbackHandler(limiter))
    limited = rate_limited(openai_at(provider), limiter)
    async for _ in openai_at(provider, stream_usage=True).astream(PROMPT, config):
        if provider.report().received == 1:
            await limited.ainvoke(PROMPT)
    assert provider.report().received == 2
    assert books(limiter) == accounts(provider)
