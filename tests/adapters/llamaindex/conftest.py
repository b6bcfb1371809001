"""LlamaIndex without the network: no tokenizer's files, its own copy of NLTK's, and a provider on loopback."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from agent_rate_limiter.testing.simulated import SimulatedProvider

_spec = find_spec("llama_index.core")
assert _spec is not None
assert _spec.origin is not None
os.environ["NLTK_DATA"] = str(Path(_spec.origin).parent / "_static" / "nltk_cache")

from llama_index.core import Settings  # noqa: E402 - it looks for NLTK's files when it is imported

from agent_rate_limiter_adapters.llamaindex import uninstrument  # noqa: E402 - as above

Settings.tokenizer = str.split


@pytest.fixture(scope="session", autouse=True)
def _quick_collections() -> None:
    """Tests collect garbage to see what is settled: what LlamaIndex has loaded need not be looked through each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def running() -> Iterator[SimulatedProvider]:
    with SimulatedProvider(default={"output_tokens": 40, "prices": (2.5, 10)}, seed=5) as provider:
        yield provider


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    uninstrument()
