"""Limiters that refuse a model's call, one for each error that they raise; for every SDK's tests."""

from __future__ import annotations

from collections.abc import Callable

from agent_rate_limiter import (
    AcquireTimeout,
    BudgetExceeded,
    ConfigError,
    LimiterClosed,
    MultiProviderLimiter,
    Provider,
    RateLimiterError,
    RequestTooLarge,
)
from tests.adapters.support import roomy

Refusals = dict[type[RateLimiterError], Callable[[], MultiProviderLimiter]]


def refusals(provider: str, model: str) -> Refusals:
    """The error → who makes a limiter that raises it."""

    def busy() -> MultiProviderLimiter:
        limiter = roomy(provider, model, concurrency=1)
        limiter.held = limiter.acquire(f"{provider}:{model}")  # type: ignore[attr-defined]
        return limiter

    def closed() -> MultiProviderLimiter:
        limiter = roomy(provider, model)
        limiter.close()
        return limiter

    def spent() -> MultiProviderLimiter:
        dear = {"output_per_1m": 1_000_000.0, "input_per_1m": 0.0}
        return MultiProviderLimiter([Provider(provider, {model: dear})], budget_limit=1.0)

    return {
        RequestTooLarge: lambda: MultiProviderLimiter([Provider(provider, {model: {"tpm": 10}})]),
        AcquireTimeout: busy,
        BudgetExceeded: spent,
        LimiterClosed: closed,
        ConfigError: lambda: MultiProviderLimiter([Provider(provider, {f"not-{model}": {}})]),
    }
