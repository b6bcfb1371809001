"""Who is told on Redis that its turn has come: the first in line for whom there is room, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from agent_rate_limiter.engine.port import Hold, Leave, Write
from agent_rate_limiter.limits import Limit, Resource
from agent_rate_limiter.stores import open_store
from tests.contract.direct import Direct
from tests.contract.members import NOW, RPM, admitted, hold
from tests.contract.opened import SHARED, server
from tests.contract.servers import until

SLOTS = Limit(Resource.CONCURRENCY, 2)
_END = "that is all"


class Head(Direct):
    """A member that listens."""

    def __init__(self, uri: str, name: str) -> None:
        super().__init__(cast("Any", open_store(uri)), name)
        self.told: list[str] = []
        self.gone = False
        self.shared.listen(name, self._hear)

    def _hear(self, key: str) -> bool:
        self.told += [key] if key else []
        return not self.gone


class Hall:
    """Heads that listen, on one server."""

    def __init__(self, name: str, uri: str) -> None:
        self._client = server(name).client()
        self._uri = uri
        self._channels = f"*{{{uri.partition('namespace=')[2]}}}*"
        self.heads: list[Head] = []

    def head(self, name: str, *, deaf: bool = False) -> Direct:
        """Make one; one that is deaf has no ears."""
        if deaf:
            return Direct(cast("Any", open_store(self._uri)), name)
        self.heads.append(Head(self._uri, name))
        until(lambda: len(self._client.pubsub_channels(self._channels)) == len(self.heads))
        return self.heads[-1]

    def told(self) -> list[list[str]]:
        """What each has been told since the last look."""
        for channel in self._client.pubsub_channels(self._channels):
            self._client.publish(channel, _END)
        until(lambda: all(_END in head.told for head in self.heads))
        found = [head.told[:-1] for head in self.heads]
        for head in self.heads:
            head.told.clear()
        return found

    def close(self) -> None:
        """Let them go."""
        for head in self.heads:
            head.gone = True
            head.shared.close()
        until(lambda: not self._client.pubsub_channels(self._channels))
        self._client.close()


@pytest.fixture(params=[name for name in SHARED if name != "sqlite"])
def hall(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hall]:
    monkeypatch.setattr("agent_rate_limiter.stores.redis.wakes._LOOK", 0.02)
    found = Hall(request.param, SHARED[request.param](tmp_path))
    yield found
    found.close()


@pytest.fixture
def giver(hall: Hall) -> Direct:
    """It has all there is."""
    return hall.head("giver", deaf=True)


def taken(of: Direct, limit: Limit, amount: int = 1) -> Hold:
    found = admitted(of, limit, amount)
    assert found is not None
    return found


def test_the_first_alone_is_told(hall: Hall, giver: Direct) -> None:
    one, other = hall.head("one"), hall.head("other")
    call = taken(giver, SLOTS, 2)
    one.stand(hold(one, SLOTS), NOW, rank=5)
    other.stand(hold(other, SLOTS), NOW, rank=4)
    assert hall.told() == [[], []], "whoever comes frees nothing"
    giver.settle(call, [0], NOW)
    assert hall.told() == [[], [SLOTS.name]], "though there is room for both"
    assert other.ask(hold(other, SLOTS), NOW) is True
    assert hall.told() == [[SLOTS.name], []], "whoever is served makes way for the next"


def test_the_first_is_who_goes_first_by_fair_share(hall: Hall, giver: Direct) -> None:
    one, other = hall.head("one"), hall.head("other")
    call = taken(giver, SLOTS, 2)
    hall.head("patient", deaf=True).stand(hold(giver, SLOTS), NOW, rank=9)
    giver.stand(hold(giver, SLOTS), NOW, flow="flood", weight=7)
    giver.step(lambda place: Leave(place(call.path[0])), NOW)
    one.stand(hold(one, SLOTS), NOW, flow="flood")
    other.stand(hold(other, SLOTS), NOW, flow="modest")
    giver.settle(call, [0], NOW)
    assert hall.told() == [[], [SLOTS.name]]


def test_each_is_told_in_its_turn(hall: Hall, giver: Direct) -> None:
    """By priority, then fair share, then arrival."""
    heads = [hall.head(name) for name in "abcde"]
    ranks, flows = (5, 5, 5, 4, 5), ("flood", "flood", "modest", "flood", "other")
    call = taken(giver, RPM, 10)
    for head, rank, flow in zip(heads, ranks, flows, strict=True):
        head.stand(hold(head, RPM), NOW, rank=rank, flow=flow, weight=7)
    giver.settle(call, [0], NOW)
    for turn in (3, 0, 2, 4, 1):
        assert [bool(told) for told in hall.told()] == [number == turn for number in range(5)]
        assert heads[turn].ask(hold(heads[turn], RPM), NOW, rank=ranks[turn]) is False


def test_nobody_is_told_while_the_first_has_no_room(hall: Hall, giver: Direct) -> None:
    big, small = hall.head("big"), hall.head("small")
    call = taken(giver, RPM, 10)
    big.stand(hold(big, RPM, 8), NOW)
    small.stand(hold(small, RPM, 1), NOW)
    giver.settle(call, [3], NOW)
    assert hall.told() == [[], []], "seven are free"
    giver.correct(call, [-1], NOW)
    assert hall.told() == [[RPM.name], []]


def test_who_is_first_itself_is_not_told_and_nobody_else(hall: Hall) -> None:
    one, other = hall.head("one"), hall.head("other")
    call = taken(one, SLOTS, 2)
    one.stand(hold(one, SLOTS), NOW)
    other.stand(hold(other, SLOTS), NOW)
    one.settle(call, [0], NOW)
    assert hall.told() == [[], []], "it looks by itself"
    assert one.ask(hold(one, SLOTS), NOW) is True
    assert hall.told() == [[], [SLOTS.name]]


def test_who_does_not_listen_loses_its_place_to_the_next(hall: Hall, giver: Direct) -> None:
    deaf, one, other = hall.head("deaf", deaf=True), hall.head("one"), hall.head("other")
    call = taken(giver, SLOTS, 2)
    for head in (deaf, one, other):
        head.stand(hold(head, SLOTS), NOW)
    giver.settle(call, [0], NOW)
    assert hall.told() == [[SLOTS.name], []]
    assert one.stand(hold(one, SLOTS), NOW) == 0
    assert other.stand(hold(other, SLOTS), NOW) == 1


def test_where_nobody_listens_everybody_keeps_its_place(hall: Hall, giver: Direct) -> None:
    heads = [hall.head(name, deaf=True) for name in ("first", "second")]
    call = taken(giver, SLOTS, 2)
    for head in heads:
        head.stand(hold(head, SLOTS), NOW)
    giver.settle(call, [0], NOW)
    assert [head.stand(hold(head, SLOTS), NOW) for head in heads] == [0, 1]


def test_who_leaves_makes_way(hall: Hall, giver: Direct) -> None:
    one, other = hall.head("one"), hall.head("other")
    taken(giver, SLOTS)
    waiting = hold(one, SLOTS, 2)
    one.stand(waiting, NOW)
    other.stand(hold(other, SLOTS), NOW)
    one.step(lambda place: Leave(place(waiting.path[0])), NOW)
    assert hall.told() == [[], [SLOTS.name]]


def test_the_slots_of_the_dead_are_told_of(hall: Hall) -> None:
    one, dead, lives = hall.head("one"), hall.head("dead", deaf=True), hall.head("lives", deaf=True)
    taken(dead, SLOTS, 2)
    one.stand(hold(one, SLOTS), NOW, lasting=60_000)
    lives.refresh([hold(lives, SLOTS).path[0]], NOW + 10_000)
    assert hall.told() == [[]]
    lives.refresh([hold(lives, SLOTS).path[0]], NOW + 10_001)
    assert hall.told() == [[SLOTS.name]]


def test_a_change_by_what_a_provider_said_is_told_of(hall: Hall, giver: Direct) -> None:
    one = hall.head("one")
    bucket = taken(giver, RPM, 10).path[0]
    one.stand(hold(one, RPM, 4), NOW)
    after = bucket.strategy.settle(bucket.state, 4, 0, NOW, NOW)
    assert giver.step(lambda place: Write(place(bucket), bucket.state, after, bucket.strategy, None), NOW)
    assert hall.told() == [[RPM.name]]
