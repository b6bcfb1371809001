"""Models that are pickled: under the same limits here, and in other processes under those that are made there."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.ingestion import IngestionPipeline

from agent_rate_limiter import ConfigError, MultiProviderLimiter, Provider
from agent_rate_limiter.testing.simulated import SimulatedProvider
from agent_rate_limiter_adapters.llamaindex import FallbackLLM, processes
from tests.adapters.llamaindex.models import (
    MODEL,
    check_books,
    check_requests,
    generous,
    openai,
    openai_embedding,
    plain,
)
from tests.adapters.llamaindex.test_llms import kinds, wrapped

STORE = "AGENT_RATE_LIMITER_TEST_STORE"


def limiter_of_a_worker() -> MultiProviderLimiter:
    return MultiProviderLimiter(
        [Provider("openai", {"*": {"rpm": 100_000, "cost_per_1k": 1}})], store=os.environ[STORE]
    )


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Unpickles as another process would."""

    def thaw(frozen: bytes) -> Any:
        monkeypatch.setattr(processes, "this_process", lambda: "1/")
        return pickle.loads(frozen)  # noqa: S301 - our own

    return thaw


@kinds
def test_in_this_process_twins_find_their_limiter(provider: SimulatedProvider, kind: Any) -> None:
    limiter = generous()
    twin = pickle.loads(pickle.dumps(wrapped(kind(provider), limiter, priority=3)))  # noqa: S301 - our own
    assert copy.deepcopy(wrapped(plain(provider), limiter)).complete("Why?").text
    assert twin.complete("Why?").text
    check_books(limiter, provider)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model(openai).complete("Why?"),
        lambda model: list(model(openai).stream_complete("Why?")),
        lambda model: model(plain, provider="openai").complete("Why?"),
        lambda model: model(openai_embedding).get_text_embedding_batch(["Why?"]),
        lambda model: model(openai_embedding).get_text_embedding_batch(["Why?"], show_progress=True),
    ],
)
def test_elsewhere_a_twin_comes_whole_and_makes_no_call(
    provider: SimulatedProvider,
    elsewhere: Any,
    call: Any,
) -> None:
    def model(kind: Any, **options: Any) -> Any:
        return elsewhere(pickle.dumps(generous().wrap(kind(provider), **options)))

    with pytest.raises(ConfigError, match=r"limited in another process.*in_workers=make_limiter"):
        call(model)
    assert provider.report().received == 0


def test_so_does_a_fallback_llm(provider: SimulatedProvider, elsewhere: Any) -> None:
    llm = elsewhere(pickle.dumps(FallbackLLM([openai(provider)], generous())))
    with pytest.raises(ConfigError, match="FallbackLLM was limited in another process"):
        llm.complete("Why?")


def test_or_it_is_under_a_limiter_that_is_made_there(
    provider: SimulatedProvider,
    elsewhere: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(STORE, "memory://")
    limiter = generous()
    several = [
        limiter.wrap(openai(provider), in_workers=limiter_of_a_worker),
        FallbackLLM([openai(provider)], limiter, in_workers=limiter_of_a_worker),
    ]
    frozen = [pickle.dumps(model) for model in several]
    here = [elsewhere(each) for each in frozen]
    for model in here:
        assert model.complete("Why?").text
    check_requests(here[0]._limits.limiter, provider)
    assert here[0]._limits.limiter is here[1]._limits.limiter, "one for a process"
    again = pickle.loads(pickle.dumps(here[0]))  # noqa: S301 - our own
    assert again._limits.limiter is here[0]._limits.limiter


def test_a_pipelines_workers_share_limits_and_books(
    provider: SimulatedProvider,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(STORE, f"sqlite:///{tmp_path / 'shared.db'}")
    with limiter_of_a_worker() as limiter:
        # A client that is handed in cannot be pickled: LlamaIndex leaves it out.
        embed_model = limiter.wrap(
            openai_embedding(provider, embed_batch_size=5, http_client=None, async_http_client=None),
            in_workers=limiter_of_a_worker,
        )
        pipeline = IngestionPipeline(transformations=[embed_model], disable_cache=True)
        nodes = pipeline.run(documents=[Document(text=f"Cats {number}") for number in range(20)], num_workers=2)
        assert all(node.embedding for node in nodes)
        check_requests(limiter, provider)
        assert limiter.costs.report(by=("model",)).to_dicts()[0]["model"] != MODEL
