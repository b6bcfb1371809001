"""Turn the engine's refusals into words and errors."""

from __future__ import annotations

from datetime import datetime, timezone, tzinfo

from agent_rate_limiter.admission import Refusal
from agent_rate_limiter.decision import Decision
from agent_rate_limiter.errors import (
    AcquireTimeout,
    BudgetExceeded,
    LimitExceeded,
    QueueFull,
    QuotaExhausted,
    RequestTooLarge,
)
from agent_rate_limiter.limits import Resource, from_units
from agent_rate_limiter.reports.holders import Holder, holders_text
from agent_rate_limiter.strategies.gate import Gate

_UNIT = {
    Resource.REQUESTS: "requests",
    Resource.INPUT_TOKENS: "input tokens",
    Resource.OUTPUT_TOKENS: "output tokens",
    Resource.TOKENS: "tokens",
    Resource.CONCURRENCY: "slots",
}
_DAY = 86_400
_HOUR_MS, _DAY_MS = 3_600_000, 86_400_000


def decision_of(target: object, refusal: Refusal, now: int, holders: tuple[Holder, ...] = ()) -> Decision:
    """Say it for people: which limit, how much was asked and is there, when it frees, what to do.

    Args:
        target: where the call wanted to go.
        refusal: the engine's verdict.
        now: epoch milliseconds at which it was given.
        holders: whose calls in flight hold the limit.
    """
    held = holders_text(holders)
    limit = refusal.bucket.limit
    requested = from_units(limit.resource, refusal.requested)
    available = from_units(limit.resource, max(0, refusal.available))
    wait = None if refusal.never or refusal.wait is None else refusal.wait / 1000
    return Decision(
        admitted=False,
        target=str(target),
        limit=limit,
        scope=refusal.bucket.scope,
        requested=requested,
        available=available,
        retry_after=wait,
        available_at=None if wait is None else now / 1000 + wait,
        reason=_sentence(target, refusal, now) + f" In flight: {held}." * bool(held),
        owner=refusal.bucket.key.partition("|")[0],
        holders=holders,
    )


def error_of(target: object, refusal: Refusal, now: int, holders: tuple[Holder, ...] = ()) -> LimitExceeded:
    """Return the error that a refusal for good is raised as."""
    decision = decision_of(target, refusal, now, () if refusal.never else holders)
    if refusal.crowd is not None:
        return QueueFull(decision)
    if refusal.bucket.limit.resource is Resource.COST:
        return BudgetExceeded(decision)
    if refusal.never:
        return RequestTooLarge(decision)
    return QuotaExhausted(decision) if _long(refusal) else AcquireTimeout(decision)


def _long(refusal: Refusal) -> bool:
    """Whether a quota is used up for longer than calls wait: a total, a day, a week, or what a gate waits for."""
    limit = refusal.bucket.limit
    if isinstance(refusal.bucket.strategy, Gate):
        return (refusal.wait or 0) >= _HOUR_MS
    return limit.resource is not Resource.CONCURRENCY and (limit.period_ms or _DAY_MS) >= _DAY_MS


def _sentence(target: object, refusal: Refusal, now: int) -> str:
    limit = refusal.bucket.limit
    name = f"'{limit.name}'" + (f" ({refusal.bucket.scope})" if refusal.bucket.scope else "")
    asked = amount_text(limit.resource, refusal.requested)
    if refusal.crowd is not None:
        crowd = f"{refusal.crowd:,} call{'s wait' if refusal.crowd != 1 else ' waits'}"
        why = (
            f"{crowd} for {name} already, as many as max_queue allows" if refusal.crowd else f"none may wait for {name}"
        )
        return f"{target} is refused: {why}. {_when(refusal, now)}"
    if refusal.never:
        most = amount_text(limit.resource, refusal.bucket.strategy.capacity)
        never = f"{asked} requested, but it never holds more than {most}."
        return f"{target} is refused by {name}: {never} {_smaller(limit.resource)}"
    if isinstance(refusal.bucket.strategy, Gate):
        return _gate_sentence(target, refusal, now)
    there = amount_text(limit.resource, max(0, refusal.available))
    return f"{target} is refused by {name}: {asked} requested, {there} available. {_when(refusal, now)}"


def _gate_sentence(target: object, refusal: Refusal, now: int) -> str:
    if refusal.wait is None:
        return f"{target} opens gradually after a refusal: its calls in flight have to end first. Wait (timeout)."
    return f"{target} is closed: its provider refused calls. {_when(refusal, now)}"


def _smaller(resource: Resource) -> str:
    if resource is Resource.COST:
        return "Lower max_tokens, take a cheaper model, or raise the budget."
    return "Shorten the prompt, lower max_tokens, or raise the limit."


def _when(refusal: Refusal, now: int) -> str:
    if refusal.wait is None:
        if refusal.bucket.limit.resource is Resource.CONCURRENCY:
            return "It frees when a call in flight ends: wait longer (timeout), or raise the limit."
        return "It does not reset by itself: raise it, or start a new scope."
    moment = moment_text(now + refusal.wait, refusal.bucket.limit.timezone)
    frees = f"It frees in {duration_text(refusal.wait / 1000)}, at {moment}"
    if refusal.bucket.limit.resource is Resource.COST:
        return f"{frees}: wait that long (timeout), raise the budget, or take a cheaper model."
    return f"{frees}: wait that long (timeout), or use a fallback."


def amount_text(resource: Resource, units: int) -> str:
    """Return "800 tokens", "1 slot" or "$0.1250"."""
    if resource is Resource.COST:
        dollars = from_units(resource, units)
        if round(dollars, 2) == round(dollars, 6) and (units == 0 or dollars >= 1e-6):  # noqa: PLR2004 - a millionth
            return f"${dollars:,.2f}"
        return f"${dollars:,.{6 if dollars >= 1e-6 else 9}f}".rstrip("0")  # noqa: PLR2004
    word = _UNIT[resource]
    return f"{units:,} {word.removesuffix('s') if units == 1 else word}"


def dollars_text(dollars: float) -> str:
    """Return "$1,250.00", "$9.9375", "$0.000012" or "-$1.25": to the cent, and finer where little is left."""
    amount = abs(dollars)
    exact = round(amount, 2) == round(amount, 6)
    digits = 2 if amount >= 10 or exact else 4 if amount >= 0.01 else 6  # noqa: PLR2004
    return f"{'-' if dollars < 0 else ''}${amount:,.{digits}f}"


def duration_text(seconds: float) -> str:
    """Return "0.25 s", "12 s", "4 min 5 s", "3 h 20 min" or "2 d 4 h"."""
    if seconds < 10:  # noqa: PLR2004 - below, tenths matter
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + " s"
    whole = round(seconds)
    for size, word, below, part in ((_DAY, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {word}" + (f" {rest} {part}" if rest else "")
    return f"{whole} s"


def moment_text(at: int, zone: str = "UTC") -> str:
    """Return an epoch millisecond as "2026-11-23 15:40:00 UTC", or as it is called elsewhere."""
    try:
        return datetime.fromtimestamp(at / 1000, _zone(zone)).strftime("%Y-%m-%d %H:%M:%S %Z")
    except (ValueError, OverflowError, OSError):
        return "the end of the calendar"


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return timezone.utc
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)
