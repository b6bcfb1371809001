"""Rules as text, which any database keeps."""

from __future__ import annotations

import json

from agent_rate_limiter.engine.port import Rule
from agent_rate_limiter.limits import Limit, Resource


def rule_text(rule: Rule) -> str:
    """Return a rule as JSON."""
    limit = rule.limit
    return json.dumps(
        {
            "rev": rule.rev,
            "target": rule.target,
            "adaptive": rule.adaptive,
            "resource": limit.resource.value,
            "amount": limit.amount,
            "per": limit.per,
            "burst": limit.burst,
            "strategy": limit.strategy,
            "timezone": limit.timezone,
            "counts": limit.counts,
            "name": limit.name,
        }
    )


def rule_of(text: str | bytes) -> Rule:
    """Return the rule that a JSON text stands for."""
    found = json.loads(text)
    limit = Limit(
        Resource(found["resource"]),
        found["amount"],
        found["per"],
        burst=found["burst"],
        strategy=found["strategy"],
        timezone=found["timezone"],
        counts=found["counts"],
        name=found["name"],
    )
    return Rule(found["rev"], limit, found["target"], found["adaptive"])
