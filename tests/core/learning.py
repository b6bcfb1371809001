"""Limiters of which nobody, or somebody, has configured the limits."""

from __future__ import annotations

from typing import Any

from agent_rate_limiter import MultiProviderLimiter, Provider
from agent_rate_limiter.calls.reservation import Reservation
from agent_rate_limiter.limits import Target
from agent_rate_limiter.testing import ManualClock

GPT = Target("openai", "gpt-4")


def unknown(clock: ManualClock, **options: Any) -> MultiProviderLimiter:
    return MultiProviderLimiter(clock=clock, **options)


def known(clock: ManualClock, provider: str = "openai", **limits: Any) -> MultiProviderLimiter:
    return MultiProviderLimiter([Provider(provider, {"gpt-4": limits})], clock=clock)


def admitted(call: object) -> Reservation:
    assert isinstance(call, Reservation), call
    return call


def available(limiter: MultiProviderLimiter, resource: str = "requests") -> float:
    (limit,) = [limit for limit in limiter.snapshot().limits if limit.resource == resource]
    return limit.available
