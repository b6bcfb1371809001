"""What a store must do that several processes share: here several members of one store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from agent_rate_limiter.admission import Bucket
from agent_rate_limiter.engine.port import Batch, Hold, Rule, SharedStore, Write
from agent_rate_limiter.engine.verdicts import obey, translated
from agent_rate_limiter.limits import Limit, Resource
from agent_rate_limiter.stores import open_store
from agent_rate_limiter.stores.sqlite.store import SQLiteStore
from agent_rate_limiter.strategies import GATE, gate, strategy_for
from tests.contract.direct import Direct
from tests.contract.members import NOW, RPM, Member, admitted, hold, left
from tests.contract.opened import SHARED

SLOTS = Limit(Resource.CONCURRENCY, 2)
BUDGET = Limit(Resource.COST, 1.0, "day")
ROLLING = Limit(Resource.COST, 1.0, "day", strategy="sliding_window")
DOLLAR = 10**9


def test_all_draw_on_one_limit(member: Member) -> None:
    one, other = member("one"), member("other")
    assert admitted(one, RPM, 6)
    assert not admitted(other, RPM, 5)
    assert admitted(other, RPM, 4)
    assert left(one, RPM) == 0


def test_what_one_gives_back_another_can_take(member: Member) -> None:
    one, other = member("one"), member("other")
    taken = admitted(one, RPM, 10)
    assert taken
    one.settle(taken, [3], NOW)
    assert left(other, RPM) == 7


def test_time_does_not_go_back_unless_far(member: Member) -> None:
    store = member("one").shared
    times = [NOW, NOW - 1, NOW - 59_999, NOW + 5, NOW + 5 - 60_000, NOW - 59_000]
    told = [store.run(Batch("one", number, 10_000, [], []), now).now for number, now in enumerate(times, 1)]
    assert told == [NOW, NOW, NOW, NOW + 5, NOW + 5 - 60_000, NOW - 59_000]


def test_the_slots_of_a_dead_process_come_back_by_its_lease(member: Member) -> None:
    dead, other = member("dead"), member("other")
    assert admitted(dead, SLOTS)
    assert admitted(dead, SLOTS)
    assert not admitted(other, SLOTS, now=NOW + 10_000)
    assert admitted(other, SLOTS, now=NOW + 10_001)
    assert left(other, SLOTS, NOW + 10_001) == 1


def test_a_process_that_lives_keeps_its_slots(member: Member) -> None:
    busy, other = member("busy"), member("other")
    admitted(busy, SLOTS, 2)
    for seconds in range(5, 60, 5):
        left(busy, SLOTS, NOW + seconds * 1000)
    assert not admitted(other, SLOTS, now=NOW + 60_000)


@pytest.mark.parametrize("budget", [BUDGET, ROLLING])
def test_what_a_dead_process_had_reserved_of_a_budget_is_charged(member: Member, budget: Limit) -> None:
    dead, other = member("dead"), member("other")
    taken = admitted(dead, budget, 6 * DOLLAR // 10)
    refusal = other.reserve(hold(other, budget, DOLLAR // 2), NOW)
    assert refusal is not None
    assert refusal.may_free
    refusal = other.reserve(hold(other, budget, DOLLAR // 2), NOW + 10_001)
    assert refusal is not None
    assert not refusal.may_free, "nobody gives back any more"
    assert taken
    dead.settle(taken, [DOLLAR // 10], NOW + 11_000)  # it was only stopped for a while
    assert left(other, budget, NOW + 11_000) == 9 * DOLLAR // 10


def test_a_gate_that_counts_does_not_wait_for_the_dead(member: Member) -> None:
    dead, other = member("dead"), member("other")
    bucket = hold(dead, GATE).path[0]
    write(dead, bucket, gate.closed(bucket.state, NOW + 1_000, NOW))
    assert not admitted(other, GATE)
    assert admitted(dead, GATE, now=NOW + 1_000)
    assert not admitted(other, GATE, now=NOW + 11_000), "one at a time, and that one is out"
    assert admitted(other, GATE, now=NOW + 11_001)


@pytest.mark.parametrize("limit", [SLOTS, BUDGET, ROLLING])
def test_the_dead_are_buried_by_whoever_comes_next_whatever_it_is_about(member: Member, limit: Limit) -> None:
    dead, other = member("dead"), member("other")
    all_there_is = 2 if limit is SLOTS else DOLLAR
    assert admitted(dead, limit, all_there_is)
    left(other, RPM, NOW + 10_001)
    refusal = other.reserve(hold(other, limit, all_there_is), NOW + 10_001)
    assert refusal is None if limit is SLOTS else refusal is not None and not refusal.may_free


def test_what_a_dead_process_took_in_a_window_that_is_over_is_charged_to_no_other(member: Member) -> None:
    dead, other = member("dead"), member("other")
    assert admitted(dead, BUDGET, 6 * DOLLAR // 10, NOW - 5_000)
    assert admitted(other, BUDGET, 5 * DOLLAR // 10, NOW + 1_000), "midnight has passed"
    assert left(other, BUDGET, NOW + 5_001) == 5 * DOLLAR // 10


def test_who_died_before_a_gate_closed_is_not_counted_out_of_those_who_passed_since(member: Member) -> None:
    dead, other, third = member("dead"), member("other"), member("third")
    bucket = hold(other, GATE).path[0]
    for closed_at in (NOW, NOW + 2_000):
        left(other, GATE, closed_at)
        write(other, bucket, gate.closed(bucket.state, closed_at + 1_000, closed_at), now=closed_at)
        assert admitted(dead if closed_at == NOW else other, GATE, now=closed_at + 1_000)
    assert not admitted(third, GATE, now=NOW + 11_001), "the dead one's place went when the gate closed again"
    left(other, GATE, NOW + 12_000)
    assert not admitted(third, GATE, now=NOW + 12_999)


def write(store: Direct, bucket: Bucket, after: object, limit: Limit | None = None, now: int = NOW) -> bool:
    strategy = bucket.strategy if limit is None else strategy_for(limit)
    rule = None if limit is None else Rule(bucket.rev + 1, limit, "", False)  # noqa: FBT003 - not searched for
    done = store.step(lambda place: Write(place(bucket), bucket.state, after, strategy, rule), now)
    if done and rule is not None:
        obey(bucket, rule)
    return bool(done)


def test_a_change_is_made_only_to_what_was_seen(member: Member) -> None:
    one, other = member("one"), member("other")
    admitted(one, RPM, 1)
    bucket = hold(other, RPM).path[0]
    stale = bucket.state
    assert not write(other, bucket, bucket.strategy.settle(stale, 0, 5, NOW, NOW)), "it has not seen the first call"
    assert write(other, bucket, bucket.strategy.settle(bucket.state, 0, 5, NOW, NOW))
    assert left(one, RPM) == 4


def test_a_rule_that_one_has_learned_binds_all(member: Member) -> None:
    one, other = member("one"), member("other")
    admitted(one, RPM, 1)
    admitted(other, RPM, 1)
    bucket, theirs = hold(one, RPM).path[0], hold(other, RPM).path[0]
    left(one, RPM)
    lower = Limit(Resource.REQUESTS, 5, "minute", name="5 requests/minute (lowered)")
    after = strategy_for(lower).settle(strategy_for(lower).initial(NOW), 0, 2, NOW, NOW)
    assert write(one, bucket, after, lower)
    assert not admitted(other, RPM, 4)
    assert theirs.limit.name == "5 requests/minute (lowered)"
    assert admitted(other, RPM, 3)


KINDS = [RPM, *(Limit(Resource.REQUESTS, 10, "minute", strategy=name) for name in ("fixed_window", "sliding_window"))]


def lowered(store: Direct, bucket: Bucket, amount: int) -> bool:
    """Write a lower amount; what was used stays."""
    rule = replace(bucket.limit, amount=amount, name=f"{amount} requests/minute (lowered)")
    return write(store, bucket, translated(bucket.state, bucket.strategy, strategy_for(rule)), rule)


@pytest.mark.parametrize("limit", KINDS)
def test_a_rule_binds_whoever_has_not_heard_of_it_however_many_draw_meanwhile(member: Member, limit: Limit) -> None:
    one, other, third = (member(name) for name in ("one", "other", "third"))
    assert lowered(one, hold(one, limit).path[0], 5)
    unheard = [Bucket(limit.name, limit, "", NOW) for _ in range(4)]
    assert [admits(each, bucket, 2) for each, bucket in zip((other, third, one, third), unheard, strict=True)] == [
        True,
        True,
        False,
        False,
    ]


def admits(store: Direct, bucket: Bucket, amount: int) -> bool:
    return isinstance(store.ask(Hold((bucket,), (amount,)), NOW), bool)


def forget(store: Direct, key: str) -> None:
    """Let a bucket's row expire."""
    shared: Any = store.shared
    if isinstance(shared, SQLiteStore):
        with closing(sqlite3.connect(shared.path)) as connection, connection:
            connection.execute("DELETE FROM limits_rows WHERE key = ?", (f"bucket:{key}",))
        return
    with cast("Any", redis.Redis.from_url(shared.name)) as client:
        assert client.delete(f"{shared._prefix}bucket:{key}")


@pytest.mark.parametrize("limit", KINDS)
def test_a_learned_rule_outlives_the_state_of_its_limit(member: Member, limit: Limit) -> None:
    one, other = member("one"), member("other")
    bucket = hold(one, limit).path[0]
    assert lowered(one, bucket, 5)
    forget(one, limit.name)
    assert admits(one, bucket, 3)
    assert not admits(other, Bucket(limit.name, limit, "", NOW), 3), "five are one more than that"
    assert admits(other, Bucket(limit.name, limit, "", NOW), 2)


@pytest.mark.parametrize("limit", KINDS)
def test_of_two_who_change_a_rule_at_once_one_is_told_to_look_again(member: Member, limit: Limit) -> None:
    one, other = member("one"), member("other")
    buckets = [hold(each, limit).path[0] for each in (one, other)]
    for each in (one, other, one):
        each.reserve(hold(each, limit), NOW)
    left(other, limit)
    assert lowered(one, buckets[0], 5)
    assert not lowered(other, buckets[1], 7), "though nobody has drawn on it meanwhile"
    assert left(one, limit) == 2


def test_a_configured_amount_may_be_changed_while_others_run(member: Member) -> None:
    old, new = member("old"), member("new")
    raised = Limit(Resource.REQUESTS, 25, "minute", name=RPM.name)
    admitted(old, RPM, 10)
    assert left(new, raised) == 15
    assert admitted(new, raised, 15)
    assert not admitted(old, RPM, 1)


def test_limits_that_are_idle_again_leave_nothing(tmp_path: Path) -> None:
    store = Direct(cast("SharedStore", open_store(SHARED["sqlite"](tmp_path))))
    for number in range(50):
        admitted(store, Limit(Resource.REQUESTS, 10, "minute", name=f"limit {number}"))
    assert rows(store) == 50
    for step in range(520):
        admitted(store, Limit(Resource.REQUESTS, 10_000, "minute", name="last"), now=NOW + 3 * 3_600_000 + step)
    assert rows(store) <= 2
    store.shared.close()


def rows(store: Direct) -> int:
    with closing(sqlite3.connect(cast("SQLiteStore", store.shared).path)) as connection:
        count: int = connection.execute("SELECT count(*) FROM limits_rows WHERE key LIKE 'bucket:%'").fetchone()[0]
    return count


@pytest.mark.parametrize("name", [name for name in SHARED if name != "sqlite"])
def test_every_key_expires(name: str, tmp_path: Path) -> None:
    uri = SHARED[name](tmp_path)
    store = Direct(cast("SharedStore", open_store(uri)))
    for limit in (RPM, SLOTS, BUDGET, ROLLING, GATE, Limit(Resource.COST, 5.0, None)):
        admitted(store, limit)
    store.stand(hold(store, RPM, 10), NOW)
    store.remember("text", "kept")
    store.first("alert", NOW + 1_000, NOW)
    client: Any = redis.Redis.from_url(uri.partition("?")[0])
    prefix = f"arl1:{{{uri.partition('=')[2]}}}:"
    lasting = {key.decode().removeprefix(prefix): client.pttl(key) for key in client.keys(f"{prefix}*")}
    client.close()
    store.shared.close()
    assert {"meta", "members"} <= lasting.keys()
    assert min(lasting.values()) > 0, lasting
    assert "bucket:gate" not in lasting, "an open gate is as good as none"
