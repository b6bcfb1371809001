"""A limited twin is still the user's model: of its class, in its place, with retries and fallbacks inside."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from langchain.chat_models import init_chat_model
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import ConfigurableField
from langchain_openai import AzureChatOpenAI, ChatOpenAI

from agent_rate_limiter import (
    AcquireTimeout,
    ConfigError,
    MultiProviderLimiter,
    Provider,
    RateLimiter,
    RetryBudget,
    RetryStrategy,
)
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from agent_rate_limiter_adapters.langchain import rate_limited
from tests.adapters.langchain.calls import PROMPT, call
from tests.adapters.langchain.models import (
    MODEL,
    OBLIGING,
    PRICES,
    accounts,
    anthropic_at,
    books,
    limiter_of,
    openai_at,
)
from tests.adapters.langchain.scripted import Answer, multiply
from tests.adapters.openai_sdk import until

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestWarning"),  # the module's mark, on tests that are not async
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),  # of OpenAI's parsed answers
]


# ---------------------------------------------------------------- what it is


def test_it_is_of_its_class_and_looks_the_same(provider: SimulatedProvider) -> None:
    model = openai_at(provider, max_retries=5, temperature=0.5)
    before = (model.max_retries, model.root_client.max_retries, dict(vars(model)))
    twin = limiter_of().wrap(model)
    assert (model.max_retries, model.root_client.max_retries, dict(vars(model))) == before
    assert isinstance(twin, ChatOpenAI)
    assert type(twin).__name__ == "ChatOpenAI"
    assert dumps(twin) == dumps(model)
    assert twin.profile == model.profile
    assert twin._get_llm_string() == model._get_llm_string()
    assert twin.root_client.max_retries == twin.root_async_client.max_retries == 0
    assert rate_limited(anthropic_at(provider), limiter_of())._client.max_retries == 0


async def test_everything_that_is_made_of_it_is_limited(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    twin = rate_limited(openai_at(provider, model=OBLIGING), limiter)
    assert twin.bind_tools([multiply]).invoke("Multiply 3").tool_calls
    assert isinstance(await twin.with_structured_output(Answer).ainvoke("3, 'three'"), Answer)
    assert twin.with_config(tags=["x"]).invoke(PROMPT).content
    assert (twin | (lambda message: message.text)).invoke(PROMPT)
    assert twin.with_fallbacks([twin]).invoke(PROMPT).content
    assert (
        twin.configurable_fields(temperature=ConfigurableField("t"))
        .invoke(PROMPT, {"configurable": {"t": 0.3}})
        .content
    )
    assert copy.copy(twin).invoke(PROMPT).content
    assert twin.model_copy(update={"temperature": 0.1}).invoke(PROMPT).content
    assert provider.report().received == 8
    assert books(limiter) == accounts(provider)


def test_it_is_not_pickled() -> None:
    twin = RateLimiter(rpm=100).wrap(FakeListChatModel(responses=["x"]))
    with pytest.raises(ConfigError, match="limited FakeListChatModel cannot be pickled: limit the original where it"):
        pickle.dumps(twin)
    assert copy.deepcopy(twin).invoke("x").text == "x"


def test_wrapping_twice_limits_once_and_two_limiters_limit_both(provider: SimulatedProvider) -> None:
    one, other = limiter_of(), limiter_of()
    twin = rate_limited(rate_limited(openai_at(provider), one), one)
    assert type(twin).__mro__[1] is ChatOpenAI
    rate_limited(twin, other).invoke(PROMPT)
    assert books(one) == books(other) == accounts(provider)


async def test_answers_from_a_cache_are_free(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    cache = InMemoryCache()
    openai_at(provider, cache=cache).invoke(PROMPT)
    provider.reset()
    twin = rate_limited(openai_at(provider, cache=cache), limiter)
    for way in ("invoke", "ainvoke"):
        await call(way, twin)
    assert provider.report().received == 0
    assert limiter.costs.report().to_dicts() == []


def test_a_model_that_counts_its_calls_goes_on_counting(manual_clock: Any) -> None:
    limiter = RateLimiter(rpm=100, clock=manual_clock)
    twin = limiter.wrap(FakeListChatModel(responses=["one", "two"]))
    assert [twin.invoke("x").text for _ in range(3)] == ["one", "two", "one"]
    spoken = limiter.wrap(GenericFakeChatModel(messages=iter([AIMessage("a b"), AIMessage("c")])))
    assert [chunk.text for chunk in spoken.stream("x")][:1] == ["a"]
    assert spoken.invoke("x").text == "c"


# ---------------------------------------------------------------- models that are half of what they could be


class OnlySync(BaseChatModel):
    """A model without a coroutine, which streams."""

    model: str = MODEL

    @property
    def _llm_type(self) -> str:
        return "only-sync"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        text = "".join(chunk.text for chunk in self._stream(messages))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        for word in ("they ", "wait"):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))


class Native(OnlySync):
    """A model with protocol events of its own."""

    def _stream_chat_model_events(self, messages: Any, **_: Any) -> Iterator[Any]:
        yield {"event": "message-start", "role": "ai", "id": "x"}
        yield {"event": "content-block-start", "index": 0, "content": {"type": "text", "text": ""}}
        yield {"event": "content-block-delta", "index": 0, "delta": {"type": "text-delta", "text": "hi"}}
        yield {"event": "content-block-finish", "index": 0, "content": {"type": "text", "text": "hi"}}
        yield {
            "event": "message-finish",
            "usage": {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12},
        }

    async def _astream_chat_model_events(self, messages: Any, **_: Any) -> AsyncIterator[Any]:
        for event in self._stream_chat_model_events(messages):
            yield event


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream", "abatch"])
async def test_a_model_without_coroutines_counts_once(way: str) -> None:
    limiter = MultiProviderLimiter([Provider("onlysync", {MODEL: {"rpm": 100, "concurrency": 1}})])
    twin = rate_limited(OnlySync(), limiter, provider="onlysync")
    made = await asyncio.wait_for(call(way, twin), 5)
    (row,) = limiter.costs.report().to_dicts()
    assert row["requests"] == made
    assert limiter.snapshot().in_flight == 0


async def test_native_event_streams_are_limited_and_settled() -> None:
    limiter = MultiProviderLimiter([Provider("native", {MODEL: {"rpm": 100}})])
    twin = limiter.wrap(Native())
    assert list(twin.stream_events("x", version="v3"))
    stream: Any = await twin.astream_events("x", version="v3")
    assert [event async for event in stream]
    await until(lambda: limiter.snapshot().in_flight == 0)
    (row,) = limiter.costs.report().to_dicts()
    assert (row["requests"], row["input_tokens"], row["output_tokens"]) == (2, 14, 10)


# ---------------------------------------------------------------- retries, cancellation, streams that end early


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream", "batch", "abatch", "astream_events v3"])
async def test_it_tries_again_and_counts_each_request(provider: SimulatedProvider, way: str) -> None:
    limiter = limiter_of()
    provider.inject(Fault("rate_limit", retry_after=0.01), times=1)
    provider.inject(Fault("server_error"), times=1)
    made = await call(way, rate_limited(openai_at(provider, max_retries=5), limiter))
    await until(lambda: limiter.snapshot().in_flight == 0)
    assert provider.report().received == made + 2
    assert books(limiter) == accounts(provider)


async def test_a_wait_has_a_timeout(provider: SimulatedProvider) -> None:
    limiter = limiter_of(concurrency=1)
    twin = rate_limited(openai_at(provider), limiter, timeout=0.01)
    held = limiter.acquire(f"openai:{MODEL}")
    for way in ("invoke", "ainvoke", "stream", "astream"):
        with pytest.raises(AcquireTimeout):
            await call(way, twin)
    held.cancel()
    assert provider.report().received == 0


@pytest.mark.parametrize("layer", ["sync", "async"])
async def test_a_stream_that_is_left_early(provider: SimulatedProvider, layer: str) -> None:
    limiter = limiter_of(concurrency=1)
    provider.inject(Fault("slow_stream", seconds=0.002))
    twin = rate_limited(openai_at(provider), limiter)
    if layer == "sync":
        for chunk in twin.stream(PROMPT):
            if chunk.text:
                break
    else:
        stream: Any = twin.astream(PROMPT)
        async for chunk in stream:
            if chunk.text:
                break
        await stream.aclose()
    await until(lambda: limiter.snapshot().in_flight == 0)
    (row,) = limiter.costs.report().to_dicts()
    assert row["requests"] == 1
    assert int(str(row["output_tokens"])) > 0  # what was seen of it


async def test_cancelled_and_timed_out_calls_give_their_slots_back(provider: SimulatedProvider) -> None:
    limiter = limiter_of(concurrency=1)
    twin = rate_limited(openai_at(provider), limiter)
    provider.inject(Fault("hang", seconds=5), times=2)
    task = asyncio.create_task(twin.ainvoke(PROMPT))
    await until(lambda: limiter.snapshot().in_flight == 1)
    waiting = asyncio.create_task(twin.ainvoke(PROMPT))
    await until(lambda: limiter.snapshot().waiting == 1)
    waiting.cancel()
    task.cancel()
    await asyncio.wait([task, waiting])
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(twin.ainvoke(PROMPT), 0.05)
    snapshot = limiter.snapshot()
    assert (snapshot.in_flight, snapshot.waiting) == (0, 0)
    provider.reset()
    assert (await twin.ainvoke(PROMPT)).content


async def test_two_hundred_at_once(provider: SimulatedProvider) -> None:
    limiter = limiter_of(concurrency=20)
    twin = rate_limited(openai_at(provider), limiter)
    assert len(await twin.abatch([PROMPT] * 200)) == 200
    assert provider.report().received == 200
    assert books(limiter) == accounts(provider)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_connections_of_an_earlier_event_loop_are_no_failures_of_the_provider(provider: SimulatedProvider) -> None:
    retry = RetryStrategy(max_attempts=20, base=0.01, budget=RetryBudget(ratio=0, minimum=0))
    limiter = MultiProviderLimiter([Provider("openai", {MODEL: {"rpm": 100_000, **PRICES}})], retry=retry)
    twin = rate_limited(openai_at(provider, http_async_client=httpx.AsyncClient()), limiter)
    for _ in range(3):
        asyncio.run(twin.abatch([PROMPT] * 20))
    assert books(limiter)[0] == provider.report().received > 60, "they were met, and counted"
    del twin
    gc.collect()  # nobody can close such connections


@pytest.mark.parametrize("told", [True, False])
async def test_streams_state_their_usage_unless_the_model_says_otherwise(
    provider: SimulatedProvider, told: bool
) -> None:
    quiet = rate_limited(openai_at(provider, stream_usage=False), limiter_of(), include_usage=told)
    assert not any(chunk.usage_metadata for chunk in quiet.stream(PROMPT))
    silent = rate_limited(openai_at(provider), limiter_of(), include_usage=told)
    assert any(chunk.usage_metadata for chunk in silent.stream(PROMPT)) == told
    asked = rate_limited(openai_at(provider), limiter_of(), include_usage=told)
    assert any(chunk.usage_metadata for chunk in asked.stream(PROMPT, stream_usage=True))


# ---------------------------------------------------------------- whose limits


def anything(value: Any) -> Any:
    return value


def test_whose_limits_a_model_is_under(provider: SimulatedProvider) -> None:
    mine = Provider("mine", {"*": {"rpm": 100}}, base_url=provider.openai_url)
    limiter = MultiProviderLimiter([mine, Provider("openai", {"gpt-4": {"rpm": 1}}), Provider("azure", {"*": {}})])
    limiter.wrap(openai_at(provider)).invoke(PROMPT)
    limiter.wrap(openai_at(provider), provider="mine").invoke(PROMPT, model=OBLIGING)
    limiter.wrap(openai_at(provider), target="openai:gpt-4").invoke(PROMPT)
    rows = limiter.costs.report(by=("provider", "model")).to_dicts()
    assert {(row["provider"], row["model"]) for row in rows} == {
        ("mine", MODEL),
        ("mine", OBLIGING),
        ("openai", "gpt-4"),
    }
    named: Any = {"azure_endpoint": "https://x.openai.azure.com", "api_version": "2024-10-21", "api_key": "sk-test"}
    azure = AzureChatOpenAI(**named, azure_deployment="mine", model=MODEL)
    assert isinstance(limiter.wrap(azure), AzureChatOpenAI)
    with pytest.raises(ConfigError, match="this model cannot call it"):  # its model is in the URL
        limiter.wrap(azure, fallbacks=["azure:other"])


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda limiter: rate_limited(anything(7), limiter), "model is a builtins.int: give a chat model"),
        (lambda limiter: rate_limited(anything(init_chat_model()), limiter), "there is no model in it yet"),
        (lambda limiter: limiter.wrap(FakeListChatModel(responses=["x"])), "provider is 'fakelistchatmodel'"),
        (lambda limiter: limiter.wrap(ChatOpenAI(model="other", api_key=anything("x"))), "target is 'openai:other'"),
        (lambda limiter: limiter.wrap(init_chat_model()), "it makes a model for each call. Name the model and no"),
        (lambda _: rate_limited(FakeListChatModel(responses=["x"]), anything(None)), "limiter is None: give a"),
        (lambda limiter: limiter.wrap(FakeListChatModel(responses=["x"]), priority="high"), "priority is 'high'"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_models_that_cannot_be_limited(wrap: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        wrap(limiter_of())
