"""What LlamaIndex's tests call: its own OpenAI models, and a user's, which reach their provider without an SDK."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator, Generator
from functools import cache
from typing import Any

import httpx
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import ChatMessage, CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.embeddings.openai import OpenAIEmbedding  # type: ignore[import-untyped]
from llama_index.llms.openai import OpenAI

from agent_rate_limiter import MultiProviderLimiter, Provider, RetryStrategy
from agent_rate_limiter.testing.simulated import SimulatedProvider

MODEL = "gpt-4o-mini"
EMBEDDING = "text-embedding-3-small"
QUESTION = [ChatMessage("Why is the sky blue?")]
RETRY = RetryStrategy(base=0.01)


def generous(**options: Any) -> MultiProviderLimiter:
    """A limiter in which nothing binds."""
    model = {"rpm": 1_000_000, "input_per_1m": 2.5, "output_per_1m": 10, **options}
    return MultiProviderLimiter([Provider("openai", {"*": model})], retry=RETRY)


def reached(provider: SimulatedProvider) -> dict[str, Any]:
    """How LlamaIndex's own models reach a provider: by clients that leave no connection open, as nobody closes them."""
    return {"api_base": provider.openai_url, "api_key": "sk-test", **_clients()}


@cache
def _clients() -> dict[str, Any]:
    brief = httpx.Limits(max_keepalive_connections=0)
    return {"http_client": httpx.Client(limits=brief), "async_http_client": httpx.AsyncClient(limits=brief)}


def openai(provider: SimulatedProvider, **options: Any) -> OpenAI:
    """LlamaIndex's own LLM."""
    return OpenAI(**{"model": MODEL, **reached(provider), **options})


def openai_embedding(provider: SimulatedProvider, **options: Any) -> OpenAIEmbedding:
    """LlamaIndex's own embedding model."""
    return OpenAIEmbedding(**{"model": EMBEDDING, **reached(provider), **options})


def plain(provider: SimulatedProvider, **options: Any) -> Plain:
    """A user's own LLM."""
    return Plain(base_url=provider.openai_url, **options)


class Plain(CustomLLM):
    """A user's LLM, which calls its provider as it likes; its streams tell no usage."""

    base_url: str
    model: str = MODEL
    max_tokens: int = 200
    tells_usage: bool = True

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.model)

    @llm_completion_callback()
    def complete(self, prompt: str, *args: Any, **kwargs: Any) -> CompletionResponse:
        return self._read(_clients()["http_client"].post(**self._request(prompt)))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, *args: Any, **kwargs: Any) -> CompletionResponse:
        return self._read(await _clients()["async_http_client"].post(**self._request(prompt)))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, *args: Any, **kwargs: Any) -> Generator[CompletionResponse, None, None]:
        def pieces() -> Generator[CompletionResponse, None, None]:
            yield from _cut(self._read(_clients()["http_client"].post(**self._request(prompt))).text)

        return pieces()

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, *args: Any, **kwargs: Any
    ) -> AsyncGenerator[CompletionResponse, None]:
        async def pieces() -> AsyncGenerator[CompletionResponse, None]:
            response = await _clients()["async_http_client"].post(**self._request(prompt))
            for piece in _cut(self._read(response).text):
                yield piece

        return pieces()

    def _request(self, prompt: str) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt}]
        return {
            "url": f"{self.base_url}/chat/completions",
            "headers": {"authorization": "Bearer sk-test"},
            "json": {"model": self.model, "messages": messages, "max_tokens": self.max_tokens},
        }

    def _read(self, response: httpx.Response) -> CompletionResponse:
        response.raise_for_status()
        body = response.json()
        text = body["choices"][0]["message"]["content"]
        return CompletionResponse(text=text, raw=body if self.tells_usage else None)


def _cut(text: str) -> Generator[CompletionResponse, None, None]:
    for end in range(20, len(text) + 20, 20):
        yield CompletionResponse(text=text[:end], delta=text[end - 20 : end])


class PlainEmbedding(BaseEmbedding):
    """A user's embedding model, which sends texts one by one."""

    base_url: str
    model_name: str = EMBEDDING

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embed([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embed([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._embed([query])[0]

    def _embed(self, texts: list[str]) -> list[list[float]]:
        response = _clients()["http_client"].post(
            f"{self.base_url}/embeddings",
            json={"model": self.model_name, "input": texts, "dimensions": 8},
            headers={"authorization": "Bearer sk-test"},
        )
        response.raise_for_status()
        return [entry["embedding"] for entry in response.json()["data"]]


class BatchEmbedding(PlainEmbedding):
    """One that sends a whole batch in one request."""

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed(texts)


def check_books(limiter: MultiProviderLimiter, provider: SimulatedProvider) -> None:
    """One reservation and one settlement for each request, and the cost is what the provider charges."""
    check_requests(limiter, provider)
    report = provider.report()
    rows = limiter.costs.report().to_dicts()
    assert sum(int(str(row["input_tokens"])) for row in rows) == report.input_tokens
    assert sum(int(str(row["output_tokens"])) for row in rows) == report.output_tokens
    assert limiter.costs.total == pytest.approx(report.dollars, rel=1e-9)  # whole nano-dollars, and floats


def check_requests(limiter: MultiProviderLimiter, provider: SimulatedProvider) -> None:
    """One reservation and one settlement for each request, whatever it was settled with."""
    gc.collect()
    rows = limiter.costs.report().to_dicts()
    assert sum(int(str(row["requests"])) for row in rows) == provider.report().received > 0
    assert limiter.snapshot().in_flight == limiter.snapshot().waiting == 0
