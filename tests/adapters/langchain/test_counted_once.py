"""However a model is called and whatever limits it, each request is counted once, with what it cost."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from agent_rate_limiter import MultiProviderLimiter
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from agent_rate_limiter_adapters.langchain import (
    AsyncRateLimitCallbackHandler,
    RateLimitCallbackHandler,
    get_rate_limit_callback,
    rate_limited,
)
from tests.adapters.langchain.calls import ASYNC, WAYS, call
from tests.adapters.langchain.models import accounts, books, limiter_of, model_at
from tests.adapters.openai_sdk import until

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
]

LAYERS = [
    "wrapper",
    "callback",
    "async callback",
    "tracking",
    "callback + wrapper",
    "tracking + wrapper",
    "two callbacks",
    "callback everywhere + wrapper + SDK",
    "callback + SDK",
    "callback + wrapper + SDK",
    "decorator + callback + wrapper + SDK",
]


def layered(layers: str, model: BaseChatModel, limiter: MultiProviderLimiter) -> tuple[BaseChatModel, Any]:
    """The model and the configuration to call it with."""
    from agent_rate_limiter_adapters.langchain.sdk import replace_clients

    if "SDK" in layers:
        model = model.model_copy()
        assert replace_clients(model, limiter.wrap)
    if "wrapper" in layers:
        model = rate_limited(model, limiter)
    handlers: list[Any] = []
    if layers.startswith("async callback"):
        handlers = [AsyncRateLimitCallbackHandler(limiter)]
    elif "tracking" in layers:
        handlers = [RateLimitCallbackHandler(limiter, mode="track")]
    elif "two" in layers:
        handlers = [RateLimitCallbackHandler(limiter), RateLimitCallbackHandler(limiter)]
    elif "callback" in layers and "everywhere" not in layers:
        handlers = [RateLimitCallbackHandler(limiter)]
    return model, {"callbacks": handlers} if handlers else None


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize("layers", LAYERS)
async def test_every_way_of_calling(provider: SimulatedProvider, layers: str, kind: str) -> None:
    limiter = limiter_of()
    options = {"stream_usage": True} if kind == "openai" and "wrapper" not in layers else {}
    model, config = layered(layers, model_at(kind, provider, max_retries=0, **options), limiter)
    made = 0
    for way in WAYS:
        if "decorator" in layers and way == "generate":
            continue  # what is decorated is one call, and this makes two
        if "decorator" in layers:
            made += await limiter.limit(target=f"{kind}:model-1")(call)(way, model, config)
        elif "everywhere" in layers:
            with get_rate_limit_callback(limiter, everywhere=True):
                made += await call(way, model, config)
        else:
            made += await call(way, model, config)
        await until(lambda: limiter.snapshot().in_flight == 0)  # a v3 stream's end is told after its last event
        assert provider.report().received == made, way
        assert books(limiter) == accounts(provider), way
    assert made == (19 if "decorator" in layers else 21)


async def test_layers_wait_in_one_queue_and_hold_one_slot(provider: SimulatedProvider) -> None:
    limiter = limiter_of(concurrency=1)
    model, config = layered("callback + wrapper + SDK", model_at("openai", provider), limiter)
    results = await asyncio.wait_for(asyncio.gather(*(model.ainvoke("hi", config) for _ in range(20))), 20)
    assert len(results) == 20
    assert books(limiter) == accounts(provider)


@pytest.mark.parametrize("layers", ["wrapper", "callback", "callback + wrapper"])
@pytest.mark.parametrize("way", ASYNC)
async def test_nothing_blocks_the_event_loop(
    provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch, layers: str, way: str
) -> None:
    """Whoever waits or backs off in a thread, does so here: on the event loop's thread nobody may."""

    def blocking(*_: object) -> None:
        assert threading.current_thread() is not threading.main_thread(), "the event loop is blocked"
        raise AssertionError("a thread of the executor waits")

    monkeypatch.setattr("agent_rate_limiter.calls.life.wait_in_thread", blocking)
    limiter = limiter_of(concurrency=1)
    model, config = layered(layers, model_at("openai", provider, stream_usage=True, max_retries=0), limiter)
    if "wrapper" in layers:
        provider.inject(Fault("server_error"), times=1)  # and is backed off from
    made = await asyncio.wait_for(asyncio.gather(*(call(way, model, config) for _ in range(3))), 20)
    await until(lambda: limiter.snapshot().in_flight == 0)
    assert provider.report().completed == sum(made)
