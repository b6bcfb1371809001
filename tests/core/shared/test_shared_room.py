"""Who waits for limits that other processes draw on: the order in which the store is asked."""

from __future__ import annotations

from typing import Any

from agent_rate_limiter.admission import Bucket, Refusal
from agent_rate_limiter.engine.port import Hold
from agent_rate_limiter.engine.queue import Waiter
from agent_rate_limiter.engine.shared_room import SLOW, SharedRoom, Wishes
from agent_rate_limiter.limits import Limit, Resource
from agent_rate_limiter.stores.memory import MemoryStore

NOW = 1_767_225_600_000


class Sized:
    """A call of one unit of each limit."""

    def __init__(self, *path: Bucket) -> None:
        self.path = path

    def amounts(self) -> list[int]:
        return [1] * len(self.path)


def test_who_stood_behind_a_head_that_goes_on_to_another_limit_comes_next() -> None:
    asked: list[Waiter] = []
    nothing: Any = lambda *_: None  # noqa: E731
    wishes = Wishes(lambda waiter, *_: asked.append(waiter), nothing, nothing, nothing, nothing, nothing, nothing)
    room = SharedRoom(MemoryStore(), 1_000, wishes, {})
    gate = Bucket("gate", Limit(Resource.CONCURRENCY, 9), "", NOW)
    budget = Bucket("budget", Limit(Resource.COST, 1, "day"), "", NOW)

    def arrive() -> Waiter:
        sizing = Sized(gate, budget)
        hold = Hold(sizing.path, sizing.amounts())
        waiter = Waiter(hold, priority=5, flow="", weight=1, since=NOW, deadline=None, sizing=sizing)
        waiter.ring = lambda _: True
        room.place(waiter, NOW)
        return waiter

    def refusal(bucket: Bucket) -> Refusal:
        return Refusal(bucket, 1, 0, 1, never=False, may_free=True)

    first = arrive()
    room.answered(first, refusal(gate), 0, NOW)  # "ask again": room was made in the same batch
    second, third = arrive(), arrive()
    assert asked == [first]
    room.due(NOW + 1)
    room.answered(first, None, 0, NOW + 1)
    assert asked == [first, first, second]
    room.answered(second, refusal(budget), 0, NOW + 1)
    assert second.queue is budget.queue is third.queue  # behind it, for it may need the budget as well
    assert gate.queue is None
    assert room.waiting == 2
    room.due(NOW + 2)
    room.answered(second, None, 0, NOW + 2)
    assert asked[3:] == [second, third]


def empty_room() -> SharedRoom:
    nothing: Any = lambda *_: None  # noqa: E731

    def late(waiter: Waiter, now: int) -> None:
        room.unanswered(waiter, SLOW, now)

    room = SharedRoom(MemoryStore(), 1_000, Wishes(nothing, nothing, nothing, nothing, nothing, nothing, late), {})
    return room


def arrival(room: SharedRoom, deadline: int) -> Waiter:
    sizing = Sized(Bucket("gate", Limit(Resource.CONCURRENCY, 9), "", NOW))
    hold = Hold(sizing.path, sizing.amounts())
    waiter = Waiter(hold, priority=5, flow="", weight=1, since=NOW, deadline=deadline, sizing=sizing)
    waiter.ring = lambda _: True
    room.place(waiter, NOW)
    return waiter


def test_a_call_gives_up_on_an_answer_at_its_deadline() -> None:
    room = empty_room()
    early, late = arrival(room, NOW + 50), arrival(room, NOW + 60)
    assert room.next_time() == NOW + 50
    room.due(NOW + 50)
    assert (early.outcome, late.outcome, room.next_time()) == (SLOW, None, NOW + 60)


def test_a_call_that_does_not_wait_gives_the_store_some_seconds() -> None:
    room = empty_room()
    arrival(room, NOW)
    assert room.next_time() == NOW + 5_000


def test_deadlines_of_calls_that_are_over_are_forgotten() -> None:
    room = empty_room()
    arrival(room, NOW + 1)
    for _ in range(1_000):
        room.answered(arrival(room, NOW + 30_000), None, 0, NOW)
    assert room.next_time() == NOW + 1
    assert len(room._deadlines) < 100


def test_who_was_behind_others_asks_as_soon_as_a_slot_is_free_for_itself() -> None:
    """Nobody says that those before it have gone: a head that waits until there is room for all would wait in vain."""
    asked: list[Waiter] = []
    nothing: Any = lambda *_: None  # noqa: E731
    wishes = Wishes(lambda waiter, *_: asked.append(waiter), nothing, nothing, nothing, nothing, nothing, nothing)
    room = SharedRoom(MemoryStore(), 1_000, wishes, {})
    slots = Bucket("slots", Limit(Resource.CONCURRENCY, 5), "", NOW)
    slots.state = slots.strategy.take(slots.state, 5, NOW)
    sizing = Sized(slots)
    waiter = Waiter(Hold(sizing.path, [1]), priority=5, flow="", weight=1, since=NOW, deadline=None, sizing=sizing)
    waiter.ring = lambda _: True
    room.place(waiter, NOW)
    room.answered(waiter, Refusal(slots, 1, 0, None, never=False, may_free=True), 3, NOW)
    assert slots.queue is not None
    room.reconsider(slots.queue, NOW)
    assert asked == [waiter], "nothing has come back"
    slots.state = slots.strategy.settle(slots.state, 1, 0, NOW, NOW)
    room.reconsider(slots.queue, NOW)
    assert asked == [waiter, waiter]
