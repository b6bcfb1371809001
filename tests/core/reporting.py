"""A limiter that has something of everything to report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent_rate_limiter import EACH, Budget, MultiProviderLimiter, Provider, Scope
from agent_rate_limiter.testing import ManualClock


def limited_many_ways(clock: ManualClock) -> MultiProviderLimiter:
    models: Mapping[str, Any] = {"m": {"rpm": 60, "tpm": 6_000, "concurrency": 2, "cost_per_1k": 1.0}}
    return MultiProviderLimiter(
        [Provider("p", models, limits=["1000 requests/day"])],
        budget_limit=10,
        budgets=[Budget(5, scope=Scope(agent=EACH), name="per agent")],
        clock=clock,
    )
