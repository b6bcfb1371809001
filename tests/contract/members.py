"""Several members of one shared store: what tests ask of them."""

from __future__ import annotations

from collections.abc import Callable

from agent_rate_limiter.engine.port import Hold
from agent_rate_limiter.limits import Limit, Resource
from tests.contract.direct import Direct

NOW = 1_767_225_600_000
RPM = Limit(Resource.REQUESTS, 10, "minute")
Member = Callable[[str], Direct]
"""Makes a member, with a connection of its own."""


def hold(store: Direct, limit: Limit, amount: int = 1) -> Hold:
    return Hold((store.bucket(limit.name, limit, "", NOW),), (amount,))


def admitted(store: Direct, limit: Limit, amount: int = 1, now: int = NOW) -> Hold | None:
    wanted = hold(store, limit, amount)
    if store.reserve(wanted, now) is not None:
        return None
    wanted.taken_at = now
    return wanted


def left(store: Direct, limit: Limit, now: int = NOW) -> int:
    bucket = hold(store, limit).path[0]
    store.refresh([bucket], now)
    return bucket.strategy.available(bucket.state, now)
