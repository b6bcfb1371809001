"""`instrument`: every model of the process, without touching the program that uses them."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from llama_index.llms.openai import OpenAI

from agent_rate_limiter import AcquireTimeout, ConfigError, MultiProviderLimiter, Provider
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from agent_rate_limiter_adapters.llamaindex import instrument, uninstrument
from tests.adapters.llamaindex.models import (
    MODEL,
    QUESTION,
    Plain,
    check_books,
    check_requests,
    generous,
    openai,
    plain,
)
from tests.adapters.llamaindex.test_llms import STREAMS, WHOLE, instrumented, wrapped


@pytest.mark.parametrize("way", ["chat", "stream_chat", "achat", "astream_chat"])
def test_a_failure_of_an_instrumented_call_is_told_to_the_limiter(provider: SimulatedProvider, way: str) -> None:
    limiter = generous()
    provider.inject(Fault("rate_limit", retry_after=30), times=1)
    llm = instrumented(plain(provider), limiter, timeout=0)
    with pytest.raises(Exception, match="429"):
        {**WHOLE, **STREAMS}[way](llm)
    with pytest.raises(AcquireTimeout, match="It frees in 30 s"):  # for as long as the provider said
        llm.complete("Why?")
    check_requests(limiter, provider)


def test_a_stream_that_is_never_read_is_settled_when_it_is_dropped(provider: SimulatedProvider) -> None:
    limiter = generous()
    llm = instrumented(plain(provider), limiter)
    stream = llm.stream_chat(QUESTION)  # the hook reserves at once: whether a user's LLM sends at once, nobody knows
    assert limiter.snapshot().in_flight == 1
    del stream
    gc.collect()
    assert limiter.snapshot().in_flight == 0


def test_uninstrument_restores_everything(provider: SimulatedProvider) -> None:
    limiter = generous()
    llm, own = openai(provider), plain(provider)
    instrument(limiter, provider="openai")
    llm.complete("Why?")
    own.complete("Why?")
    assert (type(llm) is OpenAI, llm.max_retries) == (False, 0)
    uninstrument()
    assert (type(llm), llm.max_retries, own.rate_limiter) == (OpenAI, 3, None)
    llm.complete("Why?")
    own.complete("Why?")
    assert [row["requests"] for row in limiter.costs.report().to_dicts()] == [2]


def test_unknown_models_are_refused_unless_they_are_to_be_ignored(provider: SimulatedProvider) -> None:
    few = MultiProviderLimiter([Provider("openai", {"gpt-4": {"rpm": 1}})])
    llm = plain(provider)
    instrument(few)
    with pytest.raises(ConfigError, match="No provider is configured"):
        llm.complete("Why?")
    with pytest.raises(ConfigError, match="No provider is configured"):
        asyncio.run(llm.acomplete("Why?"))
    instrument(few, ignore_unknown=True)
    assert llm.complete("Why?").text


class Counting:
    """A user's own limiter, as LlamaIndex's hook has it."""

    def __init__(self) -> None:
        self.acquired = 0

    def acquire(self, num_tokens: int = 0) -> None:
        self.acquired += 1

    async def async_acquire(self, num_tokens: int = 0) -> None:
        self.acquired += 1


def test_a_users_own_rate_limiter_is_kept(provider: SimulatedProvider) -> None:
    limiter = generous()
    own = Counting()
    llm = plain(provider, rate_limiter=own)
    instrument(limiter, provider="openai")
    llm.complete("Why?")
    asyncio.run(llm.acomplete("Why?"))
    uninstrument()
    assert own.acquired == 2
    assert llm.rate_limiter is own
    check_books(limiter, provider)


def test_layers_together_count_once(provider: SimulatedProvider) -> None:
    from openai import OpenAI as Client

    class Layered(Plain):
        """A user's LLM that calls a limited client of OpenAI's SDK."""

        client: Any = None

        def _request(self, prompt: str) -> dict[str, Any]:
            messages: Any = [{"role": "user", "content": prompt}]
            return {"answer": self.client.chat.completions.create(model=self.model, messages=messages)}

        def _read(self, response: Any) -> Any:
            raise NotImplementedError

        def complete(self, prompt: str, *args: Any, **kwargs: Any) -> Any:
            from llama_index.core.llms import CompletionResponse

            answer = self._request(prompt)["answer"]
            return CompletionResponse(text=answer.choices[0].message.content, raw=answer)

    limiter = generous()
    with Client(base_url=provider.openai_url, api_key="sk-test") as client:
        layered = Layered(base_url=provider.openai_url, client=limiter.wrap(client))
        instrument(limiter, provider="openai")
        layered.complete("Why?")
        wrapped(layered, limiter).complete("Why?")
        wrapped(layered, limiter).chat(QUESTION)
        limiter.wrap(openai(provider, openai_client=limiter.wrap(client))).complete("Why?")
        with limiter.reserve(f"openai:{MODEL}"):
            wrapped(layered, limiter).complete("Why?")
    check_books(limiter, provider)
    assert provider.report().received == 5


def test_calls_while_a_stream_is_read_are_others(provider: SimulatedProvider) -> None:
    limiter = generous()
    llm = instrumented(plain(provider), limiter)
    stream = llm.stream_chat(QUESTION)
    for _ in stream:
        llm.complete("Why?")
    assert provider.report().received > 2
    check_requests(limiter, provider)
