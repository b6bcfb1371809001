"""How providers charge `max_tokens` when they admit a call, and what they keep of it (provider docs, November 2026)."""

from __future__ import annotations

import pytest

from agent_rate_limiter import (
    Estimate,
    Limit,
    MultiProviderLimiter,
    Provider,
    RateLimiter,
    Resource,
    Scope,
    Target,
    Usage,
)
from agent_rate_limiter.testing import ManualClock

TPM = 100_000


def used(limiter: MultiProviderLimiter | RateLimiter) -> int:
    (limit,) = limiter.snapshot().limits
    return round(limit.amount - limit.available)


@pytest.mark.parametrize(
    ("kind", "estimate", "taken", "kept"),
    [
        ("openai", Estimate(input_tokens=300, max_output_tokens=1_000), 1_000, 1_000),
        ("openai", Estimate(input_tokens=3_000, max_output_tokens=1_000), 3_000, 3_000),
        ("openai", Estimate(input_tokens=300), 300, 300),
        ("azure", Estimate(input_tokens=300, max_output_tokens=1_000), 1_300, 1_300),
        ("azure-openai", Estimate(input_tokens=300, output_tokens=40, max_output_tokens=1_000), 1_300, 1_300),
        ("bedrock", Estimate(input_tokens=300, max_output_tokens=1_000), 1_300, 350),
        ("mine", Estimate(input_tokens=300, max_output_tokens=1_000), 1_300, 1_300),
    ],
)
def test_what_is_taken_and_what_is_kept(
    manual_clock: ManualClock, kind: str, estimate: Estimate, taken: int, kept: int
) -> None:
    provider = Provider("here", {"model": {"tpm": TPM, "counts": "max_tokens"}}, kind=kind)
    limiter = MultiProviderLimiter([provider], clock=manual_clock)
    call = limiter.acquire("here:model", estimate)
    assert used(limiter) == taken
    call.settle(Usage(1, 300, 50))
    assert used(limiter) == kept


@pytest.mark.parametrize(
    ("model", "rate"),
    [
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", 5),
        ("anthropic.claude-3-7-sonnet-20250219-v1:0", 5),
        ("global.anthropic.claude-opus-4-8", 5),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", 1),
        ("anthropic.claude-3-haiku-20240307-v1:0", 1),
        ("anthropic.claude-v2:1", 1),
        ("anthropic.claude-instant-v1", 1),
        ("amazon.nova-pro-v1:0", 1),
        ("arn:aws:bedrock:us-east-1:1:application-inference-profile/claude", 1),
    ],
)
def test_bedrock_burns_output_of_recent_claudes_faster(manual_clock: ManualClock, model: str, rate: int) -> None:
    """What was read from the cache is free; a limit that counts what is used stays as it is."""
    limits = [Limit(Resource.TOKENS, 1_000_000, "day", scope=Scope(agent="each"))]
    provider = Provider("bedrock", {model: {"tpm": TPM, "counts": "max_tokens"}}, limits=limits)
    limiter = MultiProviderLimiter([provider], clock=manual_clock)
    with limiter.scope(agent="a"):
        call = limiter.acquire(Target("bedrock", model), input_tokens=300, max_output_tokens=1_000)
    call.settle(Usage(1, 300, 500, cached_input_tokens=100, cache_write_tokens=50))
    spent = {limit.amount: round(limit.amount - limit.available) for limit in limiter.snapshot().limits}
    assert spent == {TPM: 200 + 500 * rate, 1_000_000: 800}


@pytest.mark.parametrize(
    ("kind", "counts", "spent"),
    [
        ("anthropic", "actual", {"itpm": 1_200, "otpm": 50, "tpm": 10_050, "each": 10_000}),
        ("Claude", "max_tokens", {"itpm": 1_200, "otpm": 500, "tpm": 10_500, "each": 10_000}),
        ("groq", "actual", {"itpm": 1_200, "otpm": 50, "tpm": 1_250, "each": 10_000}),
        ("openai", "actual", {"itpm": 10_000, "otpm": 50, "tpm": 10_050, "each": 10_000}),
    ],
)
def test_what_was_read_from_a_cache_counts_as_the_provider_counts_it(
    manual_clock: ManualClock, kind: str, counts: str, spent: dict[str, int]
) -> None:
    """An agent's prompts are mostly read from the cache: they would use up its limit ten times as fast."""
    each = Limit(Resource.INPUT_TOKENS, 100_000, "day", scope=Scope(agent="each"), name="each")
    entry = {"itpm": TPM, "otpm": TPM, "tpm": TPM, "counts": counts}
    limiter = MultiProviderLimiter([Provider("here", {"m": entry}, kind=kind, limits=[each])], clock=manual_clock)
    with limiter.scope(agent="a", max_tokens=50_000):
        call = limiter.acquire("here:m", input_tokens=10_000, max_output_tokens=500)
        call.settle(Usage(1, 10_000, 50, cached_input_tokens=8_800, cache_write_tokens=1_000))
        taken = {limit.name: round(limit.amount - limit.available) for limit in limiter.snapshot().limits}
    names = {"itpm": "100,000 input tokens/minute", "otpm": "100,000 output tokens/minute"}
    names |= {"tpm": "100,000 tokens/minute", "each": "each"}
    assert {short: taken[name] for short, name in names.items()} == spent
    assert taken["max_tokens 50,000"] == 10_050  # a guard of the user's own


def test_the_providers_name_tells_where_no_kind_does(manual_clock: ManualClock) -> None:
    limiter = RateLimiter("100K tokens/minute", target="openai:gpt-4", clock=manual_clock)
    limiter.acquire(input_tokens=300, max_output_tokens=1_000)
    assert used(limiter) == 1_300  # it counts what is used
    model = {"gpt-4": {"tpm": TPM, "counts": "max_tokens"}}
    for name, taken in (("openai", 1_000), ("azure", 1_300)):
        limited = MultiProviderLimiter([Provider(name, model)], clock=manual_clock)
        limited.acquire(f"{name}:gpt-4", input_tokens=300, max_output_tokens=1_000)
        assert used(limited) == taken
