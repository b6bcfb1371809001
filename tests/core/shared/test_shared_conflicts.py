"""Two processes that learn at the same time, a store that fails oddly, and what the others are told of it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, cast

import pytest

from agent_rate_limiter import (
    Admitted,
    Event,
    Limit,
    LimiterClosed,
    Queued,
    RateLimiter,
    Resource,
    StoreFound,
    StoreLost,
    StoreUnavailable,
    Usage,
)
from agent_rate_limiter.engine import exchange
from agent_rate_limiter.engine.port import Answer, Batch, SharedStore
from agent_rate_limiter.engine.verdicts import merged
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.stores import open_store
from agent_rate_limiter.stores.redis.uri import RedisAddress
from agent_rate_limiter.strategies import TokenBucket, gate
from agent_rate_limiter.strategies.gate import Gate, State
from agent_rate_limiter.testing import ManualClock, run_virtual
from agent_rate_limiter.usage import Estimate

NOW = 1_767_225_600_000
OPEN = Gate().initial(NOW)


class Odd:
    """A store that answers with what it is told to, once."""

    def __init__(self, store: SharedStore) -> None:
        self.store = store
        self.raises: list[Exception] = []

    def run(self, batch: Batch, now: int | None) -> Answer:
        if self.raises:
            raise self.raises.pop()
        return self.store.run(batch, now)

    def remember(self, key: str, text: str) -> None:
        if self.raises:
            raise self.raises.pop()
        self.store.remember(key, text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def odd(tmp_path: Path) -> Odd:
    return Odd(cast("SharedStore", open_store(f"sqlite:///{tmp_path / 'limits.db'}")))


def closed(until: int, at: int = NOW) -> State:
    return gate.closed(OPEN, until, at)


@pytest.mark.parametrize(
    ("current", "before", "after", "expected"),
    [
        pytest.param(
            closed(NOW + 9_000), OPEN, closed(NOW + 2_000, NOW + 1), (NOW + 9_000, NOW + 1), id="closed by both"
        ),
        pytest.param(
            closed(NOW + 9_000), OPEN, OPEN._replace(strikes=1), (NOW + 9_000, NOW), id="closed by another meanwhile"
        ),
    ],
)
def test_gates_that_two_have_changed(current: State, before: State, after: State, expected: tuple[int, int]) -> None:
    found = merged(current, before, after, Gate(), NOW)
    assert (found.closed_until, found.closed_at) == expected


def test_a_window_that_grew_keeps_those_who_have_passed_meanwhile() -> None:
    before = closed(NOW)._replace(closed_until=0, window=2, in_flight=1)
    current, after = before._replace(in_flight=2), gate.succeeded(before._replace(in_flight=1), known=False)
    assert merged(current, before, after, Gate(), NOW).in_flight == 2
    assert merged(current, before, after, Gate(), NOW).window == after.window


def test_a_correction_is_made_to_what_is_there_by_then() -> None:
    bucket = TokenBucket(60, 60_000)
    before, current = (0, NOW), bucket.take((0, NOW), 10, NOW)
    after = bucket.settle(before, 0, 20, NOW, NOW)
    assert bucket.available(merged(current, before, after, bucket, NOW), NOW) == 30


def test_two_who_learn_at_once_agree_in_the_end(tmp_path: Path, manual_clock: ManualClock) -> None:
    stores = odd(tmp_path), odd(tmp_path)
    one, other = (RateLimiter(rpm=60, store=cast("Any", s), clock=manual_clock, ledger="memory://") for s in stores)
    for limiter in (one, other):
        limiter.acquire().settle()
    engine = cast("Any", one._calls.engine)
    route = one._calls.route(one.target)

    def learn(now: int) -> None:
        other.acquire().settle()  # another process draws on it between our reading and our writing
        bucket = route.path[1]
        bucket.state = bucket.strategy.settle(bucket.state, 0, 10, now, now)

    engine.change(route, learn)
    other.acquire().settle()
    one.acquire().settle()
    (requests,) = (limit for limit in one.snapshot().limits if limit.resource == "requests")
    assert requests.available == 60 - 5 - 10


def test_events_tell_who_waits_and_when_the_store_is_lost(tmp_path: Path, manual_clock: ManualClock) -> None:
    store = odd(tmp_path)
    limiter = RateLimiter(Limit(Resource.REQUESTS, 1, per=1), store=cast("Any", store), clock=manual_clock)
    heard: list[Event] = []
    limiter.events.subscribe(heard.append, Admitted, Queued, StoreLost, StoreFound)

    async def main() -> None:
        for call in await asyncio.gather(*(limiter.acquire_async() for _ in range(3))):
            call.settle()

    run_virtual(main(), manual_clock)
    assert [type(event) for event in heard].count(Queued) == 2
    assert [type(event) for event in heard].count(Admitted) == 3
    store.raises.append(StoreUnavailable("It is gone."))
    with pytest.raises(StoreUnavailable):
        limiter.acquire()
    manual_clock.advance(5)
    limiter.acquire().settle()
    lost, found = (event for event in heard if isinstance(event, (StoreLost, StoreFound)))
    assert isinstance(lost, StoreLost)
    assert (lost.reason, lost.policy) == ("It is gone.", "fail_closed")
    assert isinstance(found, StoreFound)
    assert found.seconds > 0


def test_an_answer_that_nobody_expected_breaks_only_its_own_batch(
    tmp_path: Path, manual_clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = odd(tmp_path)
    limiter = RateLimiter(rpm=60, store=cast("Any", store), clock=manual_clock, ledger="memory://")
    store.raises.append(ZeroDivisionError("odd"))
    with pytest.raises(StoreUnavailable, match="failed: ZeroDivisionError"):
        limiter.acquire()
    assert "gave an answer that was not expected" in caplog.text
    manual_clock.advance(5)
    limiter.acquire().settle()


def test_a_tracked_call_takes_nothing_until_it_is_settled(tmp_path: Path, manual_clock: ManualClock) -> None:
    limiter = RateLimiter(tpm=100, store=f"sqlite:///{tmp_path / 'limits.db'}", clock=manual_clock)
    call = limiter.track(limiter.target, Estimate(input_tokens=500))
    assert limiter.try_acquire(input_tokens=60)
    call.settle(Usage(input_tokens=90))
    refusal = limiter.try_acquire(input_tokens=1)
    assert not refusal
    limiter.close()
    with pytest.raises(LimiterClosed):
        limiter.track(limiter.target, Estimate())


def test_texts_wait_for_a_lost_store(tmp_path: Path) -> None:
    store = odd(tmp_path)
    limiter = RateLimiter(rpm=60, store=cast("Any", store), ledger="memory://")
    engine = cast("Any", limiter._calls.engine)
    store.raises.append(StoreUnavailable("It is gone."))
    engine._known.errands["key"] = "text"
    engine._run_errands()
    assert engine._known.errands == {"key": "text"}
    engine._run_errands()
    assert store.recall("key") == "text"


def test_a_process_that_does_nothing_but_hold_a_slot_says_that_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "MEMBER_LEASE", 90)
    limiter = RateLimiter(concurrency=1, store=f"sqlite:///{tmp_path / 'limits.db'}")
    held = limiter.acquire()
    engine = cast("Any", limiter._calls.engine)
    first, patience = engine._beaten_at, time.monotonic() + 10
    while engine._beaten_at <= first + 90:  # nobody calls; without this its slot came back to others after 90 ms
        assert time.monotonic() < patience
        time.sleep(0.01)
    held.settle()


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("redis+sentinel://user:secret@one:26379,two/mymaster/2", "redis+sentinel://one:26379,two/mymaster/2"),
        ("rediss+cluster://user:secret@host:6379?namespace=team-a", "rediss+cluster://host:6379"),
        ("redis://host/3?socket_keepalive=yes", "redis://host/3"),
    ],
)
def test_addresses(uri: str, name: str) -> None:
    address = RedisAddress(uri)
    assert address.name == name
    assert "secret" not in repr(vars(address)["name"])
    if address.kind == "sentinel":
        client: Any = address.connect()
        assert client.connection_pool.service_name == "mymaster"
        assert client.connection_pool.connection_kwargs["db"] == 2


def test_redis_without_its_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    with pytest.raises(ConfigError, match=r"install redis-py: pip install 'agent-rate-limiter\[redis\]'"):
        open_store("redis://host/0")
