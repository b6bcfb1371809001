"""Gemini and Vertex AI: no headers; everything is in the error's `details`, in any order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

from agent_rate_limiter.limits import PERIOD_SECONDS, Resource
from agent_rate_limiter.providers.base import Dialect
from agent_rate_limiter.providers.durations import number, seconds
from agent_rate_limiter.providers.headers import server_time
from agent_rate_limiter.providers.shapes import mapping, mappings
from agent_rate_limiter.providers.told import Amounts, Told

_RESET_ZONE = "America/Los_Angeles"  # daily quotas reset at midnight Pacific (ai.google.dev, rate limits, 2026-08)
_STANDARD_TIME = timezone(timedelta(hours=-8))  # where there is no time zone database: at most an hour late
_PERIODS = re.compile(r"Per(Second|Minute|Hour|Day|Month)", re.IGNORECASE)
_COUNTED = (
    (re.compile(r"input_?token", re.IGNORECASE), Resource.INPUT_TOKENS),
    (re.compile(r"output_?token", re.IGNORECASE), Resource.OUTPUT_TOKENS),
    (re.compile(r"token", re.IGNORECASE), Resource.INPUT_TOKENS),  # Gemini's TPM counts input only
    (re.compile(r"request", re.IGNORECASE), Resource.REQUESTS),
)


@dataclass(frozen=True)
class GeminiDialect(Dialect):
    """Google's generateContent and its errors (google.rpc: QuotaFailure, RetryInfo, ErrorInfo)."""

    def _amounts(self, told: Told) -> Amounts:
        """The quota that takes longest to come back, of all that are violated."""
        violations = [_violation(each) for part in told.details for each in mappings(part.get("violations"))]
        if not violations:
            return super()._amounts(told)
        worst = max(violations, key=lambda found: PERIOD_SECONDS.get(found.period or "", 0))
        said = super()._amounts(told)
        return worst if worst.limit is not None else worst._replace(limit=said.limit)

    def _delay(self, fields: dict[str, str], told: Told, found: Amounts, now: float) -> float | None:
        """A daily quota comes back at midnight Pacific: its retryDelay may be 38 s, or right."""
        if found.period == "day":
            return _until_midnight(server_time(fields, now))
        for part in told.details:
            delay = seconds(part.get("retryDelay") or mapping(part.get("metadata")).get("quotaResetDelay"))
            if delay is not None:
                return delay
        return super()._delay(fields, told, found, now)


def _violation(violation: Mapping[str, Any]) -> Amounts:
    """Read `GenerateRequestsPerMinutePerProjectPerModel-FreeTier` and its like."""
    quota = f"{violation.get('quotaId')} {violation.get('quotaMetric')} {violation.get('subject')}"[:500]
    period = _PERIODS.search(quota)
    resource = next((resource for pattern, resource in _COUNTED if pattern.search(quota)), None)
    limit = number(violation.get("quotaValue"))
    return Amounts(resource, period[1].lower() if period else None, None if limit is None else int(limit))


def _until_midnight(now: float) -> float:
    zone = _zone()
    try:
        today = datetime.fromtimestamp(now, zone)
        midnight = datetime(today.year, today.month, today.day, tzinfo=zone) + timedelta(days=1)
        return max(0.0, midnight.timestamp() - now)
    except (ValueError, OverflowError, OSError):  # a time that is none
        return float(PERIOD_SECONDS["day"])


def _zone() -> tzinfo:
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(_RESET_ZONE)
    except (KeyError, OSError, ValueError):
        return _STANDARD_TIME
