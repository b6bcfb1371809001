"""Who goes before whom among the processes that wait for one limit, on every shared store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any, cast

import pytest
import redis

from agent_rate_limiter.engine.port import Leave
from agent_rate_limiter.stores.sqlite.store import SQLiteStore
from tests.contract.direct import Direct
from tests.contract.members import NOW, RPM, Member, admitted, hold


def test_whoever_stands_in_line_is_not_overtaken(member: Member) -> None:
    one, other = member("one"), member("other")
    admitted(one, RPM, 5)
    assert one.stand(hold(one, RPM, 8), NOW) == 0
    assert not admitted(other, RPM, 1), "five are left, but eight are waited for"
    assert admitted(one, RPM, 1), "its own newcomers the member orders itself"


def test_the_line_delays_nobody_who_fits_beside_it(member: Member) -> None:
    one, other = member("one"), member("other")
    one.stand(hold(one, RPM, 8), NOW)
    assert admitted(other, RPM, 2)


def test_a_more_urgent_call_goes_first(member: Member) -> None:
    one, other = member("one"), member("other")
    admitted(one, RPM, 5)
    one.stand(hold(one, RPM, 8), NOW, rank=5)
    assert other.ask(hold(other, RPM, 1), NOW, rank=5) == (8,)
    assert other.ask(hold(other, RPM, 1), NOW, rank=4) is False


def test_agents_share_by_what_they_take_not_by_how_many_processes_they_run(member: Member) -> None:
    members = [member(name) for name in ("a", "b", "c")]
    admitted(members[0], RPM, 10)
    assert [m.stand(hold(m, RPM, 3), NOW, flow="flood") for m in members[:2]] == [0, 3]
    assert members[2].stand(hold(members[2], RPM, 2), NOW, flow="modest") == 3, "behind the first of the flood alone"
    assert members[1].stand(hold(members[1], RPM, 3), NOW, flow="flood") == 5


def test_a_head_keeps_its_turn_and_its_successor_stands_behind(member: Member) -> None:
    one, other = member("one"), member("other")
    admitted(one, RPM, 10)
    one.stand(hold(one, RPM, 1), NOW, waiter=1)
    assert other.stand(hold(other, RPM, 1), NOW, waiter=1) == 1
    assert one.stand(hold(one, RPM, 1), NOW, waiter=1) == 0
    assert one.stand(hold(one, RPM, 1), NOW, waiter=2) == 1


def test_whoever_is_admitted_leaves_the_line(member: Member) -> None:
    one, other = member("one"), member("other")
    admitted(one, RPM, 5)
    one.stand(hold(one, RPM, 8), NOW)
    later = NOW + 18_000
    assert one.ask(hold(one, RPM, 8), later) is False
    assert other.stand(hold(other, RPM, 1), later) == 0


def test_whoever_gives_up_leaves_the_line(member: Member) -> None:
    one, other = member("one"), member("other")
    waiting = hold(one, RPM, 8)
    admitted(one, RPM, 5)
    one.stand(waiting, NOW)
    one.step(lambda place: Leave(place(waiting.path[0])), NOW)
    assert admitted(other, RPM, 5)


def test_whoever_does_not_come_back_is_forgotten(member: Member) -> None:
    one, other = member("one"), member("other")
    one.stand(hold(one, RPM, 8), NOW, lasting=1_000)
    assert not admitted(other, RPM, 3, NOW + 999)
    assert admitted(other, RPM, 3, NOW + 1_000)


def test_urgency_goes_before_fair_share_and_that_before_arrival(member: Member) -> None:
    one, other, third = member("one"), member("other"), member("third")
    admitted(one, RPM, 10)
    one.stand(hold(one, RPM, 4), NOW, rank=5, flow="flood", waiter=1)
    assert one.stand(hold(one, RPM, 4), NOW, rank=5, flow="flood", waiter=2) == 0
    assert other.stand(hold(other, RPM, 2), NOW, rank=5, flow="modest") == 0, "the flood has had four"
    assert third.stand(hold(third, RPM, 1), NOW, rank=4, flow="flood") == 0, "it is more urgent"
    assert other.stand(hold(other, RPM, 2), NOW, rank=5, flow="modest") == 1
    assert one.stand(hold(one, RPM, 4), NOW, rank=5, flow="flood", waiter=2) == 3
    assert one.stand(hold(one, RPM, 4), NOW, rank=3, flow="flood", waiter=2) == 0, "waiting makes it more urgent"
    assert third.stand(hold(third, RPM, 1), NOW, rank=4, flow="flood") == 4


def test_a_newcomer_does_not_profit_from_its_processs_place_in_line(member: Member) -> None:
    one, other = member("one"), member("other")
    admitted(one, RPM, 8)
    one.stand(hold(one, RPM, 3), NOW)
    assert other.stand(hold(other, RPM, 2), NOW) == 3
    assert one.ask(hold(one, RPM, 1), NOW, newcomer=True) == (2,), "two are left, for which the other process waits"
    assert one.ask(hold(one, RPM, 1), NOW, rank=4, newcomer=True) is False, "it is more urgent"
    assert other.stand(hold(other, RPM, 2), NOW) == 3, "and the head has kept its place"


def served(head: Direct, amount: int, now: int, *, flow: str, waiter: int) -> None:
    """Stand in line, and be admitted."""
    assert head.stand(hold(head, RPM, amount), now, flow=flow, waiter=waiter) == 0
    assert head.ask(hold(head, RPM, amount), now) is False


def waits_for_ever(store: Direct) -> None:
    """Keep the line from being empty, behind everybody else."""
    admitted(store, RPM, 10)
    store.stand(hold(store, RPM, 10), NOW, rank=9, flow="patient", lasting=10**9)


def test_nobody_saves_up_what_was_not_asked_for(member: Member) -> None:
    busy, late = member("busy"), member("late")
    waits_for_ever(member("patient"))
    for number in range(1, 6):
        served(busy, 2, NOW + 12_000 * number, flow="busy", waiter=number)
    now = NOW + 60_000
    assert busy.stand(hold(busy, RPM, 2), now, flow="busy", waiter=6, lasting=60_000) == 0
    assert late.stand(hold(late, RPM, 2), now, flow="late", waiter=1, lasting=60_000) == 0, (
        "it begins where the last was served"
    )
    assert busy.stand(hold(busy, RPM, 2), now, flow="busy", waiter=6, lasting=60_000) == 2
    assert late.ask(hold(late, RPM, 2), now + 12_000) is False
    assert late.stand(hold(late, RPM, 2), now + 12_000, flow="late", waiter=2) == 2, "now it is the other's turn"


def test_who_gives_up_takes_nobody_along(member: Member) -> None:
    first, second, patient = member("first"), member("second"), member("patient")
    admitted(first, RPM, 10)
    first.stand(hold(first, RPM, 3), NOW, flow="flood")
    gives_up = hold(second, RPM, 3)
    assert second.stand(gives_up, NOW, flow="flood") == 3
    patient.stand(hold(patient, RPM, 2), NOW, flow="modest", waiter=1)
    patient.stand(hold(patient, RPM, 1), NOW, flow="modest", waiter=2)
    second.step(lambda place: Leave(place(gives_up.path[0])), NOW)
    assert second.stand(hold(second, RPM, 1), NOW, flow="newcomer", waiter=2) == 3, "behind the one who stood first"


@pytest.mark.parametrize("unit", [1, 10])
def test_agents_get_equal_shares_however_large_their_calls_are(member: Member, unit: int) -> None:
    sizes = {"large": 4, "small": 1}
    heads = {name: member(name) for name in sizes}
    waits_for_ever(member("patient"))
    got, waiter, now = dict.fromkeys(sizes, 0), dict.fromkeys(sizes, 1), NOW

    def ahead(name: str) -> int:
        head = heads[name]
        found = head.stand(
            hold(head, RPM, sizes[name]), now, flow=name, waiter=waiter[name], weight=unit * sizes[name], lasting=10**6
        )
        return cast("int", found)

    for _ in range(40):
        before = {name: ahead(name) for name in (*sizes, *sizes)}  # the second time both stand
        (turn,) = [name for name in sizes if before[name] == 0]
        now += 6_000 * sizes[turn]
        assert heads[turn].ask(hold(heads[turn], RPM, sizes[turn]), now) is False
        got[turn] += sizes[turn]
        waiter[turn] += 1
        assert abs(got["large"] - got["small"]) <= sizes["large"]


def kept(store: Direct) -> list[bytes]:
    """What a store keeps of lines."""
    shared: Any = store.shared
    if isinstance(shared, SQLiteStore):
        with closing(sqlite3.connect(shared.path)) as connection:
            rows = connection.execute("SELECT value FROM limits_rows WHERE key LIKE 'line:%'").fetchall()
        return [str(row[0]).encode() for row in rows]
    with cast("Any", redis.Redis.from_url(shared.name)) as client:
        return [client.get(key) for key in client.keys(f"{shared._prefix}line:*")]


def test_who_was_served_leaves_nothing_in_line(member: Member) -> None:
    busy = member("busy")
    waits_for_ever(member("patient"))
    for number in range(1, 31):
        flow = f"an agent with a long name, one of many {number // 2}"
        served(busy, 1, NOW + 6_000 * number, flow=flow, waiter=number)
    (line,) = kept(busy)
    assert len(line) < 300


def test_agents_who_come_once_are_forgotten_in_a_line_that_is_never_empty(member: Member) -> None:
    busy = member("busy")
    waits_for_ever(member("patient"))
    for number in range(1, 601):
        served(busy, 1, NOW + 6_000 * number, flow=f"run {number}", waiter=number)
    (line,) = kept(busy)
    assert len(line) < 256 * 20


def test_an_empty_line_is_not_kept(member: Member) -> None:
    one = member("one")
    admitted(one, RPM, 10)
    waiting = hold(one, RPM, 1)
    one.stand(waiting, NOW)
    assert len(kept(one)) == 1
    one.step(lambda place: Leave(place(waiting.path[0])), NOW)
    assert kept(one) == []
    one.stand(waiting, NOW, waiter=2)
    assert one.ask(waiting, NOW + 6_000) is False
    assert kept(one) == []
