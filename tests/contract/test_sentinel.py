"""A primary that dies while a Sentinel watches: its replica takes over, and nothing hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from agent_rate_limiter import Limit, RateLimiter, Reservation, Resource, StoreUnavailable
from tests.contract.servers import Watched, binaries, until

LIMITS: list[Limit | str] = ["50 requests/day", Limit(Resource.CONCURRENCY, 3)]
LONGEST = 4.0
"""Seconds that a call may take while the primary is gone: its timeout, the Sentinel's, and a slow machine's share."""


@pytest.fixture(params=binaries())
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    made = Watched(binaries()[request.param])
    yield made
    made.stop()


def uri(of: Watched, *, hosts: str = "", more: str = "") -> str:
    return f"redis+sentinel://{hosts or f'127.0.0.1:{of.port}'}/main?timeout=0.5{more}"


def timed(call: Callable[[], Any]) -> Any:
    start = time.monotonic()
    try:
        return call()
    finally:
        assert time.monotonic() - start < LONGEST


def goes_on(limiter: RateLimiter) -> bool:
    try:
        timed(limiter.acquire).cancel()
    except StoreUnavailable:
        return False
    return True


def left(limiter: RateLimiter) -> dict[str, float]:
    call = limiter.try_acquire(requests=0)
    if isinstance(call, Reservation):
        call.cancel()  # dropped alone, its slot comes back a moment later
    return {limit.resource: limit.available for limit in limiter.snapshot().limits}


def heard_by_the_replica(watched: Watched) -> None:
    with watched.primary.client() as client:
        assert client.execute_command("WAIT", 1, 1_000) == 1


def test_the_replica_takes_over_with_all_that_was_taken(watched: Watched) -> None:
    one, other = (RateLimiter(LIMITS, store=uri(watched), on_store_error=p) for p in ("fail_closed", "local"))
    held = [one.acquire(), other.acquire()]
    for _ in range(5):
        one.acquire().settle()
    heard_by_the_replica(watched)
    watched.primary.stop()
    with pytest.raises(StoreUnavailable, match=r"The store redis\+sentinel://127.0.0.1:\d+/main cannot be used"):
        timed(one.acquire)
    for _ in range(9):
        timed(other.acquire).settle()
    assert "lost" in other.snapshot().store
    until(lambda: goes_on(one) and goes_on(other) and "lost" not in other.snapshot().store)
    until(lambda: left(one) == {"requests": 34, "concurrency": 1})  # what was admitted without it is charged
    for call in held:
        call.settle()
    until(lambda: left(other) == {"requests": 34, "concurrency": 3})


def test_whoever_waits_is_told_and_is_woken_by_the_new_primary() -> None:
    watched = Watched(list(binaries().values())[-1])
    one, other = (RateLimiter(LIMITS[1:], store=uri(watched)) for _ in range(2))
    held = [one.acquire() for _ in range(3)]

    async def main() -> None:
        waiting = asyncio.ensure_future(other.acquire_async())
        await asyncio.sleep(0.05)
        heard_by_the_replica(watched)
        watched.primary.stop()
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(waiting, 10)
        await asyncio.to_thread(until, lambda: goes_on_waiting(other))
        waiting = asyncio.ensure_future(other.acquire_async())
        await asyncio.to_thread(until, lambda: listens(watched))
        turns = told(other)
        held.pop().settle()
        (await waiting).settle()
        assert turns

    try:
        asyncio.run(main())
        for call in held:
            call.settle()
    finally:
        watched.stop()


def told(limiter: RateLimiter) -> list[str]:
    """Return what a limiter hears by pub/sub from here on: whose turn it is."""
    engine = cast("Any", limiter._calls.engine)
    turns: list[str] = []
    plain = engine.our_turn

    def hear(key: str) -> None:
        turns.append(key)
        plain(key)

    engine.our_turn = hear
    return turns


def goes_on_waiting(limiter: RateLimiter) -> bool:
    """Whether the store answers again, though it admits nobody."""
    try:
        return limiter.try_acquire() is not None
    except StoreUnavailable:
        return False


def listens(watched: Watched) -> bool:
    with watched.replica.client() as client:
        return bool(client.pubsub_channels("arl*"))


def test_a_dead_sentinel_is_passed_over(watched: Watched) -> None:
    hosts = f"127.0.0.1:1,127.0.0.1:{watched.port}"
    timed(RateLimiter(LIMITS, store=uri(watched, hosts=hosts)).acquire).settle()


def test_a_service_that_nobody_knows_is_said(watched: Watched) -> None:
    with pytest.raises(StoreUnavailable, match=r"No master found for 'other'.*look at the service's name"):
        RateLimiter(LIMITS, store=uri(watched).replace("/main", "/other")).acquire()


def test_sentinels_have_a_password_of_their_own() -> None:
    watched = Watched(next(iter(binaries().values())), "hush")
    try:
        RateLimiter(LIMITS, store=uri(watched, more="&sentinel_password=hush")).acquire().settle()
        with pytest.raises(StoreUnavailable, match="cannot be used") as refused:
            RateLimiter(LIMITS, store=uri(watched, more="&sentinel_password=loud")).acquire()
        assert "loud" not in str(refused.value)
    finally:
        watched.stop()


def test_a_sentinel_is_no_store(watched: Watched) -> None:
    with pytest.raises(StoreUnavailable, match=r"That is a Sentinel: write redis\+sentinel://"):
        RateLimiter(LIMITS, store=f"redis://127.0.0.1:{watched.port}").acquire()
