"""LLMs: every endpoint is limited, once per request, whoever makes it and however it ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.llms.openai import OpenAI, OpenAIResponses
from llama_index_instrumentation.dispatcher import instrument_tags
from pydantic import BaseModel

from agent_rate_limiter import AcquireTimeout, ConfigError, MultiProviderLimiter, Provider, RateLimiter, RetryStrategy
from agent_rate_limiter.testing.simulated import Call, Fault, SimulatedProvider, ToolCall
from agent_rate_limiter_adapters.llamaindex import instrument, rate_limited
from tests.adapters.llamaindex.models import (
    MODEL,
    QUESTION,
    check_books,
    check_requests,
    generous,
    openai,
    openai_embedding,
    plain,
    reached,
)

kinds = pytest.mark.parametrize("kind", [openai, plain])
Ways = dict[str, Callable[[Any], Any]]


def wrapped(llm: Any, limiter: MultiProviderLimiter, **options: Any) -> Any:
    return limiter.wrap(llm, provider="openai", **options)


def instrumented(llm: Any, limiter: MultiProviderLimiter, **options: Any) -> Any:
    instrument(limiter, provider="openai", **options)
    return llm


async def _read(stream: Any) -> list[Any]:
    return [item async for item in await stream]


WHOLE: Ways = {
    "chat": lambda llm: llm.chat(QUESTION),
    "complete": lambda llm: llm.complete("Why?"),
    "achat": lambda llm: asyncio.run(llm.achat(QUESTION)),
    "acomplete": lambda llm: asyncio.run(llm.acomplete("Why?")),
}
STREAMS: Ways = {
    "stream_chat": lambda llm: list(llm.stream_chat(QUESTION)),
    "stream_complete": lambda llm: list(llm.stream_complete("Why?")),
    "astream_chat": lambda llm: asyncio.run(_read(llm.astream_chat(QUESTION))),
    "astream_complete": lambda llm: asyncio.run(_read(llm.astream_complete("Why?"))),
}


@pytest.mark.parametrize("limit", [wrapped, instrumented])
@pytest.mark.parametrize("way", [*WHOLE, *STREAMS])
@kinds
def test_every_endpoint_is_one_reservation_and_one_settlement(
    provider: SimulatedProvider, kind: Any, way: str, limit: Any
) -> None:
    limiter = generous()
    llm = limit(kind(provider), limiter)
    assert {**WHOLE, **STREAMS}[way](llm)
    if kind is openai or way in WHOLE:
        check_books(limiter, provider)
    else:
        check_requests(limiter, provider)


def test_the_twin_is_of_the_users_class_and_the_original_stays_as_it_is(provider: SimulatedProvider) -> None:
    limiter = generous()
    original = openai(provider)
    twin = limiter.wrap(original)
    assert isinstance(twin, OpenAI)
    assert type(twin).__qualname__ == "OpenAI"
    assert twin.max_retries == 0
    assert (type(original), original.max_retries) == (OpenAI, 3)
    assert twin.to_dict() == {**original.to_dict(), "max_retries": 0}
    original.complete("Not limited.")
    assert not limiter.costs.report().to_dicts()


@pytest.mark.parametrize("way", [*WHOLE, *STREAMS])
@kinds
def test_retries_are_the_limiters(provider: SimulatedProvider, kind: Any, way: str) -> None:
    limiter = generous()
    provider.inject(Fault("rate_limit", retry_after=0), times=2)
    assert {**WHOLE, **STREAMS}[way](wrapped(kind(provider), limiter))
    assert provider.report().received == 3
    check_requests(limiter, provider)


@pytest.mark.parametrize("limit", [wrapped, instrumented])
@pytest.mark.parametrize("way", ["chat", "stream_chat", "astream_chat"])
def test_a_persistent_failure_is_sent_as_often_as_the_limiter_says(
    provider: SimulatedProvider, way: str, limit: Any
) -> None:
    limiter = MultiProviderLimiter([Provider("openai", {"*": {"rpm": 1_000}})], retry=RetryStrategy(2, base=0.001))
    provider.inject(Fault("server_error"), times=10)
    with pytest.raises(Exception, match="server had an error"):
        {**WHOLE, **STREAMS}[way](limit(openai(provider), limiter))
    assert provider.report().received == 2
    check_requests(limiter, provider)


@pytest.mark.parametrize("limit", [wrapped, instrumented])
@pytest.mark.parametrize("way", [*WHOLE, *STREAMS])
@kinds
def test_a_limiters_error_comes_as_it_is_and_nothing_is_sent(
    provider: SimulatedProvider, kind: Any, way: str, limit: Any
) -> None:
    limiter = MultiProviderLimiter([Provider("openai", {"*": {"rpm": 1}})])
    limiter.acquire(f"openai:{MODEL}").settle()
    with pytest.raises(AcquireTimeout, match="1 requests/minute"):
        {**WHOLE, **STREAMS}[way](limit(kind(provider), limiter, timeout=0.01))
    assert provider.report().received == 0


@kinds
def test_a_stream_that_is_never_read_is_never_sent(provider: SimulatedProvider, kind: Any) -> None:
    limiter = generous()
    llm = wrapped(kind(provider), limiter)

    async def ask() -> None:
        await llm.astream_chat(QUESTION)

    llm.stream_chat(QUESTION)
    asyncio.run(ask())
    gc.collect()
    assert provider.report().received == 0
    assert limiter.snapshot().in_flight == 0
    assert not limiter.costs.report().to_dicts()


@pytest.mark.parametrize("limit", [wrapped, instrumented])
@kinds
def test_an_abandoned_stream_is_settled(provider: SimulatedProvider, kind: Any, limit: Any) -> None:
    limiter = generous()
    llm = limit(kind(provider), limiter)

    async def leave() -> None:
        async for _ in await llm.astream_chat(QUESTION):
            break
        gc.collect()
        await asyncio.sleep(0.01)  # the loop closes what nobody reads

    stream = llm.stream_chat(QUESTION)
    next(stream)
    del stream
    asyncio.run(leave())
    check_requests(limiter, provider)
    assert provider.report().received == 2


@kinds
def test_a_stream_keeps_the_labels_of_where_it_was_asked_for(provider: SimulatedProvider, kind: Any) -> None:
    limiter = generous()
    llm = wrapped(kind(provider), limiter)

    async def read() -> None:
        with limiter.scope(agent="b"):
            stream = await llm.astream_chat(QUESTION)
        assert [item async for item in stream]

    tags = {"step": "first", "provider": "x", "none": None, "llamaindex.run_id": "7"}
    with limiter.scope(agent="a"), instrument_tags(tags):
        stream = llm.stream_chat(QUESTION)
    assert list(stream)
    asyncio.run(read())
    rows = limiter.costs.report(by=("agent", "step", "run")).to_dicts()
    assert {(row["agent"], row["step"], row["run"]) for row in rows} == {("a", "first", "7"), ("b", "", "")}


@pytest.mark.parametrize("limit", [wrapped, instrumented])
@kinds
def test_tags_label_calls(provider: SimulatedProvider, kind: Any, limit: Any) -> None:
    limiter = generous()
    llm = limit(kind(provider), limiter)
    with instrument_tags({"team": "blue"}):
        llm.chat(QUESTION)
        asyncio.run(llm.acomplete("Why?"))
    (row,) = limiter.costs.report(by=("team",)).to_dicts()
    assert (row["team"], row["requests"]) == ("blue", 2)


class Song(BaseModel):
    """A song."""

    title: str
    length: int


def sing(call: Call) -> str | ToolCall:
    if call.body.get("tools"):
        return ToolCall("Song", {"title": "Blue", "length": 3})
    return '{"title": "Blue", "length": 3}'


@pytest.mark.parametrize("limit", [wrapped, instrumented])
@pytest.mark.parametrize("model", ["gpt-4o-mini", "gpt-4"])
def test_structured_outputs(model: str, limit: Any) -> None:
    from llama_index.core.prompts import PromptTemplate

    limiter = generous()
    prompt = PromptTemplate("A song of {colour}.")
    with SimulatedProvider(reply=sing, prices=(2.5, 10)) as provider:
        llm = limit(openai(provider, model=model), limiter)
        assert llm.structured_predict(Song, prompt, colour="blue").title == "Blue"
        assert asyncio.run(llm.astructured_predict(Song, prompt, colour="blue")).length == 3
        assert list(llm.stream_structured_predict(Song, prompt, colour="blue"))[-1].title == "Blue"
        assert llm.as_structured_llm(Song).complete("Blue.").raw.title == "Blue"
        assert llm.predict(prompt, colour="blue")
        assert "".join(llm.stream(prompt, colour="blue"))
        check_books(limiter, provider)
        assert provider.report().received == 6


def test_a_structured_llm_is_limited_inside() -> None:
    limiter = generous()
    with SimulatedProvider(reply=sing, prices=(2.5, 10)) as provider:
        llm = limiter.wrap(openai(provider).as_structured_llm(Song))
        song: Any = llm.complete("Blue.").raw
        assert song.title == "Blue"
        check_books(limiter, provider)


@pytest.mark.parametrize("limit", [wrapped, instrumented])
def test_the_responses_api(limit: Any) -> None:
    limiter = generous()
    with SimulatedProvider(reply=sing, prices=(2.5, 10)) as provider:
        llm = limit(OpenAIResponses(model=MODEL, **reached(provider)), limiter)
        assert llm.complete("Blue.").text
        assert list(llm.stream_complete("Blue."))
        assert asyncio.run(llm.achat(QUESTION)).message.content
        check_books(limiter, provider)
        assert provider.report().received == 3


@pytest.mark.parametrize("reuse_client", [True, False])
def test_clients_are_reused_as_the_user_says(provider: SimulatedProvider, reuse_client: bool) -> None:
    limiter = generous()
    llm = limiter.wrap(openai(provider, reuse_client=reuse_client, http_client=None, async_http_client=None))
    assert (llm._get_client() is llm._get_client()) is reuse_client
    llm.chat(QUESTION)
    check_books(limiter, provider)
    llm._get_client().close()


def test_streams_may_be_left_without_usage(provider: SimulatedProvider) -> None:
    limiter = generous()
    llm = limiter.wrap(openai(provider), include_usage=False)
    chunks: list[Any] = list(llm.stream_chat(QUESTION))
    assert all(chunk.raw.usage is None for chunk in chunks)
    check_requests(limiter, provider)
    (row,) = limiter.costs.report().to_dicts()
    assert int(str(row["output_tokens"])) > 0  # counted from the text
    wrapped_again = limiter.wrap(llm)  # on new terms, and not twice
    list(wrapped_again.stream_chat(QUESTION))
    check_requests(limiter, provider)


def test_one_target_for_all(provider: SimulatedProvider) -> None:
    limiter = RateLimiter("100 requests/minute")
    limiter.wrap(openai(provider)).complete("Why?")
    limiter.wrap(plain(provider)).complete("Why?")
    (row,) = limiter.costs.report().to_dicts()
    assert row["requests"] == 2


def refused(limiter: MultiProviderLimiter, model: Any, **options: Any) -> str:
    with pytest.raises(ConfigError) as refusal:
        limiter.wrap(model, **options)
    return str(refusal.value)


def test_what_cannot_be_limited_is_refused(provider: SimulatedProvider) -> None:
    from llama_index.core.schema import TextNode

    limiter = generous()
    assert "give an LLM or an embedding model" in refused(limiter, TextNode())
    assert f"No provider is configured for {provider.openai_url} (kind 'generic')" in refused(limiter, plain(provider))
    assert "no such provider" in refused(limiter, openai(provider), provider="azure")
    assert "limited by another limiter" in refused(generous(), limiter.wrap(openai(provider)))
    few = MultiProviderLimiter([Provider("openai", {"gpt-4": {"rpm": 1}})])
    assert f"openai:{MODEL}" in refused(few, plain(provider), provider="openai")
    with pytest.raises(ConfigError, match="give an LLM of LlamaIndex"):
        rate_limited(openai_embedding(provider), limiter)  # pyright: ignore[reportArgumentType]  # that is the point
