"""Limiters that serve calls from slices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from agent_rate_limiter import Limit, RateLimiter, Reservation, Usage
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.testing import ManualClock

TPM = Limit(Resource.TOKENS, 600_000, "minute")
"""Ten tokens a millisecond."""
DAY = Limit(Resource.TOKENS, 2_000_000, "day", strategy="fixed_window")
LEASE = 20_000
Stores = Callable[[], Any]
"""Makes stores of one place."""


def limiter(store: object, clock: ManualClock, *limits: Limit | str, lease: int | None = LEASE, **more: Any) -> Any:
    options = {"store": store, "clock": clock, "ledger": "memory://", "lease_tokens": lease, **more}
    return RateLimiter(limits or [TPM], **options)


def calls(of: Any, number: int, tokens: int = 500, used: int | None = None) -> list[Reservation]:
    """Make calls, each settled at once if it says what it used."""
    made = [of.acquire(input_tokens=tokens) for _ in range(number)]
    if used is not None:
        for call in made:
            call.settle(Usage(1, used))
    return made


def left(of: Any, resource: str = "tokens") -> float:
    of.explain()  # the limits that it never drew on are not in its snapshot
    (found,) = (limit.available for limit in of.snapshot().limits if limit.resource == resource)
    return cast("float", found)


def lying(of: Any) -> int:
    return cast("int", of._calls.engine._lying)
