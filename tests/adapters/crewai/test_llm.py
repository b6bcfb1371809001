"""One limited LLM: a true LLM of CrewAI, which counts every call by itself."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from crewai import LLM, Agent, BaseLLM
from crewai.flow.flow import Flow, listen, start
from crewai.llms.providers.openai.completion import OpenAICompletion

from agent_rate_limiter import ConfigError, Limit, MultiProviderLimiter, Provider, Resource
from agent_rate_limiter.testing import SimulatedProvider
from agent_rate_limiter_adapters.crewai import RateLimitedLLM
from tests.adapters.crewai.crews import (
    CHEAP,
    MODEL,
    Article,
    booked,
    crew_of,
    llm_at,
    look_up,
    looked_up,
    roomy,
    rows,
    served,
    taken,
)

SCHEMA = {"type": "object", "properties": {"topic": {"type": "string"}}, "required": ["topic"]}
LOCAL = "http://127.0.0.1:9/v1"
TOOLS: Any = [{"type": "function", "function": {"name": "look_up", "description": "Look up.", "parameters": SCHEMA}}]


def run(llm: Any, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end, and close the connections, which belong to this event loop."""

    async def closing() -> Any:
        try:
            return await coroutine
        finally:
            await llm._async_client.close()

    return asyncio.run(closing())


def test_it_is_the_llm_that_it_was(provider: SimulatedProvider) -> None:
    original = llm_at(provider, temperature=0.3, stop=["END"])
    llm = RateLimitedLLM(original, roomy())
    assert isinstance(llm, OpenAICompletion)
    assert isinstance(llm, RateLimitedLLM)
    assert (llm.model, llm.temperature, llm.stop) == (MODEL, 0.3, ["END"])
    assert llm.supports_function_calling()
    assert llm.get_context_window_size() == original.get_context_window_size()
    assert llm.to_config_dict() == {**original.to_config_dict(), "max_retries": 0}
    assert original._client.max_retries == 2
    assert llm._client.max_retries == llm._async_client.max_retries == 0
    assert type(RateLimitedLLM(llm, roomy())) is type(llm)


def test_every_sdk_is_told_not_to_retry(provider: SimulatedProvider) -> None:
    told: Any = RateLimitedLLM(llm_at(provider, client_params={"max_retries": 9}), roomy())
    assert told._client.max_retries == told.client_params["max_retries"] == 0
    litellm = RateLimitedLLM(Custom(model="own", provider="openai", is_litellm=True), roomy())
    assert litellm.additional_params == {"max_retries": 0, "num_retries": 0}


def test_pydantic_may_construct_its_class(provider: SimulatedProvider) -> None:
    assert type(RateLimitedLLM(llm_at(provider), roomy())).model_construct(model="any").model == "any"


def test_settings_assigned_later_count(provider: SimulatedProvider) -> None:
    limiter = roomy()
    llm = limiter.wrap(llm_at(provider))
    llm.model, llm.max_tokens, llm.stop = CHEAP, 7, "END"
    llm.call("Hello")
    assert rows(limiter, "model")[0] == {**rows(limiter, "model")[0], "model": CHEAP, "output_tokens": 7}
    assert llm.stop_sequences == ["END"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda llm: llm.call("Hello"),
        lambda llm: llm.call([{"role": "user", "content": "Hello"}]),
        lambda llm: run(llm, llm.acall("Hello")),
        lambda llm: llm.call("Hello", response_model=Article).title,
        lambda llm: llm.call("Hello", tools=TOOLS, available_functions={"look_up": lambda topic: topic}),
        lambda llm: "".join(frame.content or "" for frame in llm.stream_events("Hello") if frame.type == "llm"),
    ],
    ids=["text", "messages", "async", "structured", "tool", "stream"],
)
@pytest.mark.parametrize("options", [{}, {"stream": True}, {"api": "responses"}], ids=["chat", "streamed", "responses"])
def test_a_direct_call_is_settled_with_what_it_used(
    ask: Callable[[Any], str], options: dict[str, Any], provider: SimulatedProvider
) -> None:
    limiter = roomy()
    llm = RateLimitedLLM(llm_at(provider, **options), limiter)
    ask(llm)
    usage = llm.get_token_usage_summary()
    assert (usage.successful_requests, usage.prompt_tokens, usage.completion_tokens) == served(provider)
    assert served(provider) == booked(limiter)
    assert taken(limiter) == (1, sum(served(provider)[1:]), 0)


def test_parallel_calls_are_settled_each_with_its_own(provider: SimulatedProvider) -> None:
    limiter = roomy()
    llm = RateLimitedLLM(llm_at(provider), limiter)
    settled: list[tuple[str, int]] = []

    def ask(number: int) -> None:
        with limiter.scope(call=number):
            llm.call("x" * 4 * number)

    async def ask_all() -> None:
        await asyncio.gather(*(asyncio.to_thread(ask, number) for number in range(101, 121)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(1, 41)))
    asyncio.run(ask_all())
    settled = [(row["call"], row["input_tokens"]) for row in rows(limiter, "call")]
    assert sorted(settled) == sorted((str(number), number) for number in (*range(1, 41), *range(101, 121)))
    assert llm.get_token_usage_summary().total_tokens == sum(served(provider)[1:])


def test_parallel_coroutines_are_settled_each_with_its_own(provider: SimulatedProvider) -> None:
    limiter = roomy()
    llm = RateLimitedLLM(llm_at(provider), limiter)

    async def ask(number: int) -> None:
        with limiter.scope(call=number):
            await llm.acall("x" * 4 * number)

    async def ask_all() -> None:
        await asyncio.gather(*map(ask, range(1, 31)))

    run(llm, ask_all())
    assert all(row["input_tokens"] == int(row["call"]) for row in rows(limiter, "call"))
    assert booked(limiter) == served(provider)


def test_what_a_tool_asks_inside_a_call_is_a_call_of_its_own(provider: SimulatedProvider) -> None:
    limiter = roomy()
    outer, inner = (limiter.wrap(llm_at(provider)) for _ in range(2))
    plain = llm_at(provider)

    def ask_both(topic: str) -> str:
        plain.call("Not ours")
        return str(inner.call(topic * 100))

    outer.call("Hello", tools=TOOLS, available_functions={"look_up": ask_both})
    assert booked(limiter)[0] == 2
    assert served(provider)[0] == 3
    assert inner.get_token_usage_summary().prompt_tokens == 100
    assert taken(limiter)[1] == sum(booked(limiter)[1:])


def test_a_call_that_somebody_reserved_is_counted_once(provider: SimulatedProvider) -> None:
    limiter = roomy()
    llm = limiter.wrap(llm_at(provider))
    with limiter.reserve(f"openai:{MODEL}", max_output_tokens=500) as call:
        llm.call("Hello")
        llm.call("Hello again")
    assert call.usage is not None
    assert booked(limiter) == served(provider)
    assert served(provider)[0] == 2


def test_copies_count_for_themselves_under_the_same_limits(provider: SimulatedProvider) -> None:
    limiter = roomy()
    llm = RateLimitedLLM(llm_at(provider, stop=["END"]), limiter)
    llm.call("Hello")
    copies = [copy.copy(llm), copy.deepcopy(llm), llm.model_copy(), llm.model_copy(update={"temperature": 0.1})]
    for twin in copies:
        assert twin.get_token_usage_summary().total_tokens == 0
        assert twin.call("Hello")
        assert twin.get_token_usage_summary().successful_requests == 1
    copies[1].stop.append("STOP")
    assert llm.stop == ["END"]
    assert booked(limiter) == served(provider)
    assert served(provider)[0] == 5


def test_a_flow_and_an_agent_alone(provider: SimulatedProvider) -> None:
    limiter = roomy()
    llm = limiter.wrap(llm_at(provider))
    looked_up.clear()

    class Essay(Flow[dict[str, Any]]):
        @start()
        def first(self) -> str:
            return str(llm.call("Begin"))

        @listen(first)
        async def second(self, text: str) -> str:
            try:
                return str(await llm.acall(text))
            finally:
                await llm._async_client.close()

    agent = Agent(role="Solo", goal="Know", backstory="Alone.", llm=llm_at(provider), tools=[look_up])
    assert Essay(suppress_flow_events=True).kickoff()
    solo = limiter.wrap(agent)
    output: Any = solo.kickoff("What about cats?", response_format=Article)
    assert isinstance(output.pydantic, Article)
    assert booked(limiter) == served(provider)
    assert looked_up == ["cats"]
    assert {row["agent"]: row["requests"] for row in rows(limiter, "agent")} == {"": 2, "Solo": 3}


class Custom(BaseLLM):
    """A user's own LLM, which tells nobody what it used."""

    def call(self, messages: Any, tools: Any = None, volume: int = 1, **options: Any) -> str:  # type: ignore[override]
        return f"{messages} {volume} {options}"


def test_of_an_llm_of_ones_own_the_text_is_counted_and_nothing_is_refunded() -> None:
    limiter = roomy()
    llm: Any = limiter.wrap(Custom(model="own", provider="openai", max_tokens=50))
    assert llm.call("Hello", volume=11, mood="calm") == "Hello 11 {'mood': 'calm'}"
    assert booked(limiter) == (1, 2, 9)
    assert taken(limiter) == (1, 52, 0)
    with pytest.raises(NotImplementedError):
        asyncio.run(llm.acall("Hello"))
    with pytest.raises(TypeError, match="messages"):
        llm.call()
    assert booked(limiter) == (1, 2, 9)


def test_an_answer_without_bounds_is_counted_too() -> None:
    limiter = roomy()
    limiter.wrap(Custom(model="own", provider="openai")).call("Hello " * 100)
    requests, sent, received = booked(limiter)
    assert (requests, received > 100) == (1, True)
    assert taken(limiter) == (1, sent + received, 0)


def test_a_twin_is_not_pickled(provider: SimulatedProvider) -> None:
    with pytest.raises(ConfigError, match="limited OpenAICompletion cannot be pickled: limit the original where"):
        pickle.dumps(roomy().wrap(llm_at(provider)))


class Talkative(BaseLLM):
    """A user's own LLM, which makes two requests to answer one call, and tells of both."""

    def call(self, messages: Any, tools: Any = None) -> str:  # type: ignore[override]
        self._track_token_usage_internal({"prompt_tokens": 5, "completion_tokens": 6})
        self._track_token_usage_internal({"inputTokens": 7, "outputTokens": 8})  # as Bedrock says it
        return "Done."


def test_each_request_of_a_call_is_charged() -> None:
    limiter = roomy()
    limiter.wrap(Talkative(model="own", provider="openai")).call("Hello")
    assert booked(limiter) == (2, 12, 14)
    assert taken(limiter) == (2, 26, 0)


def test_what_is_no_llm_is_refused(provider: SimulatedProvider) -> None:
    limiter = MultiProviderLimiter([Provider("anthropic", {"claude-opus-4": {"rpm": 5}})])
    with pytest.raises(ConfigError, match=r"llm is a builtins\.int: give an LLM of CrewAI"):
        RateLimitedLLM(3, limiter)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"kind 'openai'.*anthropic"):
        limiter.wrap(llm_at(provider))
    with pytest.raises(ConfigError, match="no such provider"):
        RateLimitedLLM("gpt-4o", limiter, provider="mistral")
    with pytest.raises(ConfigError, match="limiter is None: give a RateLimiter"):
        RateLimitedLLM("gpt-4o", None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="timeout is -1"):
        RateLimitedLLM("gpt-4o", roomy(), timeout=-1)
    with pytest.raises(ConfigError, match="give a Crew, an Agent or an LLM"):
        roomy().wrap(crew_of(provider).tasks[0])


@pytest.mark.parametrize(
    ("providers", "options", "target"),
    [
        ({"openai": {}}, {}, f"openai:{MODEL}"),
        ({"mine": {"kind": "openai"}}, {}, f"mine:{MODEL}"),
        ({"openai": {}, "local": {"base_url": LOCAL}}, {}, f"openai:{MODEL}"),
        ({"openai": {}, "local": {"base_url": LOCAL}}, {"base_url": LOCAL}, f"local:{MODEL}"),
        ({"openai": {}, "groq": {}}, {"base_url": "https://api.groq.com/openai/v1"}, f"groq:{MODEL}"),
        ({"anthropic": {}}, {"model": "anthropic/claude-opus-4"}, "anthropic:claude-opus-4"),
        ({"ollama": {}}, {"model": "ollama/llama3"}, "ollama:llama3"),
    ],
)
def test_where_calls_go(providers: dict[str, Any], options: dict[str, Any], target: str) -> None:
    limits = [Limit(Resource.REQUESTS, 9)]
    limiter = MultiProviderLimiter([Provider(name, {"*": {"limits": limits}}, **o) for name, o in providers.items()])
    llm = RateLimitedLLM(LLM(**{"model": MODEL, **options}), limiter)
    assert str(llm._terms.target(llm)) == target


def test_anthropics_own_llm(provider: SimulatedProvider) -> None:
    limiter = MultiProviderLimiter([Provider("anthropic", {"*": {"rpm": 100, "cost_per_1k": 0.01}})])
    original = LLM(model="anthropic/claude-opus-4", base_url=provider.anthropic_url, max_tokens=100)
    llm: Any = limiter.wrap(original)
    assert llm._client.max_retries == 0
    llm.call("Hello")
    llm.call("Hello", tools=TOOLS, available_functions={"look_up": lambda topic: topic})
    run(llm, llm.acall("Hello"))
    assert booked(limiter) == served(provider)
    assert served(provider)[0] == 3


@pytest.mark.parametrize("ask", ["call", "acall"])
def test_limits_that_nobody_configured_are_learned_from_headers(ask: str) -> None:
    with SimulatedProvider({MODEL: {"rpm": 70, "tpm": 9_000}}) as provider:
        limiter = MultiProviderLimiter()
        original = llm_at(provider)
        llm: Any = RateLimitedLLM(RateLimitedLLM(original, limiter), limiter)
        original.call("Nobody listens")
        assert not limiter.snapshot().limits
        if ask == "call":
            llm.call("Hello")
        else:
            run(llm, llm.acall("Hello"))
        learned = {(limit.resource, limit.amount) for limit in limiter.snapshot().limits}
        assert {("requests", 70), ("tokens", 9_000)} <= learned
    assert len(original._client._client.event_hooks["response"]) == 1


def test_a_lowered_limit_is_noticed_without_a_refusal() -> None:
    with SimulatedProvider({MODEL: {"rpm": 600}}) as provider:
        limiter = MultiProviderLimiter([Provider("openai", {MODEL: {"rpm": 600}})])
        llm = limiter.wrap(llm_at(provider))
        llm.call("Hello")
        provider.set_limits(MODEL, rpm=60)
        llm.call("Hello")
        (status,) = [limit for limit in limiter.snapshot().limits if limit.resource == "requests"]
    assert status.available <= 60
