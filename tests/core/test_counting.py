"""How providers charge `max_tokens` when they admit a call, and what they keep of it (provider docs, November 2026)."""

from __future__ import annotations

import pytest

from agent_rate_limiter import Estimate, MultiProviderLimiter, Provider, RateLimiter, Usage
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


def test_the_providers_name_tells_where_no_kind_does(manual_clock: ManualClock) -> None:
    limiter = RateLimiter("100K tokens/minute", target="openai:gpt-4", clock=manual_clock)
    limiter.acquire(input_tokens=300, max_output_tokens=1_000)
    assert used(limiter) == 1_300  # it counts what is used
    model = {"gpt-4": {"tpm": TPM, "counts": "max_tokens"}}
    for name, taken in (("openai", 1_000), ("azure", 1_300)):
        limited = MultiProviderLimiter([Provider(name, model)], clock=manual_clock)
        limited.acquire(f"{name}:gpt-4", input_tokens=300, max_output_tokens=1_000)
        assert used(limited) == taken
