"""Anthropic: quotas per model class, rounded to 1000 tokens, with absolute resets."""

from __future__ import annotations

from dataclasses import dataclass

from agent_rate_limiter.limits import Resource
from agent_rate_limiter.providers.base import Dialect
from agent_rate_limiter.providers.headers import HeaderRow
from agent_rate_limiter.providers.model import Quota

_ROUNDED_TO = 1_000  # platform.claude.com, rate limits, 2026-10


def _row(resource: Resource, prefix: str, granularity: int = _ROUNDED_TO, pool: str = "") -> HeaderRow:
    limit, remaining, reset = (f"anthropic-{prefix}-{part}" for part in ("limit", "remaining", "reset"))
    return HeaderRow(resource, "minute", limit, remaining, (reset,), granularity=granularity, pool=pool)


ROWS = (
    _row(Resource.REQUESTS, "ratelimit-requests", granularity=1),
    _row(Resource.INPUT_TOKENS, "ratelimit-input-tokens"),
    _row(Resource.OUTPUT_TOKENS, "ratelimit-output-tokens"),
    _row(Resource.TOKENS, "ratelimit-tokens"),
    _row(Resource.INPUT_TOKENS, "priority-input-tokens", pool="priority"),
    _row(Resource.OUTPUT_TOKENS, "priority-output-tokens", pool="priority"),
)


@dataclass(frozen=True)
class AnthropicDialect(Dialect):
    """Anthropic's Messages API."""

    def quotas(self, headers: object, now: float) -> list[Quota]:
        """The quotas that a response's headers state.

        `anthropic-ratelimit-tokens-*` repeats the most restrictive limit, or the sum of input and output: it is left
        out when it says nothing new (a workspace's own limit does).
        """
        quotas = super().quotas(headers, now)
        parts = {quota.resource: quota.limit or 0 for quota in quotas if not quota.pool}
        into, out = parts.get(Resource.INPUT_TOKENS, 0), parts.get(Resource.OUTPUT_TOKENS, 0)
        known = {into, out, into + out} - {0}
        return [quota for quota in quotas if quota.resource is not Resource.TOKENS or quota.limit not in known]
