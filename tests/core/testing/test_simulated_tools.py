"""Models that call tools, through every provider's own SDK: whole and streamed alike, every token counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from anthropic import Anthropic
from google import genai
from google.genai import types
from openai import OpenAI

from agent_rate_limiter.testing.simulated import Call, SimulatedProvider, ToolCall, count_tokens

CALLS = [ToolCall("weather", {"city": "Paris", "days": [1, 2, 3]}), ToolCall("time", {})]
SAID = [(tool.name, dict(tool.arguments)) for tool in CALLS]
TOKENS = count_tokens("weather") + count_tokens('{"city":"Paris","days":[1,2,3]}') + count_tokens("time") + 1
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}
QUESTION: Any = [{"role": "user", "content": "Weather and time in Paris?"}]
Outcome = tuple[list[tuple[str, Any]], str, int]


def reply(call: Call) -> list[ToolCall] | str:
    return "Answered." if "tool" in str(call.body.get("messages", ""))[200:] else CALLS


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatedProvider]:
    with SimulatedProvider(reply=reply) as running:
        yield running


def chat(provider: SimulatedProvider, *, stream: bool) -> Outcome:
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
    with OpenAI(base_url=provider.openai_url, api_key="any") as client:
        if stream:
            options: Any = {"include_usage": True}
            with client.chat.completions.stream(
                model="m", messages=QUESTION, tools=tools, stream_options=options
            ) as events:
                done: Any = events.get_final_completion()
        else:
            done = client.chat.completions.create(model="m", messages=QUESTION, tools=tools)
    choice = done.choices[0]
    assert not choice.message.content
    assert len({call.id for call in choice.message.tool_calls}) == len(CALLS)
    said = [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls]
    return said, choice.finish_reason, done.usage.completion_tokens


def responses(provider: SimulatedProvider, *, stream: bool) -> Outcome:
    tools: Any = [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}]
    with OpenAI(base_url=provider.openai_url, api_key="any") as client:
        if stream:
            with client.responses.stream(model="m", input="Paris?", tools=tools) as events:
                done: Any = events.get_final_response()
        else:
            done = client.responses.create(model="m", input="Paris?", tools=tools)
    said = [(item.name, json.loads(item.arguments)) for item in done.output if item.type == "function_call"]
    return said, done.status, done.usage.output_tokens


def messages(provider: SimulatedProvider, *, stream: bool) -> Outcome:
    tools: Any = [{"name": "weather", "input_schema": SCHEMA}]
    given: dict[str, Any] = {"model": "m", "max_tokens": 99, "messages": QUESTION, "tools": tools}
    with Anthropic(base_url=provider.anthropic_url, api_key="any") as client:
        if stream:
            with client.messages.stream(**given) as events:
                done: Any = events.get_final_message()
        else:
            done = client.messages.create(**given)
    return [(block.name, block.input) for block in done.content], done.stop_reason, done.usage.output_tokens


def generate(provider: SimulatedProvider, *, stream: bool) -> Outcome:
    client = genai.Client(api_key="any", http_options=types.HttpOptions(base_url=provider.gemini_url))
    given: dict[str, Any] = {"model": "m", "contents": "Paris?"}
    ask = client.models
    answers = list(ask.generate_content_stream(**given)) if stream else [ask.generate_content(**given)]
    client.close()
    calls = [call for answer in answers for call in answer.function_calls or ()]
    last: Any = answers[-1]
    return (
        [(str(call.name), call.args) for call in calls],
        last.candidates[0].finish_reason.value,
        last.usage_metadata.candidates_token_count,
    )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("ask", "reason"),
    [(chat, "tool_calls"), (responses, "completed"), (messages, "tool_use"), (generate, "STOP")],
)
def test_tools_are_called(
    ask: Callable[..., Outcome], reason: str, provider: SimulatedProvider, *, stream: bool
) -> None:
    provider.reset()
    assert ask(provider, stream=stream) == (SAID, reason, TOKENS)
    assert provider.report().output_tokens == TOKENS


def test_a_tools_answer_goes_back_and_is_read(provider: SimulatedProvider) -> None:
    with OpenAI(base_url=provider.openai_url, api_key="any") as client:
        asked = client.chat.completions.create(model="m", messages=QUESTION).choices[0].message
        results: list[Any] = [
            {"role": "tool", "tool_call_id": call.id, "content": "Sunny."} for call in asked.tool_calls or ()
        ]
        messages: Any = [*QUESTION, asked.model_dump(), *results]
        said = client.chat.completions.create(model="m", messages=messages)
    assert said.choices[0].message.content == "Answered."
    assert said.choices[0].finish_reason == "stop"


def test_a_call_that_does_not_fit_into_the_maximum_is_cut_off(provider: SimulatedProvider) -> None:
    with OpenAI(base_url=provider.openai_url, api_key="any") as client:
        cut = client.chat.completions.create(model="m", messages=QUESTION, max_tokens=TOKENS - 1)
    assert cut.choices[0].message.tool_calls is None
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage is not None
    assert cut.usage.completion_tokens == TOKENS - 1
    assert count_tokens(str(cut.choices[0].message.content)) == TOKENS - 1


def test_one_call_needs_no_list() -> None:
    with (
        SimulatedProvider(reply=lambda call: ToolCall("time") if call.schema is None else None) as provider,
        OpenAI(base_url=provider.openai_url, api_key="any") as client,
    ):
        message = client.chat.completions.create(model="m", messages=QUESTION).choices[0].message
    assert [call.function.name for call in message.tool_calls or () if call.type == "function"] == ["time"]


def test_a_script_may_leave_an_answer_open() -> None:
    format_: Any = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}}
    with (
        SimulatedProvider(reply=lambda _: None, output_tokens=9) as provider,
        OpenAI(base_url=provider.openai_url, api_key="any") as client,
    ):
        drawn = client.chat.completions.create(model="m", messages=QUESTION).choices[0].message.content
        shaped = client.chat.completions.create(model="m", messages=QUESTION, response_format=format_)
    assert count_tokens(str(drawn)) == 9
    assert list(json.loads(str(shaped.choices[0].message.content))) == ["city"]
