"""Completions, chains and embeddings: what is no chat model, and chains that have some in them."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.language_models import LLM
from langchain_core.language_models.fake import FakeListLLM, FakeStreamingListLLM
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import GenerationChunk
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableBranch, RunnableLambda, RunnableParallel, RunnablePassthrough
from langchain_openai import OpenAI, OpenAIEmbeddings

from agent_rate_limiter import (
    ConfigError,
    Estimate,
    LimitExceeded,
    MultiProviderLimiter,
    Provider,
    RateLimiter,
)
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from agent_rate_limiter_adapters.langchain import (
    LimiterRateLimiter,
    RateLimitCallbackHandler,
    RateLimitedEmbeddings,
    RateLimitedRunnable,
)
from tests.adapters.langchain.calls import PROMPT, call
from tests.adapters.langchain.models import MODEL, accounts, books, limiter_of, openai_at
from tests.adapters.support import Heard, Reply, ScriptedServer

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestWarning"),  # the module's mark, on tests that are not async
]


def counted(limiter: MultiProviderLimiter | RateLimiter) -> tuple[int, int, int]:
    """Requests, input and output tokens in the books; nothing may be in flight."""
    assert limiter.snapshot().in_flight == 0
    rows = limiter.costs.report().to_dicts()
    return tuple(sum(int(str(row[name])) for row in rows) for name in ("requests", "input_tokens", "output_tokens"))  # type: ignore[return-value]


# ---------------------------------------------------------------- completions


def completion(_: Heard) -> Reply:
    choice = b'{"text": "they wait", "index": 0, "finish_reason": "stop"}'
    usage = b'{"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}'
    return Reply([b'{"id": "x", "object": "text_completion", "choices": [%s], "usage": %s}' % (choice, usage)])


@asynccontextmanager
async def davinci() -> AsyncIterator[tuple[Any, ScriptedServer]]:
    """A completion model, and the server that it calls."""
    with ScriptedServer(completion) as server:
        named: Any = {"model": "davinci", "base_url": server.url, "api_key": "sk-test"}
        llm: Any = OpenAI(**named)
        yield llm, server
        llm.client._client.close()
        await llm.async_client._client.close()


async def test_a_completion_model_is_limited_and_settled() -> None:
    limiter = MultiProviderLimiter([Provider("openai", {"davinci": {"rpm": 100, "concurrency": 1}})])
    async with davinci() as (llm, server):
        limited: Any = limiter.wrap(llm)
        assert isinstance(limited, RateLimitedRunnable)
        assert limited.invoke(PROMPT) == "they wait"
        assert await limited.ainvoke(PROMPT) == "they wait"
        assert len(limited.batch([PROMPT] * 3)) == len(await limited.abatch([PROMPT] * 3)) == 3
        assert (ChatPromptTemplate.from_template("{x}") | limited | StrOutputParser()).invoke({"x": "y"})
        assert len(server.heard) == 9
        assert llm.client._client.max_retries == 2  # the original's
    assert counted(limiter) == (9, 45, 63)


async def test_a_completions_callback_counts_a_request_of_many_prompts_once() -> None:
    limiter = MultiProviderLimiter([Provider("openai", {"davinci": {"rpm": 100}})])
    async with davinci() as (llm, server):
        llm.invoke(PROMPT, {"callbacks": [RateLimitCallbackHandler(limiter)]})
        await llm.ainvoke(PROMPT, {"callbacks": [RateLimitCallbackHandler(limiter)]})
        assert len(server.heard) == 2
    assert counted(limiter) == (2, 10, 14)


class Streaming(LLM):
    """Streams words, and states nothing."""

    fail: int = 0

    @property
    def _llm_type(self) -> str:
        return "streaming"

    def _call(self, prompt: str, *_: Any, **__: Any) -> str:
        return "one two "

    def _stream(self, prompt: str, *_: Any, **__: Any) -> Iterator[GenerationChunk]:
        if self.fail:
            self.fail -= 1
            raise ConnectionRefusedError
        for word in ("one ", "two "):
            yield GenerationChunk(text=word)


async def test_streams_of_completions() -> None:
    limiter = RateLimiter(tpm=1_000, concurrency=1, retry={"base": 0})
    llm = Streaming(fail=1)
    limited = RateLimitedRunnable(llm, limiter, estimate=Estimate(input_tokens=10))
    assert "".join(limited.stream(PROMPT)) == "one two "
    assert "".join([text async for text in limited.astream(PROMPT)]) == "one two "
    assert "".join((limited | StrOutputParser()).stream(PROMPT)) == "one two "
    next(iter(limited.stream(PROMPT)))
    assert counted(limiter)[0] == 4
    assert [event["event"] async for event in limited.astream_events(PROMPT, version="v2")][-1] == "on_llm_end"


# ---------------------------------------------------------------- chains


async def test_a_chain_with_a_declared_target_is_one_call_and_its_models_say_what_it_used(
    provider: SimulatedProvider,
) -> None:
    limiter = limiter_of()
    model = openai_at(provider, max_retries=0)
    twice = RunnableParallel(a=model, b=model)
    chain = RateLimitedRunnable(twice, limiter, target=f"openai:{MODEL}", timeout=5)
    assert set(chain.invoke(PROMPT)) == {"a", "b"}
    assert set(await chain.ainvoke(PROMPT)) == {"a", "b"}
    assert books(limiter) == accounts(provider)
    assert books(limiter)[0] == 4
    assert chain.get_name() == twice.get_name()
    assert (chain.InputType, chain.OutputType) == (twice.InputType, twice.OutputType)


async def test_a_function_whose_result_says_what_it_used() -> None:
    limiter = RateLimiter(tpm=1_000)
    made: Any = RunnableLambda(lambda text: {"text": text, "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    limited: Any = limiter.wrap(made, target="default:default", estimate=lambda text: Estimate(input_tokens=len(text)))
    assert limited.invoke("hello")["text"] == "hello"
    assert (await limited.ainvoke("hello"))["text"] == "hello"
    assert counted(limiter) == (2, 6, 8)
    with pytest.raises(LimitExceeded):
        limited.invoke("x" * 2_000)


async def test_every_model_that_a_chain_shows_is_limited(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    model = openai_at(provider)
    prompt = ChatPromptTemplate.from_template("{x}")
    branch = RunnableBranch((lambda given: False, model), model)
    chains: list[Any] = [
        prompt | model | StrOutputParser(),
        prompt | RunnableParallel(a=model, b=model.bind(stop=["."])),
        RunnablePassthrough.assign(y=prompt | model.with_retry()),
        prompt | branch,
        prompt | model.with_fallbacks([model]),
        prompt | FakeStreamingListLLM(responses=["x"]).with_config(tags=["t"]) | (lambda text: text) | model,
    ]
    for chain in chains[:-1]:
        limited = limiter.wrap(chain)
        assert limited.invoke({"x": "y"})
        assert await limited.ainvoke({"x": "y"})
        chain.invoke({"x": "y"})  # the original is what it was
    assert provider.report().received == 6 * 3
    assert books(limiter)[0] == 6 * 2
    with pytest.raises(ConfigError, match="provider is 'fakestreaminglist"):
        limiter.wrap(chains[-1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RunnableLambda(str), "client is a .*RunnableLambda in which no model can be seen: wrap the model"),
        (StrOutputParser, "in which no model can be seen"),
        (lambda: RunnableParallel(a=str), "in which no model can be seen"),
    ],
)
def test_chains_in_which_no_model_can_be_seen(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        limiter_of().wrap(make())


def test_agents_are_told_to_take_the_middleware(provider: SimulatedProvider) -> None:
    with pytest.raises(ConfigError, match="give an agent RateLimitMiddleware"):
        limiter_of().wrap(create_agent(openai_at(provider), []))


def test_runnables_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="target is None: say where the calls of a RunnableLambda go"):
        RateLimitedRunnable(RunnableLambda(str), limiter_of())
    with pytest.raises(ConfigError, match="runnable is 7: give a Runnable"):
        RateLimitedRunnable(7, limiter_of())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="provider is 'fakelist'"):
        limiter_of().wrap(FakeListLLM(responses=["x"]))
    from langchain_core.documents import Document

    with pytest.raises(ConfigError, match="give a model, embeddings or a Runnable of LangChain"):
        limiter_of().wrap(Document("x"))


# ---------------------------------------------------------------- embeddings


def embeddings_at(provider: SimulatedProvider, **options: Any) -> OpenAIEmbeddings:
    named: Any = {"model": MODEL, "base_url": provider.openai_url, "api_key": "sk-test"}
    brief = httpx.Limits(max_keepalive_connections=0)  # nobody closes them
    clients: Any = {"http_client": httpx.Client(limits=brief), "http_async_client": httpx.AsyncClient(limits=brief)}
    return OpenAIEmbeddings(**named, **clients, check_embedding_ctx_length=False, chunk_size=4, **options)


async def test_embeddings_count_each_request_with_what_it_used(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    original = embeddings_at(provider)
    limited: Any = limiter.wrap(original)
    assert isinstance(limited, RateLimitedEmbeddings)
    provider.inject(Fault("rate_limit", retry_after=0.01), times=1)
    assert len(limited.embed_documents(["text"] * 10)) == 10
    assert len(await limited.aembed_documents(["text"] * 10)) == 10
    assert limited.embed_query("text")
    assert await limited.aembed_query("text")
    assert provider.report().received == 3 + 3 + 2 + 1
    assert books(limiter)[:3] == accounts(provider)[:3]
    original.embed_query("text")
    assert books(limiter)[0] == 9


def test_limited_embeddings_have_what_the_original_has(provider: SimulatedProvider) -> None:
    limited: Any = limiter_of().wrap(embeddings_at(provider, dimensions=8))
    assert (limited.model, limited.dimensions, limited.chunk_size) == (MODEL, 8, 4)  # a cache's namespace
    assert copy.copy(limited).model == MODEL
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        limited.nothing  # noqa: B018 - that is the point


def test_embeddings_that_are_wrapped_again_are_limited_once(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    limited: Any = limiter.wrap(limiter.wrap(embeddings_at(provider)), timeout=5)
    assert limited.embed_query("text")
    assert books(limiter)[0] == provider.report().received == 1
    with pytest.raises(ConfigError, match="limited by another limiter already: give the original"):
        limiter_of().wrap(limited)


async def test_embeddings_with_a_declared_target_are_charged_their_estimates(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    limited = RateLimitedEmbeddings(embeddings_at(provider), limiter, target=f"openai:{MODEL}")
    assert len(limited.embed_documents(["text"] * 10)) == 10
    assert len(await limited.aembed_documents(["text"] * 10)) == 10
    assert limited.embed_query("text")
    assert await limited.aembed_query("text")
    assert books(limiter)[0] == provider.report().received == 8
    assert books(limiter)[1] >= 22


class Named(DeterministicFakeEmbedding):
    model: str = "small"
    chunk_size: int = 3


async def test_embeddings_of_anybody_else_go_in_slices() -> None:
    provider = next(iter({Named.__module__.partition(".")[0].removeprefix("langchain_")}))
    limiter = MultiProviderLimiter([Provider(provider, {"small": {"rpm": 100, "concurrency": 1}})])
    limited = RateLimitedEmbeddings(Named(size=4), limiter, provider=provider)
    texts = [f"text {number}" for number in range(7)]
    assert (
        limited.embed_documents(texts) == await limited.aembed_documents(texts) == Named(size=4).embed_documents(texts)
    )
    assert limited.embed_query("x") == await limited.aembed_query("x")
    assert counted(limiter)[0] == 8
    large = RateLimitedEmbeddings(Named(size=4), limiter, provider=provider, chunk_size=100)
    large.embed_documents(["word " * 300_000] * 2)
    assert counted(limiter)[0] == 10
    assert large.embed_documents([]) == []


def test_embeddings_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="embeddings is 7: give embeddings"):
        RateLimitedEmbeddings(7, limiter_of())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the limiter has no such provider"):
        limiter_of().wrap(Named(size=4))
    assert issubclass(RateLimitedEmbeddings, Embeddings)


# ---------------------------------------------------------------- LangChain's own hook


async def test_langchains_rate_limiter_counts_requests(provider: SimulatedProvider) -> None:
    limiter = MultiProviderLimiter([Provider("openai", {MODEL: {"limits": ["3 requests/day"]}})])
    model = openai_at(provider, rate_limiter=LimiterRateLimiter(limiter, f"openai:{MODEL}", timeout=0.01))
    for way in ("invoke", "ainvoke", "stream"):
        await call(way, model)
    for way in ("invoke", "ainvoke"):
        with pytest.raises(LimitExceeded):
            await call(way, model)
    assert provider.report().received == counted(limiter)[0] == 3
    hook = LimiterRateLimiter(limiter, f"openai:{MODEL}")
    assert hook.acquire(blocking=False) is False
    assert await hook.aacquire(blocking=False) is False
    free = LimiterRateLimiter(RateLimiter(rpm=10), "default:default")
    assert free.acquire() is True
    assert await free.aacquire() is True
