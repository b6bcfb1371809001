"""What LangChain's messages and chunks say that a call used, in every kind of token."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation, LLMResult

from agent_rate_limiter import Usage
from agent_rate_limiter.testing.simulated import SimulatedProvider
from agent_rate_limiter_adapters.langchain.usage import (
    ChatMeter,
    counted_elsewhere,
    total_usage,
    usage_of_result,
    usage_of_run,
)
from tests.adapters.langchain.calls import PROMPT
from tests.adapters.langchain.models import MODEL, model_at

TOKENS: Any = {"output_tokens": 40, "cached_tokens": 3, "cache_write_tokens": 1, "reasoning_tokens": 7}


@pytest.mark.parametrize(("kind", "reasoning"), [("openai", 7), ("anthropic", 0)])  # Anthropic does not tell it apart
def test_every_kind_of_token_that_a_provider_states(kind: str, reasoning: int) -> None:
    with SimulatedProvider({MODEL: TOKENS}) as provider:
        options = {"stream_usage": True} if kind == "openai" else {}
        model = model_at(kind, provider, **options)
        message = model.invoke(PROMPT)
        meter = ChatMeter()
        for chunk in model._stream([HumanMessage(PROMPT)]):
            meter.feed(chunk)
        report = provider.report()
    whole = usage_of_result(ChatResult(generations=[ChatGeneration(message=message)]))
    assert whole is not None
    assert whole == meter.usage(whole=True) == meter.usage(whole=False)
    assert (whole.input_tokens * 2, whole.output_tokens * 2) == (report.input_tokens, report.output_tokens)
    assert (whole.cached_input_tokens, whole.reasoning_tokens) == (3, reasoning)
    metadata: Any = message.usage_metadata
    stated = metadata["input_token_details"]
    assert whole.cache_write_tokens == stated.get("cache_creation", 0)  # langchain-openai tells it since 1.7
    assert whole.cache_write_tokens == 1 or "cache_creation" not in stated


def chunk(text: str, **fields: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content=text, **fields))


def test_a_stream_that_breaks_off_has_used_what_was_seen() -> None:
    meter = ChatMeter()
    assert meter.usage(whole=False) is None
    meter.feed(chunk("they wait for their turn"))
    seen = meter.usage(whole=False)
    assert seen is not None
    assert (seen.exact, seen.input_tokens) == (False, 0)
    assert seen.output_tokens >= 4
    meter.feed(chunk("", usage_metadata={"input_tokens": 9, "output_tokens": 1, "total_tokens": 10}))  # as Anthropic's
    begun = meter.usage(whole=False)
    assert begun == Usage(1, 9, seen.output_tokens, exact=False)
    meter.feed(
        chunk(
            "",
            response_metadata={"stop_reason": "end_turn"},
            usage_metadata={"input_tokens": 0, "output_tokens": 6, "total_tokens": 6},
        )
    )
    assert meter.final
    assert meter.usage(whole=False) == Usage(1, 9, 7)


def test_arguments_of_tools_are_output_too() -> None:
    meter = ChatMeter()
    meter.feed(chunk("", tool_call_chunks=[{"name": "f", "args": '{"a": 1234}', "id": "1", "index": 0}]))
    seen = meter.usage(whole=False)
    assert seen is not None
    assert seen.output_tokens > 3


def test_usage_that_only_the_output_states() -> None:
    output = {"token_usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    generation = ChatGeneration(message=AIMessage("x"))
    assert usage_of_result(ChatResult(generations=[generation], llm_output=output)) == Usage(1, 3, 4)
    assert usage_of_run(LLMResult(generations=[[generation]], llm_output=output)) == Usage(1, 3, 4)


def test_where_nothing_is_stated_the_text_is_counted_and_calls_of_tools() -> None:
    calls: list[Any] = [{"name": "multiply", "args": {"a": 7, "b": 8}, "id": "1"}]
    said = [ChatGeneration(message=AIMessage("word " * 20)), ChatGeneration(message=AIMessage("", tool_calls=calls))]
    for usage in (usage_of_result(ChatResult(generations=said)), usage_of_run(LLMResult(generations=[[*said]]))):
        assert usage is not None
        assert (usage.input_tokens, usage.output_tokens, usage.exact) == (0, 28, False)
    completion = usage_of_run(LLMResult(generations=[[Generation(text="word " * 20)]]))
    assert completion is not None
    assert completion.output_tokens == 19
    assert usage_of_result(ChatResult(generations=[ChatGeneration(message=AIMessage(""))])) is None


def test_runs_that_made_no_request_of_their_own() -> None:
    plain = ChatGeneration(message=AIMessage("x"))
    cached: Any = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2, "total_cost": 0}
    repeated = ChatGeneration(message=AIMessage("x").model_copy(update={"usage_metadata": cached}))
    assert not counted_elsewhere(LLMResult(generations=[[plain]]))
    assert counted_elsewhere(LLMResult(generations=[[repeated]]))
    assert counted_elsewhere(LLMResult(generations=[[plain]], llm_output={"token_usage": {}}))


def test_sums() -> None:
    assert total_usage([]) is None
    parts = [Usage(1, 2, 3, reasoning_tokens=1, cost=0.5), Usage(1, 5, 7, cost=0.25, exact=False)]
    assert total_usage(parts) == Usage(2, 7, 10, reasoning_tokens=1, cost=0.75, exact=False)
    assert total_usage([*parts, Usage()]) == Usage(3, 7, 10, reasoning_tokens=1, exact=False)
