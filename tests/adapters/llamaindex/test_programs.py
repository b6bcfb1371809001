"""Whole programs: agents, workflows, query engines and chat engines, on limits that hold them up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.llms import CustomLLM
from llama_index_instrumentation.dispatcher import instrument_tags

from agent_rate_limiter import AcquireTimeout, MultiProviderLimiter, Provider
from agent_rate_limiter.calls import life
from agent_rate_limiter.engine import drivers
from agent_rate_limiter.testing.simulated import Call, Fault, SimulatedProvider, ToolCall
from agent_rate_limiter_adapters.llamaindex import instrument
from tests.adapters.llamaindex.models import QUESTION, RETRY, Plain, check_books, generous, openai, openai_embedding

DOCUMENTS = [Document(text=f"Fact {number}: agents wait for their turn.") for number in range(5)]


def wrapped(model: Any, limiter: MultiProviderLimiter) -> Any:
    return limiter.wrap(model)


def instrumented(model: Any, limiter: MultiProviderLimiter) -> Any:
    instrument(limiter)
    return model


both = pytest.mark.parametrize("limit", [wrapped, instrumented])


def say(call: Call) -> str | ToolCall:
    """A model that uses its tool once, in either way that agents ask for it."""
    asked = str(call.body.get("messages"))
    if "You are designed to help" in asked or "Observation:" in asked:  # ReAct
        if "Observation: 42" in asked:
            return "Thought: I can answer without using any more tools.\nAnswer: 42"
        return 'Thought: I need a tool.\nAction: multiply\nAction Input: {"a": 6, "b": 7}'
    tools = [tool["function"]["name"] for tool in call.body.get("tools") or ()]
    if "handoff" in tools and "'tool'" not in asked:
        return ToolCall("handoff", {"to_agent": "solver", "reason": "numbers"})
    if "multiply" in tools and "42" not in asked:
        return ToolCall("multiply", {"a": 6, "b": 7})
    return "It is 42."


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def function_agent(llm: Any) -> Any:
    return FunctionAgent(tools=[multiply], llm=llm)


def react_agent(llm: Any) -> Any:
    return ReActAgent(tools=[multiply], llm=llm)


def workflow(llm: Any) -> Any:
    solver = FunctionAgent(name="solver", description="solves", tools=[multiply], llm=llm)
    router = FunctionAgent(name="router", description="routes", tools=[], llm=llm, can_handoff_to=["solver"])
    return AgentWorkflow(agents=[router, solver], root_agent="router")


@pytest.fixture(scope="module")
def running() -> Any:
    with SimulatedProvider(reply=say, prices=(2.5, 10)) as provider:
        yield provider


@both
@pytest.mark.parametrize(("made", "requests"), [(function_agent, 2), (react_agent, 2), (workflow, 3)])
def test_agents(provider: SimulatedProvider, made: Callable[[Any], Any], requests: int, limit: Any) -> None:
    limiter = generous()

    async def run() -> str:
        return str(await made(limit(openai(provider), limiter)).run("What is 6 times 7?"))

    assert "42" in asyncio.run(run())
    assert provider.report().received == requests
    check_books(limiter, provider)
    (row,) = limiter.costs.report(by=("run",)).to_dicts()
    assert row["run"], "the workflow's run id"


@both
def test_query_and_chat_engines(provider: SimulatedProvider, limit: Any) -> None:
    limiter = generous()
    llm, embedding = limit(openai(provider), limiter), limit(openai_embedding(provider), limiter)
    index = VectorStoreIndex.from_documents(DOCUMENTS, embed_model=embedding)

    async def ask() -> None:
        assert "42" in str(await index.as_query_engine(llm=llm).aquery("What?"))
        streamed: Any = await index.as_query_engine(llm=llm, streaming=True).aquery("And?")
        assert "42" in "".join([token async for token in streamed.response_gen])
        chat = index.as_chat_engine(llm=llm, chat_mode=ChatMode.CONDENSE_PLUS_CONTEXT)
        answer = await chat.astream_chat("What is it?")
        assert "42" in "".join([token async for token in answer.async_response_gen()])

    asyncio.run(ask())
    assert "42" in str(index.as_query_engine(llm=llm, response_mode="tree_summarize").query("What?"))
    chat = index.as_chat_engine(llm=llm, chat_mode=ChatMode.CONTEXT)
    assert "42" in "".join(chat.stream_chat("What is it?").response_gen)
    assert provider.report().received >= 11
    check_books(limiter, provider)


@both
def test_a_limiters_error_reaches_who_runs_an_agent(provider: SimulatedProvider, limit: Any) -> None:
    limiter = MultiProviderLimiter([Provider("openai", {"*": {"rpm": 1}})])

    async def run() -> None:
        llm = limit(openai(provider), limiter)
        await function_agent(llm).run("What is 6 times 7?")

    async def hurry() -> None:
        with limiter.scope(agent="hasty"):
            await run()

    limiter.acquire("openai:gpt-4o-mini").settle()
    with suppress(asyncio.TimeoutError):
        asyncio.run(asyncio.wait_for(hurry(), 0.3))
    assert provider.report().received == 0
    assert limiter.snapshot().waiting == 0, "a cancelled agent leaves nobody in the queue"


def test_query_engines_pass_a_limiters_error_on(provider: SimulatedProvider) -> None:
    limiter = MultiProviderLimiter([Provider("openai", {"*": {"rpm": 3}})])
    index = VectorStoreIndex.from_documents(DOCUMENTS, embed_model=limiter.wrap(openai_embedding(provider)))
    engine = index.as_query_engine(llm=limiter.wrap(openai(provider), timeout=0.01))
    engine.query("What?")
    limiter.acquire("openai:gpt-4o-mini", timeout=0).settle()
    limiter.acquire("openai:gpt-4o-mini", timeout=0).settle()
    with pytest.raises(AcquireTimeout):
        asyncio.run(engine.aquery("What?"))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How calls wait: in a "thread", which they block, or in a "loop"."""
    seen: list[str] = []

    def spied(name: str, wait: Any) -> Any:
        def counted(engine: Any, waiter: Any) -> Any:
            seen.append(name)
            return wait(engine, waiter)

        return counted

    monkeypatch.setattr(life, "wait_in_thread", spied("thread", drivers.wait_in_thread))
    monkeypatch.setattr(life, "wait_in_loop", spied("loop", drivers.wait_in_loop))
    return seen


class SyncInside(Plain):
    """A user's LLM whose async methods are LlamaIndex's own, which call the sync ones."""

    acomplete = CustomLLM.acomplete


def test_not_even_a_retry_of_what_is_sync_inside_waits_in_the_loops_thread(
    provider: SimulatedProvider, waits: list[str]
) -> None:
    limiter = generous()
    llm = limiter.wrap(SyncInside(base_url=provider.openai_url), provider="openai")
    provider.inject(Fault("rate_limit", retry_after=0.02))
    assert asyncio.run(llm.achat(QUESTION)).message.content
    assert waits == ["loop"]
    assert provider.report().received == 2
    check_books(limiter, provider)


@both
def test_waiting_never_blocks_the_event_loop(provider: SimulatedProvider, limit: Any, waits: list[str]) -> None:
    """By construction: calls wait, and none in a thread whose event loop runs."""
    limiter = MultiProviderLimiter([Provider("openai", {"*": {"rps": 20, "limits": ["1 concurrent"]}})], retry=RETRY)
    llm, embedding = limit(openai(provider), limiter), limit(openai_embedding(provider, embed_batch_size=1), limiter)

    async def work() -> None:
        await embedding.aget_text_embedding_batch([f"text {number}" for number in range(10)])
        await asyncio.gather(*(made(llm).run("What is 6 times 7?") for made in (function_agent, react_agent, workflow)))

    asyncio.run(work())
    assert waits.count("loop") > 5
    assert "thread" not in waits


@both
def test_steps_have_their_own_cost(provider: SimulatedProvider, limit: Any) -> None:
    limiter = generous()

    async def run() -> None:
        llm = limit(openai(provider), limiter)
        for step in ("plan", "act"):
            with instrument_tags({"step": step}):
                await function_agent(llm).run("What is 6 times 7?")

    asyncio.run(run())
    rows = {row["step"]: row for row in limiter.costs.report(by=("step",)).to_dicts()}
    assert [rows[step]["requests"] for step in ("plan", "act")] == [2, 2]
    check_books(limiter, provider)
