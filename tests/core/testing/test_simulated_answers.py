"""The same requests get the same answers, of as many tokens as the rule and the options say."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agent_rate_limiter.testing.simulated import (
    Call,
    SimulatedProvider,
    count_tokens,
)
from agent_rate_limiter.testing.simulated.tokens import Dice, example
from tests.core.testing.simulated import post, text


def test_the_same_requests_get_the_same_answers_whatever_the_timing() -> None:
    def run(workers: int, seed: int) -> dict[str, list[str]]:
        questions = [f"question {number % 5}" for number in range(20)]
        with (
            SimulatedProvider(seed=seed, latency=(0, 0.01), rpm=1_000) as provider,
            ThreadPoolExecutor(workers) as pool,
        ):
            answers = list(pool.map(lambda question: text(post(provider, question)), questions))
        return {
            question: sorted(answer for asked, answer in zip(questions, answers, strict=True) if asked == question)
            for question in questions
        }

    first = run(1, seed=3)
    assert run(8, seed=3) == first
    assert run(1, seed=4) != first
    assert all(len(set(answers)) == 4 for answers in first.values())  # asked again, it says something else


def test_a_refused_attempt_does_not_change_the_answer() -> None:
    with SimulatedProvider(seed=1) as provider:
        plain = text(post(provider))
        provider.reset()
        provider.inject("slow_down", times=3)
        assert [post(provider).status_code for _ in range(3)] == [503] * 3
        assert text(post(provider)) == plain


def test_answers_may_be_drawn_computed_or_scripted() -> None:
    def half(call: Call) -> int:
        return call.input_tokens // 2

    def said(call: Call) -> str:
        return f"You sent {call.input_tokens} tokens to {call.model}."

    with SimulatedProvider(
        {"drawn": {"output_tokens": (5, 9)}, "half": {"output_tokens": half}, "said": {"reply": said}}
    ) as provider:
        lengths = {count_tokens(text(post(provider, f"question {number}", model="drawn"))) for number in range(60)}
        assert lengths == {5, 6, 7, 8, 9}
        assert count_tokens(text(post(provider, "x" * 80, model="half"))) == 10
        assert text(post(provider, "x" * 80, model="said")) == "You sent 20 tokens to said."
        assert provider.report()["said"].output_tokens == count_tokens("You sent 20 tokens to said.")


@pytest.mark.parametrize(
    ("messages", "more", "tokens"),
    [
        ([{"role": "user", "content": "x" * 9}], {}, 3),
        ([{"role": "system", "content": "abcd"}, {"role": "user", "content": "abcd"}], {}, 2),
        ([{"role": "user", "content": [{"type": "text", "text": "abcdefgh"}]}], {}, 2),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:" + "x" * 99_999}}]}], {}, 256),
        ([{"role": "tool", "tool_call_id": "call_123456789", "content": "abcd"}], {}, 1),
        ([{"role": "user", "content": "abcd"}], {"tools": [{"a": "1234"}]}, 5),  # + [{"a":"1234"}]
    ],
)
def test_tokens_are_a_quarter_of_the_characters(messages: list[Any], more: dict[str, Any], tokens: int) -> None:
    with SimulatedProvider(output_tokens=1) as provider:
        usage = post(provider, messages=messages, **more).json()["usage"]
    assert usage["prompt_tokens"] == tokens


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "object", "properties": {"a": {"type": "integer", "minimum": 7}}}, {"a": 7}),
        ({"type": "OBJECT", "properties": {"a": {"type": "NUMBER"}}}, {"a": 1}),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 2}}},
            ["x", "x"],
        ),
        ({"anyOf": [{"const": 3}, {"type": "null"}]}, 3),
        ({"type": ["null", "string"]}, None),
        ({"type": "boolean"}, True),
    ],
)
def test_a_schema_gets_the_smallest_value_that_fits(schema: dict[str, Any], value: object) -> None:
    assert example(schema, Dice(0)) == value


def test_a_schemas_string_is_as_long_as_it_must_be() -> None:
    made = example({"type": "string", "minLength": 30}, Dice(0))
    assert isinstance(made, str)
    assert 30 <= len(made) < 34
