"""What the tests of choice share."""

from __future__ import annotations

from typing import Any

from agent_rate_limiter import Estimate, MultiProviderLimiter, Provider
from agent_rate_limiter.testing import ManualClock

A, B, C = "a:m", "b:m", "c:m"


def limiter_of(
    clock: ManualClock, *, models: dict[str, dict[str, Any]] | None = None, **options: Any
) -> MultiProviderLimiter:
    given = {"a": {"rpm": 60}, "b": {"rpm": 60}, "c": {"rpm": 60}, **(models or {})}
    providers = [Provider(name, {"m": entry}) for name, entry in given.items()]
    return MultiProviderLimiter(providers, **{"clock": clock, "fallbacks": {A: [B, C]}, **options})


def drain(limiter: MultiProviderLimiter, target: str, calls: int) -> None:
    for _ in range(calls):
        limiter.acquire(target, timeout=0).settle()


def limiter_estimate() -> Estimate:
    return Estimate()
