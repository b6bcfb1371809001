"""Embedding models: below the cache, request by request, at the limit's pace, with a line that says how long."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.openai import OpenAIEmbedding  # type: ignore[import-untyped]

from agent_rate_limiter import Limit, MultiProviderLimiter, Provider, RateLimiter, Resource
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from agent_rate_limiter_adapters.llamaindex import instrument, rate_limited_embedding
from agent_rate_limiter_adapters.llamaindex.progress import Progress, spelled
from tests.adapters.llamaindex.models import (
    EMBEDDING,
    RETRY,
    BatchEmbedding,
    PlainEmbedding,
    check_books,
    check_requests,
    generous,
    openai_embedding,
)

TEXTS = [f"chunk {number} of a long report" for number in range(25)]


def one_by_one(provider: SimulatedProvider, **options: Any) -> PlainEmbedding:
    return PlainEmbedding(base_url=provider.openai_url, **options)


def in_batches(provider: SimulatedProvider, **options: Any) -> BatchEmbedding:
    return BatchEmbedding(base_url=provider.openai_url, **options)


def wrapped(model: Any, limiter: MultiProviderLimiter) -> Any:
    return limiter.wrap(model, provider="openai")


def instrumented(model: Any, limiter: MultiProviderLimiter) -> Any:
    instrument(limiter, provider="openai")
    return model


WAYS: dict[str, tuple[Any, int, int]] = {
    "query": (lambda model: model.get_query_embedding("Why?"), 1, 1),
    "aquery": (lambda model: asyncio.run(model.aget_query_embedding("Why?")), 1, 1),
    "text": (lambda model: model.get_text_embedding("Because."), 1, 1),
    "atext": (lambda model: asyncio.run(model.aget_text_embedding("Because.")), 1, 1),
    "batch": (lambda model: model.get_text_embedding_batch(TEXTS), 3, 25),
    "abatch": (lambda model: asyncio.run(model.aget_text_embedding_batch(TEXTS)), 3, 25),
    "progress": (lambda model: model.get_text_embedding_batch(TEXTS, show_progress=True), 3, 25),
    "aprogress": (lambda model: asyncio.run(model.aget_text_embedding_batch(TEXTS, show_progress=True)), 3, 25),
}


@pytest.mark.parametrize("limit", [wrapped, instrumented])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [openai_embedding, one_by_one, in_batches])
def test_every_request_is_one_reservation_and_one_settlement(
    provider: SimulatedProvider, kind: Any, way: str, limit: Any
) -> None:
    limiter = generous()
    embed, batches, singles = WAYS[way]
    model = limit(kind(provider, embed_batch_size=10), limiter)
    assert embed(model)
    asynchronous = kind is in_batches and way in {"abatch", "aprogress"}  # whose class knows no async batches
    assert provider.report().received == (singles if kind is one_by_one or asynchronous else batches)
    if kind is openai_embedding:
        check_books(limiter, provider)
    else:
        check_requests(limiter, provider)


def test_the_twin_is_of_the_users_class(provider: SimulatedProvider) -> None:
    original = openai_embedding(provider)
    twin = rate_limited_embedding(original, generous())
    assert isinstance(twin, OpenAIEmbedding)
    assert (type(original), original.max_retries, twin.max_retries) == (OpenAIEmbedding, 10, 0)


@pytest.mark.parametrize("kind", [openai_embedding, in_batches])
def test_retries_are_the_limiters(provider: SimulatedProvider, kind: Any) -> None:
    limiter = generous()
    provider.inject(Fault("rate_limit", retry_after=0), times=2)
    assert wrapped(kind(provider), limiter).get_text_embedding_batch(TEXTS[:5])
    assert provider.report().received == 3
    check_requests(limiter, provider)


@pytest.mark.parametrize("limit", [wrapped, instrumented])
@pytest.mark.parametrize("kind", [openai_embedding, in_batches])
def test_what_comes_from_the_cache_takes_nothing(provider: SimulatedProvider, kind: Any, limit: Any) -> None:
    limiter = generous()
    model = limit(kind(provider, embed_batch_size=10, embeddings_cache=SimpleKVStore()), limiter)
    model.get_text_embedding_batch(TEXTS[:20])
    assert provider.report().received == 2
    model.get_text_embedding_batch(TEXTS[:20], show_progress=True)
    asyncio.run(model.aget_text_embedding_batch(TEXTS[:20]))
    model.get_text_embedding(TEXTS[0])
    assert provider.report().received == 2
    model.get_text_embedding_batch(TEXTS)
    assert provider.report().received == 3
    check_requests(limiter, provider)


def test_indexing_goes_at_the_limits_pace_and_says_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    """300 requests a minute, of minutes that last a second; 2,000 chunks in 500 requests."""
    model = {"limits": [Limit(Resource.REQUESTS, 300, per=1)], "input_per_1m": 2.5, "output_per_1m": 0}
    limiter = MultiProviderLimiter([Provider("openai", {EMBEDDING: model})], retry=RETRY)
    with SimulatedProvider({EMBEDDING: {"rpm": 300, "prices": (2.5, 0)}}, speed=60) as provider:
        embed_model = limiter.wrap(openai_embedding(provider, embed_batch_size=4, dimensions=8))
        nodes = [TextNode(text=f"Chunk {number} of a long report.") for number in range(2_000)]
        began = time.monotonic()
        index = VectorStoreIndex(nodes, embed_model=embed_model, show_progress=True)
        took = time.monotonic() - began
        report = provider.report()
        assert len(index.index_struct.nodes_dict) == 2_000
        assert report.completed == 500
        assert took > 0.9 * (500 - 300) / 300
        assert report.used_share <= 1
        check_books(limiter, provider)
    printed = capsys.readouterr().err
    assert "Generating embeddings:   0% |                    | 0/2000 in 00:00, about" not in printed  # not a second
    assert "Generating embeddings: 100% |████████████████████| 2000/2000" in printed


def test_the_line_says_how_long_the_limits_will_take(
    provider: SimulatedProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    limiter = MultiProviderLimiter([Provider("openai", {EMBEDDING: {"rpm": 300, "tpm": 1_000_000}})])
    model = limiter.wrap(openai_embedding(provider, embed_batch_size=5, dimensions=8))
    progress = Progress(model, [f"chunk {number}" for number in range(2_000)], 5)
    assert re.search(r"2000 in 00:00, about 20 s to go at 300 requests/minute", capsys.readouterr().err)
    progress.done(1_000)
    assert not progress.forecast()
    progress.close()


def test_the_line_looks_at_the_limit_that_binds_most(provider: SimulatedProvider) -> None:
    limiter = RateLimiter(tpm=100, rpm=10, limits=["3 concurrent", "500 requests"])
    model = limiter.wrap(in_batches(provider, embed_batch_size=10))
    progress = Progress(model, ["one two three four five six seven eight"] * 100, 10)
    assert re.fullmatch(r"about \d min \d+ s to go at 100 tokens/minute", progress.forecast())
    progress.close()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (42, "42 s"), (60, "1 min 0 s"), (200, "3 min 20 s"), (7_500, "2 h 5 min")]
)
def test_times_are_spelled_as_people_do(seconds: float, text: str) -> None:
    assert spelled(seconds) == text


def test_pipelines_are_limited(provider: SimulatedProvider) -> None:
    limiter = generous()
    pipeline = IngestionPipeline(transformations=[limiter.wrap(openai_embedding(provider))])
    nodes = pipeline.run(documents=[Document(text=text) for text in TEXTS])
    assert all(node.embedding for node in nodes)
    nodes = asyncio.run(pipeline.arun(documents=[Document(text=text + "!") for text in TEXTS]))
    assert len(nodes) == 25
    check_books(limiter, provider)
