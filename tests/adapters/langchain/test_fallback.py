"""Fallbacks: another model of the same provider, and other providers, until the first chunk."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from agent_rate_limiter import AllTargetsFailed, ConfigError, MultiProviderLimiter, Provider, RetryStrategy
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from agent_rate_limiter_adapters.langchain import FallbackChatModel, rate_limited
from tests.adapters.langchain.calls import call
from tests.adapters.langchain.models import MODEL, OBLIGING, anthropic_at, limiter_of, openai_at
from tests.adapters.langchain.scripted import Answer, multiply

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestWarning"),  # the module's mark, on tests that are not async
]


def both(**first: Any) -> MultiProviderLimiter:
    return MultiProviderLimiter(
        [
            Provider("openai", {MODEL: {"rpm": 1_000, **first}, OBLIGING: {"rpm": 1_000}}),
            Provider("anthropic", {MODEL: {"rpm": 1_000}}),
        ],
        retry=RetryStrategy(max_attempts=1),
    )


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
async def test_another_model_of_the_same_provider_takes_over(provider: SimulatedProvider, way: str) -> None:
    limiter = both(fallbacks=[f"openai:{OBLIGING}"])
    provider.inject(Fault("server_error", model=MODEL), times=2)
    await call(way, rate_limited(openai_at(provider), limiter))
    await call(way, rate_limited(openai_at(provider), both(), fallbacks=[f"openai:{OBLIGING}"]))
    assert provider.report()[OBLIGING].completed == 2


def test_a_fallback_that_the_model_cannot_call(provider: SimulatedProvider) -> None:
    with pytest.raises(ConfigError, match="this model cannot call it; use FallbackChatModel"):
        rate_limited(openai_at(provider), both(), fallbacks=[f"anthropic:{MODEL}"])


@pytest.mark.parametrize(
    ("way", "trouble"),
    [
        *((way, "server_error") for way in ("invoke", "ainvoke", "stream", "astream", "abatch", "astream_events v2")),
        ("stream", "insufficient_quota"),
        ("ainvoke", "insufficient_quota"),
        ("ainvoke", "full"),
    ],
)
async def test_another_provider_takes_over(provider: SimulatedProvider, way: str, trouble: str) -> None:
    limiter = both(concurrency=1)
    held = limiter.acquire(f"openai:{MODEL}") if trouble == "full" else None
    if held is None:
        provider.inject(Fault(trouble, api="chat"), times=99)
    model = FallbackChatModel([openai_at(provider), rate_limited(anthropic_at(provider), limiter)], limiter)
    made = await call(way, model)
    assert sum(record.api == "messages" for record in provider.requests) == made
    if held is not None:
        held.cancel()
    assert limiter.snapshot().in_flight == 0


async def test_tools_and_structured_output_fall_back_too(provider: SimulatedProvider) -> None:
    limiter = MultiProviderLimiter(
        [Provider(name, {OBLIGING: {"rpm": 100}}) for name in ("openai", "anthropic")],
        retry=RetryStrategy(max_attempts=1),
    )
    model = FallbackChatModel(
        [openai_at(provider, model=OBLIGING), anthropic_at(provider, model=OBLIGING)], limiter, timeout=5
    )
    provider.inject(Fault("server_error", api="chat"), times=99)
    message: Any = model.bind_tools([multiply]).invoke("Multiply 3")
    assert message.tool_calls[0]["name"] == "multiply"
    assert isinstance(await model.with_structured_output(Answer).ainvoke("3, 'three'"), Answer)
    assert model._llm_type == "fallback-chat-model"
    assert model._get_ls_params()["ls_model_name"] == OBLIGING


async def test_when_none_can_serve_it(provider: SimulatedProvider) -> None:
    limiter = both()
    model = FallbackChatModel([openai_at(provider), anthropic_at(provider)], limiter)
    provider.inject(Fault("server_error"), times=99)
    for way in ("invoke", "ainvoke", "stream", "astream"):
        with pytest.raises(AllTargetsFailed, match=rf"openai:{MODEL}.*anthropic:{MODEL}"):
            await call(way, model)
    assert limiter.snapshot().in_flight == 0


async def test_models_that_do_not_stream_bring_all_at_once(provider: SimulatedProvider) -> None:
    class Whole(BaseChatModel):
        model: str = MODEL

        @property
        def _llm_type(self) -> str:
            return "whole"

        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
            return ChatResult(generations=[ChatGeneration(message=AIMessage("all of it"))])

    limiter = MultiProviderLimiter([Provider("whole", {MODEL: {"rpm": 100}})])
    model = FallbackChatModel([Whole()], limiter)
    assert [chunk.text for chunk in model.stream("x") if chunk.text] == ["all of it"]
    assert [chunk.text async for chunk in model.astream("x") if chunk.text] == ["all of it"]


def test_fallback_models_that_make_no_sense(provider: SimulatedProvider) -> None:
    with pytest.raises(ConfigError, match=r"models is \[\]: give at least one"):
        FallbackChatModel([], limiter_of())
    with pytest.raises(ConfigError, match="models hold two that go to openai:model-1"):
        FallbackChatModel([openai_at(provider), openai_at(provider)], limiter_of())
