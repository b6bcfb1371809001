"""What the tests of plans and of workloads share."""

from __future__ import annotations

from typing import Any

from agent_rate_limiter import Plan


def config(*, budget: float | None = None, **model: Any) -> dict[str, Any]:
    model = {"input_per_1m": 10, "output_per_1m": 20, "rpm": 10**9, **model}
    return {"providers": {"p": {"models": {"m": model}}}, **({"budget_limit": budget} if budget else {})}


def rows(found: Plan) -> dict[str, Any]:
    return {f"{binding.owner}: {binding.name}": binding for binding in found.limits}
