"""Quota headers and Retry-After, in every known form. Nothing here raises, whatever it is given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from agent_rate_limiter.limits import Resource
from agent_rate_limiter.providers.durations import epoch, number, seconds, sensible
from agent_rate_limiter.providers.model import Quota

_LONGEST = 2_000  # characters of a header that are looked at
_INTEGER = re.compile(r"\s*(-?\d{1,15})(?:\.\d{0,9})?\s*(?:[,;]|$)")
_LIST_ITEM = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_PARAMETER = re.compile(r'(?:[^;"]|"(?:[^"\\]|\\.)*")+')
_WORDS: Mapping[float, str] = {1.0: "second", 60.0: "minute", 3_600.0: "hour", 86_400.0: "day"}
_REFILL_WINDOWS = ((60.0, "minute"), (86_400.0, "day"))
_REFILL_SLACK = 1.02
_REFILL_ROUNDING = 0.001  # seconds: resets are told in milliseconds
_MILLISECOND_DELAYS = (
    "retry-after-ms",  # OpenAI and Azure
    "x-ms-retry-after-ms",  # Azure
    "x-amz-retry-after",  # AWS: botocore reads it as milliseconds
)
_QUOTA_UNITS = {  # `qu` of draft-ietf-httpapi-ratelimit-headers-11; a policy that counts bytes is of no use here
    "requests": Resource.REQUESTS,
    "concurrent-requests": Resource.CONCURRENCY,
    "tokens": Resource.TOKENS,
}


class HeaderRow(NamedTuple):
    """The names of one quota's headers, in lower case (of the resets, the first one found), and what they mean."""

    resource: Resource
    period: str | None
    limit: str
    remaining: str
    resets: tuple[str, ...] = ()
    granularity: int = 1
    pool: str = ""
    refills: bool = False
    """The reset is the time until a continuously refilled bucket is full, which tells its window."""


def lowered(headers: object) -> dict[str, str]:
    """Copy headers of any kind (mapping, pairs, any HTTP library's) into a dict with lower-case names."""
    try:
        items: Any = getattr(headers, "items", None)
        pairs: Any = headers if items is None else items()
        return {_text(name).lower(): _text(value) for name, value in pairs}
    except Exception:  # noqa: BLE001 - whatever it is, it holds no headers
        return {}


def server_time(headers: Mapping[str, str], now: float) -> float:
    """The server's clock at the response: absolute resets are told on it, and it may differ from ours.

    Args:
        headers: lower-case names.
        now: our clock, epoch seconds; taken when there is no `Date` header.
    """
    moment = epoch(headers.get("date"))
    return now if moment is None else moment


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The delay that a response asks for: the milliseconds forms, else RFC 9110's `Retry-After`.

    Args:
        headers: lower-case names.
        now: epoch seconds.

    Returns:
        Seconds; None when it asks for none.
    """
    for name in _MILLISECOND_DELAYS:
        told = number(headers.get(name))
        if told is not None and told >= 0:
            return sensible(told / 1000)
    told_text = headers.get("retry-after", "")
    return None if told_text.lstrip().startswith("-") else wait(told_text, headers, now)


def wait(value: object, headers: Mapping[str, str], now: float) -> float | None:
    """Read a wait in any form: a length of time, or a moment on the server's clock.

    Args:
        value: a header's or a field's value.
        headers: the response's, lower-case names.
        now: our clock, epoch seconds.

    Returns:
        Seconds from now; None when nothing sensible is told.
    """
    length = None if number(value) is not None else seconds(value)  # a plain number may be a moment
    moment = epoch(value) if length is None else None
    if moment is not None:
        return sensible(moment - server_time(headers, now))
    return seconds(value) if length is None else length


def stated(rows: Sequence[HeaderRow], headers: Mapping[str, str], now: float) -> list[Quota]:
    """Read the quotas that a provider's own headers state.

    Args:
        rows: the provider's header names.
        headers: lower-case names.
        now: epoch seconds.
    """
    quotas = (_row_quota(row, headers, now) for row in rows)
    return [quota for quota in quotas if quota is not None]


def generic(headers: Mapping[str, str], now: float) -> list[Quota]:
    """Read the quotas of headers that belong to no provider: the IETF drafts', else bare `X-RateLimit-*`."""
    return _combined(headers) or stated(_TRIPLES, headers, now) or _structured(headers)


_TRIPLES = tuple(
    HeaderRow(Resource.REQUESTS, None, f"{prefix}-limit", f"{prefix}-remaining", (f"{prefix}-reset",))
    for prefix in ("ratelimit", "x-ratelimit", "x-rate-limit")
)


def _row_quota(row: HeaderRow, headers: Mapping[str, str], now: float) -> Quota | None:
    told_limit = headers.get(row.limit, "")
    limit, remaining = _integer(told_limit), _integer(headers.get(row.remaining, ""))
    if limit is not None and limit < 0:
        return None  # Azure's -1/-1/0: nothing is known
    if limit is None and remaining is None:
        return None
    reset = wait(next((headers[name] for name in row.resets if name in headers), None), headers, now)
    policy = f"{told_limit},{headers.get('ratelimit-policy', '')}"
    period: str | float | None = row.period or _policy_period(policy, limit)
    if row.refills:
        period = _refill_window(limit, remaining, reset) or period
    return Quota(row.resource, period, limit, remaining, reset, granularity=row.granularity, pool=row.pool)


def _refill_window(limit: int | None, remaining: int | None, reset: float | None) -> str | None:
    """Find the window of a bucket that is full again after (limit - remaining) / limit of it (OpenAI, Groq).

    `remaining` is a whole number: up to one unit more may be refilled already.
    """
    if not limit or remaining is None or remaining >= limit or not reset:
        return None
    used = limit - remaining
    shortest = (reset - _REFILL_ROUNDING) * limit / used
    longest = (reset + _REFILL_ROUNDING) * limit / (used - 1) if used > 1 else float("inf")
    fits = (
        word for size, word in _REFILL_WINDOWS if shortest <= size * _REFILL_SLACK and size <= longest * _REFILL_SLACK
    )
    return next(fits, None)


def _policy_period(policies: str, limit: int | None) -> str | float | None:
    """The window in `RateLimit-Limit: 100, 100;w=60` (drafts up to -05) or in `RateLimit-Policy` (-06, -07)."""
    if ";" not in policies:
        return None
    for name, parameters in _items(policies):
        if "w" in parameters and _integer(name) == limit:
            return _period(parameters["w"])
    return None


def _structured(headers: Mapping[str, str]) -> list[Quota]:
    """Read `RateLimit-Policy: "burst";q=100;w=60` and `RateLimit: "burst";r=50;t=30` (draft -11; -08 wrote l)."""
    policies = {name: told for name, told in _items(headers.get("ratelimit-policy", "")) if "w" in told or "q" in told}
    states = {name: told for name, told in _items(headers.get("ratelimit", "")) if "r" in told}
    quotas: list[Quota] = []
    for name in [*policies, *(name for name in states if name not in policies)]:
        policy, state = policies.get(name, {}), states.get(name, {})
        resource = _QUOTA_UNITS.get(policy.get("qu", "requests").lower())
        limit = _integer(policy.get("q", policy.get("l", name)))
        remaining = _integer(state.get("r", ""))
        if resource is not None and (limit, remaining) != (None, None):
            reset = seconds(state.get("t", ""))
            quotas.append(Quota(resource, _period(policy.get("w", "")), limit, remaining, reset))
    return quotas


def _combined(headers: Mapping[str, str]) -> list[Quota]:
    """Read `RateLimit: limit=100, remaining=50, reset=5` and `RateLimit-Policy: 100;w=60` (draft -07)."""
    parts = _LIST_ITEM.findall(headers.get("ratelimit", "")[:_LONGEST])
    told = dict(part.strip().partition("=")[::2] for part in parts)
    limit, remaining = _integer(told.get("limit", "")), _integer(told.get("remaining", ""))
    if limit is None and remaining is None:
        return []
    period = _policy_period(headers.get("ratelimit-policy", ""), limit)
    return [Quota(Resource.REQUESTS, period, limit, remaining, seconds(told.get("reset", "")))]


def _items(text: str) -> list[tuple[str, dict[str, str]]]:
    """Split a structured-field list into (item, parameters), quotes taken off."""
    items: list[tuple[str, dict[str, str]]] = []
    for item in _LIST_ITEM.findall(text[:_LONGEST]):
        name, *parameters = [part.strip() for part in _PARAMETER.findall(item)] or [""]
        pairs = (part.partition("=") for part in parameters)
        items.append((name.strip('"'), {key.strip().lower(): value.strip().strip('"') for key, _, value in pairs}))
    return items


def _period(told: str) -> str | float | None:
    window = number(told)
    return _WORDS.get(window, window) if window is not None and window > 0 else None


def _integer(text: str) -> int | None:
    found = _INTEGER.match(text)
    return int(found[1]) if found else None


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
