"""`FallbackLLM`: a call goes to the first LLM that can serve it."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent
from pydantic import BaseModel

from agent_rate_limiter import AllTargetsFailed, ConfigError, MultiProviderLimiter, Provider, RetryStrategy
from agent_rate_limiter.testing.simulated import Call, Fault, SimulatedProvider, ToolCall
from agent_rate_limiter_adapters.llamaindex import FallbackLLM, instrument
from tests.adapters.llamaindex.models import MODEL, QUESTION, check_books, check_requests, openai, plain
from tests.adapters.llamaindex.test_programs import multiply

OTHER = "gpt-4o"


def reply(call: Call) -> str | ToolCall:
    asked = str(call.body.get("messages"))
    tools = [tool["function"]["name"] for tool in call.body.get("tools") or ()]
    if tools and "42" not in asked:
        arguments = {"title": "Blue"} if tools == ["Song"] else {"a": 6, "b": 7}
        return ToolCall(tools[0], arguments)
    return "It is 42."


@pytest.fixture(scope="module")
def running() -> Iterator[SimulatedProvider]:
    """The first model takes one request a minute, the second any number."""
    models: Any = {MODEL: {"rpm": 1}, OTHER: {}}
    with SimulatedProvider(models, prices=(2.5, 10), reply=reply) as provider:
        yield provider


def limiter_of(**options: Any) -> MultiProviderLimiter:
    priced = {"input_per_1m": 2.5, "output_per_1m": 10}
    models = {MODEL: {"limits": ["1M requests/day"], **priced, **options}, OTHER: {"rpm": 1_000, **priced}}
    return MultiProviderLimiter([Provider("openai", models)], retry=RetryStrategy(base=0.001))


def pair(provider: SimulatedProvider, limiter: MultiProviderLimiter, **options: Any) -> FallbackLLM:
    return FallbackLLM([openai(provider), openai(provider, model=OTHER)], limiter, **{"timeout": 5, **options})


def served(limiter: MultiProviderLimiter) -> dict[object, object]:
    return {row["model"]: row["requests"] for row in limiter.costs.report(by=("model",)).to_dicts()}


WAYS: dict[str, Any] = {
    "chat": lambda llm: llm.chat(QUESTION),
    "complete": lambda llm: llm.complete("Why?"),
    "achat": lambda llm: asyncio.run(llm.achat(QUESTION)),
    "acomplete": lambda llm: asyncio.run(llm.acomplete("Why?")),
    "stream_chat": lambda llm: list(llm.stream_chat(QUESTION)),
    "stream_complete": lambda llm: list(llm.stream_complete("Why?")),
    "astream_chat": lambda llm: asyncio.run(_read(llm.astream_chat(QUESTION))),
    "astream_complete": lambda llm: asyncio.run(_read(llm.astream_complete("Why?"))),
}


async def _read(stream: Any) -> list[Any]:
    return [item async for item in await stream]


@pytest.mark.parametrize("way", WAYS)
def test_a_limit_that_is_known_sends_the_call_elsewhere_at_once(provider: SimulatedProvider, way: str) -> None:
    limiter = limiter_of(rpm=1)
    llm = pair(provider, limiter)
    for _ in range(3):
        assert WAYS[way](llm)
    assert served(limiter) == {MODEL: 1, OTHER: 2}
    assert provider.report().refused == 0
    check_books(limiter, provider)


@pytest.mark.parametrize("way", WAYS)
def test_a_refusal_sends_the_call_elsewhere_at_once(provider: SimulatedProvider, way: str) -> None:
    limiter = limiter_of()
    llm = pair(provider, limiter)
    for _ in range(3):
        assert WAYS[way](llm)
    assert provider.report()[OTHER].completed == 2
    assert provider.report().refused == 1  # then the limiter knows
    check_books(limiter, provider)


def test_an_llm_without_an_sdk_can_stand_in(provider: SimulatedProvider) -> None:
    limiter = limiter_of(rpm=1)
    other = limiter.wrap(plain(provider, model=OTHER), provider="openai")  # which tells its provider
    llm = FallbackLLM([openai(provider), other], limiter)
    assert llm.complete("Why?").text == llm.complete("Why?").text == "It is 42."
    assert served(limiter) == {MODEL: 1, OTHER: 1}
    assert not llm.metadata.is_function_calling_model
    check_books(limiter, provider)


def test_when_all_fail_each_cause_is_told(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    provider.inject(Fault("server_error"), times=100)
    with pytest.raises(AllTargetsFailed) as failed:
        pair(provider, limiter, timeout=0.1).complete("Why?")
    assert set(failed.value.causes) == {f"openai:{MODEL}", f"openai:{OTHER}"}
    check_requests(limiter, provider)


class Song(BaseModel):
    """A song."""

    title: str


@pytest.mark.parametrize("instrumented", [False, True])
def test_agents_and_structured_outputs_fall_back(provider: SimulatedProvider, instrumented: bool) -> None:
    from llama_index.core.prompts import PromptTemplate

    limiter = limiter_of(rpm=1)
    llm = pair(provider, limiter)
    if instrumented:
        instrument(limiter)

    async def run() -> str:
        return str(await FunctionAgent(tools=[multiply], llm=llm).run("What is 6 times 7?"))

    assert "42" in asyncio.run(run())
    prompt = PromptTemplate("A song of {colour}.")
    assert llm.structured_predict(Song, prompt, colour="blue").title == "Blue"
    assert asyncio.run(llm.astructured_predict(Song, prompt, colour="blue")).title == "Blue"
    assert "42" in llm.predict(PromptTemplate("Say 42."))
    assert served(limiter) == {MODEL: 1, OTHER: 4}
    check_books(limiter, provider)


def test_react_agents_fall_back(provider: SimulatedProvider) -> None:
    limiter = limiter_of(rpm=1)

    async def run() -> str:
        agent = ReActAgent(tools=[multiply], llm=pair(provider, limiter))
        return str(await agent.run("What is 6 times 7?")) + str(await agent.run("And?"))

    assert "42" in asyncio.run(run())
    assert served(limiter)[MODEL] == 1
    check_books(limiter, provider)


def test_its_llms_are_copies_that_retry_nothing(provider: SimulatedProvider) -> None:
    from openai import OpenAI as Client

    limiter = limiter_of()
    with Client(base_url=provider.openai_url, api_key="sk-test") as client:
        original = openai(provider, openai_client=client)
        llm = FallbackLLM([original, openai(provider, model=OTHER)], limiter, include_usage=False)
        (first, _) = llm.llms
        assert isinstance(first, type(original))
        assert (original.max_retries, first.max_retries, first._get_client().max_retries) == (3, 0, 0)
        assert first.additional_kwargs == {}


def test_pickled_ones_find_their_limiter(provider: SimulatedProvider) -> None:
    limiter = limiter_of(rpm=1)
    llm = pickle.loads(pickle.dumps(pair(provider, limiter)))  # noqa: S301 - our own
    assert llm.complete("Why?").text == llm.complete("Why?").text
    assert served(limiter) == {MODEL: 1, OTHER: 1}


def test_what_makes_no_sense_is_refused(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    for llms, fix in (
        ([], "give a list of LLMs"),
        (["gpt-4"], "give a list of LLMs"),
        ([openai(provider), openai(provider)], "give each a target of its own"),
        ([plain(provider)], "No provider is configured"),
        ([openai(provider, model="gpt-4")], "openai:gpt-4"),
    ):
        with pytest.raises(ConfigError, match=fix):
            FallbackLLM(llms, limiter)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_instrument_leaves_its_llms_alone(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    instrument(limiter, timeout=1)  # which would wait for the first, and not fall back
    llm = pair(provider, limiter)
    assert llm.complete("Why?").text == llm.complete("Why?").text == "It is 42."
    assert provider.report()[OTHER].completed == 1
    assert all(type(one).__mro__[1].__name__ != "OpenAI" for one in llm.llms), "they are not limited by themselves"
    check_books(limiter, provider)
