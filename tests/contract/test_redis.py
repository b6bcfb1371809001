"""Redis itself: lost, restarted, paused, secured; and what its URIs may say."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from agent_rate_limiter import ConfigError, Limit, RateLimiter, Resource, StoreUnavailable
from agent_rate_limiter.engine.port import Hold
from agent_rate_limiter.stores import open_store
from agent_rate_limiter.stores.redis.uri import RedisAddress
from agent_rate_limiter.stores.redis.wakes import Wakes
from agent_rate_limiter.testing import ManualClock
from tests.contract.direct import Direct
from tests.contract.opened import SHARED, server
from tests.contract.servers import Server, binaries, until
from tests.contract.test_sentinel import told

NAMES = list(binaries())


@pytest.fixture(params=NAMES)
def own(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that the test may mistreat."""
    made = Server(binaries()[request.param])
    yield made
    made.stop()


def works(limiter: RateLimiter) -> bool:
    with suppress(StoreUnavailable):
        limiter.acquire().cancel()
        return True
    return False


def test_a_server_that_lost_its_data_is_told_what_was_known(own: Server, manual_clock: ManualClock) -> None:
    limits: list[Limit | str] = ["10 requests/day", Limit(Resource.CONCURRENCY, 3), Limit(Resource.COST, 1.0, "day")]
    one, other = (RateLimiter(limits, store=own.uri, clock=manual_clock) for _ in range(2))
    held = [one.acquire(), other.acquire()]
    for _ in range(4):
        one.acquire().settle()
    own.stop()
    with pytest.raises(StoreUnavailable, match=r"The store redis://127.0.0.1:\d+/0 cannot be used"):
        one.acquire()
    own.start()
    manual_clock.advance(10)
    other_held = other.acquire()
    admitted = [one.try_acquire()]
    assert [bool(call) for call in admitted] == [False], "three are in flight: one's, and two of the other's"
    held[0].settle()
    more = [one.try_acquire() for _ in range(2)]
    assert [bool(call) for call in more] == [True, False]
    other_held.settle()
    held[1].settle()
    (requests,) = (limit for limit in one.snapshot().limits if limit.resource == "requests")
    assert requests.available <= 3


def test_a_paused_server_holds_nobody_up(own: Server) -> None:
    limiter = RateLimiter(rpm=1_000, store=f"{own.uri}?timeout=0.2")
    limiter.acquire().settle()
    own.send(signal.SIGSTOP)
    try:
        start = time.monotonic()
        with pytest.raises(StoreUnavailable, match="slow, paused or far away"):
            limiter.acquire()
        with pytest.raises(StoreUnavailable):
            asyncio.run(asyncio.wait_for(limiter.acquire_async(), 5))
        assert time.monotonic() - start < 4
    finally:
        own.send(signal.SIGCONT)
    until(lambda: works(limiter))


def test_a_batch_whose_answer_was_lost_is_not_taken_twice(own: Server) -> None:
    limiter = RateLimiter("10 requests/day", store=f"{own.uri}?timeout=0.2", on_store_error="fail_closed")
    limiter.acquire().settle()
    own.send(signal.SIGSTOP)
    with suppress(StoreUnavailable):
        limiter.acquire()  # it may be taken when the server goes on: then it is given back
    own.send(signal.SIGCONT)
    until(lambda: works(limiter))
    for _ in range(9):
        assert limiter.acquire(timeout=5)
    assert not limiter.try_acquire()


def test_a_server_without_memory_changes_nothing(own: Server, manual_clock: ManualClock) -> None:
    limiter = RateLimiter(concurrency=2, store=own.uri, clock=manual_clock)
    call, _other = limiter.acquire(), limiter.acquire()
    client: Any = redis.Redis(port=own.port)
    client.config_set("maxmemory", 1)
    call.settle()
    with pytest.raises(StoreUnavailable, match="Give the server more memory"):
        limiter.acquire()
    client.config_set("maxmemory", 0)
    client.close()
    manual_clock.advance(5)
    assert limiter.try_acquire(), "the settlement was kept, and nothing of it had been done"


def test_a_password_is_needed_and_never_shown() -> None:
    secured = Server(binaries()[NAMES[0]], "--requirepass hush")
    host = f"127.0.0.1:{secured.port}"
    try:
        limiter = RateLimiter(rpm=5, store=f"redis://:hush@{host}/0")
        assert limiter.try_acquire()
        with pytest.raises(StoreUnavailable, match="Give a user and a password that the server takes") as refused:
            RateLimiter(rpm=5, store=f"redis://:wrong-word@{host}/0").acquire()
        assert "wrong-word" not in str(refused.value)
    finally:
        secured.stop()


def test_a_server_that_is_not_there_is_said_at_once() -> None:
    with pytest.raises(StoreUnavailable, match="Start it, or mend the address"):
        RateLimiter(rpm=5, store="redis://127.0.0.1:1/0").acquire()


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("redis://", "write it like 'redis://host:6379/0'"),
        ("redis+sentinel://host:26379", "write it like 'redis\\+sentinel://"),
        ("redis+ring://host", "it is one of redis, rediss"),
        ("redis://host:port", "Write it like"),
        ("redis://host/0?namespace=a{b}", "store namespace is 'a{b}'"),
        ("redis://host/0?timeout=soon", "store timeout is 'soon'"),
        ("redis://user:secret@host:x/0", "store is 'redis://host:x/0'"),
        ("redis://one:6379,two:6379", "several hosts are a Cluster's, or Sentinels"),
        ("redis://host/first", "'first' is no database's number"),
        ("redis://host/0/1", "write it like"),
        ("redis+cluster://host/1", "'1' is no database's number there. Write it like 'redis\\+cluster://"),
        ("redis+cluster://:6379", "a host has no name"),
        ("redis+sentinel://host/main?sentinel_word=x", "unexpected keyword argument 'word'"),
        ("redis://host/0?unheard_of=x", "unexpected keyword argument 'unheard_of'"),
        ("rediss://host/0?ssl_cert_reqs=maybe", "maybe"),
    ],
)
def test_a_uri_that_makes_no_sense_is_refused(uri: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        open_store(uri)
    assert "secret" not in str(refused.value)


def test_limits_that_a_script_cannot_count_exactly_are_refused() -> None:
    limiter = RateLimiter(Limit(Resource.TOKENS, 999_999_999_989, "month"), store=server(NAMES[0]).uri)
    with pytest.raises(ConfigError, match=r"needs numbers above 2\^53"):
        limiter.acquire(input_tokens=5)


@pytest.mark.parametrize("name", NAMES)
def test_whose_turn_it_is_is_told_not_asked_for(name: str) -> None:
    uri = f"{server(name).uri}?namespace=turns"

    async def main() -> float:
        one, other = RateLimiter(concurrency=1, store=uri), RateLimiter(concurrency=1, store=uri)
        held = await one.acquire_async()
        waiting = asyncio.ensure_future(other.acquire_async())
        await asyncio.sleep(0.4)  # it stands in line, and listens, for the first time; by itself it asks each second
        start = time.monotonic()
        held.settle()
        (await waiting).settle()
        return time.monotonic() - start

    assert min(asyncio.run(main()) for _ in range(3)) < 0.3


@pytest.mark.parametrize("name", NAMES)
def test_whoever_died_in_line_holds_nobody_up(name: str, tmp_path: Path) -> None:
    uri = SHARED[name](tmp_path)
    one, other = RateLimiter(concurrency=1, store=uri), RateLimiter(concurrency=1, store=uri)
    held = one.acquire()
    slots = held._hold.path[-1]
    dead, now = Direct(cast("Any", open_store(uri)), "dead"), int(time.time() * 1000) + 500
    wish = Hold((dead.bucket(slots.key, slots.limit, "", now),), (1,))
    assert dead.stand(wish, now, rank=0, lasting=60_000) == 0

    async def main() -> None:
        waiting = asyncio.ensure_future(other.acquire_async(timeout=20))
        await asyncio.to_thread(until, lambda: server(name).client().pubsub_channels(f"*{uri.partition('=')[2]}*"))
        held.settle()
        (await waiting).settle()

    turns = told(other)
    asyncio.run(main())
    assert turns, "the dead one stands before it, and hears nothing"
    dead.shared.close()


def test_a_listener_does_not_wait_for_a_server_that_says_nothing(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_rate_limiter.stores.redis.wakes._LOOK", 0.02)
    heard: list[str] = []
    wanted = [True]

    def hear(key: str) -> bool:
        heard.append(key)
        return wanted[0]

    def listeners() -> list[str]:
        with own.client() as client:
            return [found["id"] for found in client.client_list("pubsub")]

    Wakes(RedisAddress(f"{own.uri}?timeout=0.05"), "turns", hear)
    until(listeners)
    first = listeners()
    until(lambda: len(heard) > 15)
    assert listeners() == first, "it answers when it is asked"
    own.send(signal.SIGSTOP)
    heard.clear()
    until(lambda: len(heard) > 15)
    own.send(signal.SIGCONT)
    until(lambda: listeners() not in ([], first))
    until(lambda: own.client().publish("turns", "mine") and "mine" in heard)
    wanted[0] = False
    until(lambda: not listeners())
