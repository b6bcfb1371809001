"""What a call is expected to use, and what is read from its response, in LlamaIndex's own shapes."""

from __future__ import annotations

import asyncio
import contextvars
from types import SimpleNamespace
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    ChatResponse,
    CitableBlock,
    CompletionResponse,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

import agent_rate_limiter_adapters.llamaindex as adapter
from agent_rate_limiter import Estimate, Usage
from agent_rate_limiter.providers import dialect
from agent_rate_limiter_adapters.llamaindex.contexts import Within, reading
from agent_rate_limiter_adapters.llamaindex.requests import Meter, chat_estimate, usage_of
from agent_rate_limiter_adapters.llamaindex.targets import kind_of

OPENAI = dialect("openai")
MODEL = SimpleNamespace(max_tokens=200, additional_kwargs={})


def tokens(*blocks: Any, **options: Any) -> int:
    return chat_estimate(OPENAI, MODEL, [ChatMessage(role="user", blocks=list(blocks))], options).input_tokens


def test_every_part_of_a_message_counts() -> None:
    text = "Some twenty words of text, which are enough to see whether they are counted at all, wherever they are."
    plain = tokens(TextBlock(text=text))
    assert plain > 20
    assert tokens(ThinkingBlock(content=text)) == plain
    assert tokens(CitableBlock(title="t", source="s", content=[TextBlock(text=text)])) >= plain
    assert tokens(ToolCallBlock(tool_name="f", tool_kwargs={"text": text})) > plain
    assert tokens(ImageBlock(url="http://localhost/a.png")) > 500
    assert tokens(AudioBlock(audio=b"RIFF")) > 500
    assert tokens(TextBlock(text="a"), tools=[{"type": "function", "function": {"description": text}}]) > plain


def test_a_calls_own_options_go_before_its_models() -> None:
    message = [ChatMessage("Why?")]
    assert chat_estimate(OPENAI, MODEL, message, {}).max_output_tokens == 200
    assert chat_estimate(OPENAI, MODEL, message, {"max_tokens": 50}).max_output_tokens == 50
    own = SimpleNamespace(max_tokens=None, additional_kwargs={"max_completion_tokens": 70})
    assert chat_estimate(OPENAI, own, message, {}).max_output_tokens == 70


@pytest.mark.parametrize(
    "response",
    [
        CompletionResponse(text="x", raw={"usage": {"prompt_tokens": 5, "completion_tokens": 7}}),
        CompletionResponse(text="x", raw={"usage": {"input_tokens": 5, "output_tokens": 7}}),
        CompletionResponse(text="x", additional_kwargs={"usage": {"input_tokens": 5, "output_tokens": 7}}),
        ChatResponse(message=ChatMessage("x"), additional_kwargs={"prompt_tokens": 5, "completion_tokens": 7}),
    ],
)
def test_usage_is_found_wherever_integrations_put_it(response: Any) -> None:
    assert usage_of(response) == Usage(input_tokens=5, output_tokens=7)
    meter = Meter(OPENAI, Estimate())
    meter.feed(response)
    assert meter.usage(whole=True) == Usage(input_tokens=5, output_tokens=7)


def test_a_meter_of_a_stream_that_tells_nothing_counts_the_text() -> None:
    meter = Meter(OPENAI, Estimate(input_tokens=9))
    assert meter.usage(whole=False) == Usage(input_tokens=9, exact=False)
    for end in range(1, 5):
        meter.feed(ChatResponse(message=ChatMessage("word " * end), delta="word "))
    told = meter.usage(whole=True)
    assert (told.input_tokens, told.exact, meter.final) == (9, False, False)
    assert 3 <= told.output_tokens <= 6


def test_a_meter_believes_partial_counts_only_at_the_end() -> None:
    meter = Meter(OPENAI, Estimate())
    meter.feed(CompletionResponse(text="x", additional_kwargs={"prompt_tokens": 5, "completion_tokens": 1}))
    assert meter.usage(whole=False) == Usage(input_tokens=5, output_tokens=1, exact=False)
    end = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}
    meter.feed(CompletionResponse(text="x", raw={"choices": [{"delta": {}, "finish_reason": "stop"}]}))
    meter.feed(CompletionResponse(text="x", raw=end))
    assert meter.final
    assert meter.usage(whole=False) == Usage(input_tokens=5, output_tokens=7)


def test_a_models_kind_is_that_of_the_integration_it_comes_from() -> None:
    from llama_index.llms.openai import OpenAI

    class Mine(OpenAI):
        """A user's."""

    assert kind_of(Mine(api_key="sk-test")) == "openai"
    like: Any = type("Like", (), {"__module__": "llama_index.llms.somebody.base"})
    assert kind_of(like()) == "somebody"
    assert kind_of(object()) == "generic"


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outer")


def test_what_runs_in_a_context_leaves_the_readers_alone() -> None:
    async def inner() -> str:
        variable.set("inner")
        await asyncio.sleep(0)
        return variable.get()

    async def outer() -> None:
        assert await Within(contextvars.copy_context(), inner()) == "inner"
        assert variable.get() == "outer"
        waiting = asyncio.ensure_future(Within(contextvars.copy_context(), asyncio.sleep(60)))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(outer())
    assert list(reading(contextvars.copy_context(), iter([1, 2]))) == [1, 2]  # no generator, so nothing to close


def test_the_module_has_what_it_says() -> None:
    assert all(getattr(adapter, name) for name in adapter.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(adapter, "nothing")  # noqa: B009 - type checkers know that it is not there
