"""What thirty responses cost, to the nano-dollar, against sums done by hand.

The bodies have the shapes that the providers' references document, read by the providers' own SDKs. Prices are those
of the providers' pages as of 2026-10-14 (developers.openai.com/api/docs/pricing, ai.google.dev/gemini-api/docs/pricing,
platform.claude.com/docs/en/about-claude/pricing), when the table's maintainers checked them. Dollars per million
tokens are micro-dollars per token, so every sum below is in micro-dollars.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from agent_rate_limiter import MultiProviderLimiter, Usage
from agent_rate_limiter.providers import read_usage
from agent_rate_limiter.testing import ManualClock

NOVEMBER = 1_795_176_000_000  # 2026-11-20 12:00 UTC


def chat(model: str, sent: int, produced: int, *, service: str = "default", **kinds: int) -> Any:
    """OpenAI's chat completions."""
    from openai.types.chat import ChatCompletion

    details = {"cached_tokens": kinds.get("cached", 0), "audio_tokens": kinds.get("audio_in", 0)}
    made = {"reasoning_tokens": kinds.get("reasoning", 0), "audio_tokens": kinds.get("audio_out", 0)}
    usage = {
        "prompt_tokens": sent,
        "completion_tokens": produced,
        "total_tokens": sent + produced,
        "prompt_tokens_details": details,
        "completion_tokens_details": made,
    }
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi."}}
    return ChatCompletion.model_validate(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": model,
            "choices": [choice],
            "usage": usage,
            "service_tier": service,
        }
    )


def responses(model: str, sent: int, produced: int, *, service: str = "default", **kinds: int) -> Any:
    """OpenAI's Responses."""
    from openai.types.responses import Response

    usage = {
        "input_tokens": sent,
        "input_tokens_details": {"cached_tokens": kinds.get("cached", 0), "cache_write_tokens": kinds.get("write", 0)},
        "output_tokens": produced,
        "output_tokens_details": {"reasoning_tokens": kinds.get("reasoning", 0)},
        "total_tokens": sent + produced,
    }
    return Response.model_validate(
        {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "model": model,
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": usage,
            "service_tier": service,
        }
    )


def embedding(model: str, sent: int) -> Any:
    """OpenAI's embeddings."""
    from openai.types import CreateEmbeddingResponse

    usage = {"prompt_tokens": sent, "total_tokens": sent}
    return CreateEmbeddingResponse.model_validate({"object": "list", "data": [], "model": model, "usage": usage})


def claude(model: str, sent: int, produced: int, *, service: str = "standard", **cache: int) -> Any:
    """Anthropic's messages: what was read from the cache and written to it comes beside the input."""
    from anthropic.types import Message

    usage = {
        "input_tokens": sent,
        "output_tokens": produced,
        "cache_read_input_tokens": cache.get("read", 0),
        "cache_creation_input_tokens": cache.get("write_5m", 0) + cache.get("write_1h", 0),
        "cache_creation": {
            "ephemeral_5m_input_tokens": cache.get("write_5m", 0),
            "ephemeral_1h_input_tokens": cache.get("write_1h", 0),
        },
        "service_tier": service,
    }
    return Message.model_validate(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [{"type": "text", "text": "Hi."}],
            "stop_reason": "end_turn",
            "usage": usage,
        }
    )


def gemini(sent: int, produced: int, **kinds: Any) -> Any:
    """Gemini's answers: thoughts come beside the candidates, tool results beside the prompt."""
    from google.genai.types import GenerateContentResponse

    counts = {
        "promptTokenCount": sent,
        "candidatesTokenCount": produced,
        "totalTokenCount": sent + produced + kinds.get("thoughts", 0) + kinds.get("tools", 0),
        "thoughtsTokenCount": kinds.get("thoughts"),
        "cachedContentTokenCount": kinds.get("cached"),
        "toolUsePromptTokenCount": kinds.get("tools"),
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": kinds.get("audio_in", 0)}],
    }
    return GenerateContentResponse.model_validate({"candidates": [], "usageMetadata": counts})


def batched(response: Any) -> Usage:
    """What a batch's output file holds; OpenAI's and Google's do not say that it was a batch, so the caller does."""
    usage = read_usage(response)
    assert usage is not None
    return replace(usage, service_tier="batch")


CASES: list[tuple[str, Any, str]] = [
    # -- OpenAI, chat completions ---------------------------------------------------------------------------------
    # 1,117 x 2.5 + 46 x 10 = 2,792.5 + 460
    ("openai:gpt-4o", chat("gpt-4o-2024-08-06", 1_117, 46), "3252.5"),
    # (2,006 - 1,920) x 2.5 + 1,920 x 1.25 + 300 x 10 = 215 + 2,400 + 3,000
    ("openai:gpt-4o-2024-08-06", chat("gpt-4o-2024-08-06", 2_006, 300, cached=1_920), "5615"),
    # 19 x 0.15 + 10 x 0.6 = 2.85 + 6
    ("openai:gpt-4o-mini", chat("gpt-4o-mini", 19, 10), "8.85"),
    # 8 x 30 + 500 x 60
    ("openai:gpt-4", chat("gpt-4-0613", 8, 500), "30240"),
    # 100,000 x 10 + 4,096 x 30
    ("openai:gpt-4-turbo", chat("gpt-4-turbo", 100_000, 4_096), "1122880"),
    # 75 x 2 + 1,186 x 8, of which 1,024 reasoning, which costs the same
    ("openai:o3", chat("o3-2025-04-16", 75, 1_186, reasoning=1_024), "9638"),
    # (1,000 - 600) x 1.1 + 600 x 0.275 + 200 x 4.4 = 440 + 165 + 880
    ("openai:o4-mini", chat("o4-mini", 1_000, 200, cached=600, reasoning=64), "1485"),
    # batch: half of 2.5 and of 10; (1,000 x 1.25 + 500 x 5)
    ("openai:gpt-4o", batched(chat("gpt-4o", 1_000, 500)), "3750"),
    # priority: 1,000 x 2.5 + 500 x 20 for GPT-5
    ("openai:gpt-5", chat("gpt-5-2025-08-07", 1_000, 500, service="priority"), "12500"),
    # audio: (100 - 80) x 2.5 + 80 x 32 + (200 - 150) x 10 + 150 x 64 = 50 + 2,560 + 500 + 9,600
    ("openai:gpt-audio", chat("gpt-audio", 100, 200, audio_in=80, audio_out=150), "12710"),
    # -- OpenAI, Responses ----------------------------------------------------------------------------------------
    # 328 x 1.25 + 1,360 x 10, most of it reasoning
    ("openai:gpt-5", responses("gpt-5-2025-08-07", 328, 1_360, reasoning=1_216), "14010"),
    # (10,000 - 9,984) x 0.25 + 9,984 x 0.025 + 100 x 2 = 4 + 249.6 + 200
    ("openai:gpt-5-mini", responses("gpt-5-mini", 10_000, 100, cached=9_984), "453.6"),
    # flex: half; (2,000 - 1,024) x 0.625 + 1,024 x 0.0625 + 800 x 5 = 610 + 64 + 4,000
    ("openai:gpt-5", responses("gpt-5", 2_000, 800, service="flex", cached=1_024), "4674"),
    # up to 272,000 tokens: 272,000 x 2.5 + 1,000 x 15
    ("openai:gpt-5.4", responses("gpt-5.4", 272_000, 1_000), "695000"),
    # one more, and all of it is dearer: 272,001 x 5 + 1,000 x 22.5
    ("openai:gpt-5.4", responses("gpt-5.4", 272_001, 1_000), "1382505"),
    # batch beyond it: (300,000 - 100,000) x 2.5 + 100,000 x 0.25 + 1,000 x 11.25 = 500,000 + 25,000 + 11,250
    ("openai:gpt-5.4", batched(responses("gpt-5.4", 300_000, 1_000, cached=100_000)), "536250"),
    # a cache that costs to write: (5,000 - 4,096) x 4 + 4,096 x 5 + 10 x 20 = 3,616 + 20,480 + 200
    ("openai:gpt-5.6", responses("gpt-5.6", 5_000, 10, write=4_096), "24296"),
    # 8 x 0.02
    ("openai:text-embedding-3-small", embedding("text-embedding-3-small", 8), "0.16"),
    # -- Anthropic ------------------------------------------------------------------------------------------------
    # 2,095 x 3 + 503 x 15 = 6,285 + 7,545
    ("anthropic:claude-sonnet-4-5", claude("claude-sonnet-4-5-20250929", 2_095, 503), "13830"),
    # 21 x 15 + 188,086 x 1.5 + 393 x 75 = 315 + 282,129 + 29,475
    ("anthropic:claude-opus-4-1", claude("claude-opus-4-1", 21, 393, read=188_086), "311919"),
    # for five minutes: 21 x 1 + 2,000 x 1.25 + 100 x 5 = 21 + 2,500 + 500
    ("anthropic:claude-haiku-4-5", claude("claude-haiku-4-5", 21, 100, write_5m=2_000), "3021"),
    # for an hour too: 50 x 3 + 456 x 3.75 + 100 x 6 + 1,800 x 0.3 + 503 x 15 = 150 + 1,710 + 600 + 540 + 7,545
    (
        "anthropic:claude-sonnet-4-5",
        claude("claude-sonnet-4-5", 50, 503, read=1_800, write_5m=456, write_1h=100),
        "10545",
    ),
    # batch, cache included: 1,000 x 0.5 + 4,000 x 0.05 + 1,000 x 0.625 + 200 x 2.5 = 500 + 200 + 625 + 500
    (
        "anthropic:claude-haiku-4-5",
        claude("claude-haiku-4-5", 1_000, 200, service="batch", read=4_000, write_5m=1_000),
        "1825",
    ),
    # more than 200,000 sent, those from the cache included: 1,000 x 6 + 200,000 x 0.6 + 10 x 22.5
    ("anthropic:claude-sonnet-4-5", claude("claude-sonnet-4-5", 1_000, 10, read=200_000), "126225"),
    # -- Gemini ---------------------------------------------------------------------------------------------------
    # 264 x 0.3 + (80 + 1,200 thoughts) x 2.5 = 79.2 + 3,200
    ("gemini:gemini-2.5-flash", gemini(264, 80, thoughts=1_200), "3279.2"),
    # (10,000 - 8,000) x 1.25 + 8,000 x 0.125 + 100 x 10 = 2,500 + 1,000 + 1,000
    ("google:gemini-2.5-pro", gemini(10_000, 100, cached=8_000), "4500"),
    # beyond 200,000: 200,001 x 2.5 + (1,000 + 500) x 15 = 500,002.5 + 22,500
    ("gemini:gemini-2.5-pro", gemini(200_001, 1_000, thoughts=500), "522502.5"),
    # audio: (1,320 - 1,280) x 0.3 + 1,280 x 1 + 50 x 2.5 = 12 + 1,280 + 125
    ("gemini:gemini-2.5-flash", gemini(1_320, 50, audio_in=1_280), "1417"),
    # what tools returned is input as well: (100 + 900) x 0.1 + 10 x 0.4
    ("gemini:gemini-2.5-flash-lite", gemini(100, 10, tools=900), "104"),
    # batch: 1,000 x 0.625 + 100 x 5
    ("vertex:gemini-2.5-pro", batched(gemini(1_000, 100)), "1125"),
]


def test_there_are_thirty() -> None:
    assert len(CASES) == 30


@pytest.mark.parametrize(
    ("target", "response", "micro_dollars"), CASES, ids=[f"{number}-{case[0]}" for number, case in enumerate(CASES, 1)]
)
def test_a_response_costs_what_was_computed_by_hand(target: str, response: Any, micro_dollars: str) -> None:
    limiter = MultiProviderLimiter(clock=ManualClock(NOVEMBER))
    call = limiter.acquire(target)
    call.settle(response)
    assert call.cost is not None
    assert Decimal(str(call.cost)) == Decimal(micro_dollars) / 1_000_000


def _as_dict(response: Any) -> Any:
    return response if isinstance(response, Usage) else response.model_dump(mode="json")


def _within(response: Any) -> Any:
    return response if isinstance(response, Usage) else {"raw": response}


@pytest.mark.parametrize("shape", [_as_dict, _within])
def test_dictionaries_and_frameworks_raw_responses_cost_the_same(shape: Callable[[Any], Any]) -> None:
    limiter = MultiProviderLimiter(clock=ManualClock(NOVEMBER))
    for target, response, _ in CASES:
        limiter.acquire(target).settle(shape(response))
    assert limiter.costs.total == pytest.approx(float(sum(Decimal(case[2]) for case in CASES) / 1_000_000))
