"""When the head of a process's queue asks the store again, and how long its place in line is kept meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from agent_rate_limiter.admission import Bucket, Refusal
from agent_rate_limiter.engine.port import Hold
from agent_rate_limiter.engine.queue import ADMITTED, Waiter
from agent_rate_limiter.engine.shared_room import SLOW, SharedRoom, Wishes
from agent_rate_limiter.engine.waiting_room import queued
from agent_rate_limiter.limits import Limit, Resource
from agent_rate_limiter.stores.memory import MemoryStore
from tests.core.shared.test_shared_room import Sized

NOW = 1_767_225_600_000
RPM = Limit(Resource.REQUESTS, 10, "minute")


class Engine:
    """What a room wants of its engine."""

    def __init__(self, bounds: dict[int | None, int] | None = None) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.room = SharedRoom(
            MemoryStore(),
            1_000,
            Wishes(
                lambda waiter, standing, rank: self.said.append(("ask", waiter, standing and standing.key, rank)),
                lambda waiter, queue, rank, lasting: self.said.append(("stand", waiter, rank, lasting)),
                lambda bucket: self.said.append(("leave", bucket.key)),
                lambda hold, now: self.said.append(("open", hold)),
                lambda hold, now: self.said.append(("undo", hold)),
                lambda waiter, refusal, now: self.said.append(("waits", waiter, refusal.wait)),
                self._late,
            ),
            bounds or {},
        )
        self.slots = Bucket("slots", Limit(Resource.CONCURRENCY, 3), "", NOW)
        self.rpm = Bucket("rpm", RPM, "", NOW)

    def _late(self, waiter: Waiter, now: int) -> None:
        self.said.append(("late", waiter))
        self.room.unanswered(waiter, SLOW, now)

    def heard(self, *words: str) -> list[tuple[Any, ...]]:
        """What was said since the last look, of these kinds."""
        found = [said for said in self.said if said[0] in words]
        self.said.clear()
        return found

    def arrive(
        self, *path: Bucket, priority: int = 5, deadline: int | None = None, now: int = NOW, alive: bool = True
    ) -> Waiter:
        sizing = Sized(*(path or (self.rpm,)))
        hold = Hold(sizing.path, sizing.amounts())
        waiter = Waiter(hold, priority=priority, flow="", weight=1, since=NOW, deadline=deadline, sizing=sizing)
        waiter.ring = lambda _: alive
        self.room.place(waiter, now)
        return waiter

    def refuse(self, waiter: Waiter, bucket: Bucket, wait: int | None, *, ahead: int = 0, now: int = NOW) -> None:
        refusal = Refusal(bucket, 1, 0, wait, never=False, may_free=True)
        self.room.answered(waiter, refusal, ahead, now)

    def wait_on(self, bucket: Bucket, wait: int | None = 700, ahead: int = 0) -> Waiter:
        """Let a call come, and be told to wait."""
        waiter = self.arrive(bucket)
        self.refuse(waiter, bucket, wait, ahead=ahead)
        self.said.clear()
        return waiter


def refused(waiter: Waiter) -> bool:
    return isinstance(waiter.outcome, Refusal)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.mark.parametrize(("wait", "told"), [(700, 700), (1, 1), (0, 1), (5_000, 5_000), (60_000, 5_000), (None, 1_000)])
def test_a_head_asks_again_when_it_was_told_to_and_keeps_its_place_half_a_second_longer(
    engine: Engine, wait: int | None, told: int
) -> None:
    waiter = engine.arrive()
    engine.refuse(waiter, engine.rpm, wait)
    assert engine.heard("ask", "stand", "waits") == [
        ("ask", waiter, None, 5),
        ("waits", waiter, wait),
        ("stand", waiter, 5, told + 500),
    ]
    assert engine.room.next_time() == NOW + told
    engine.room.due(NOW + told - 1)
    assert engine.heard("ask") == []
    engine.room.due(NOW + told)
    (again,) = engine.heard("ask")
    assert again[1:3] == (waiter, "rpm")


def test_a_head_is_told_anew_when_more_go_before_it_than_it_was_told(engine: Engine) -> None:
    waiter = engine.wait_on(engine.rpm, ahead=2)
    queue: Any = engine.rpm.queue
    engine.rpm.state = engine.rpm.strategy.take(engine.rpm.state, 10, NOW)
    engine.room.standing(queue, waiter, 2, NOW)
    engine.room.standing(queue, engine.arrive(), 9, NOW)
    assert engine.heard("stand") == []
    engine.room.standing(queue, waiter, 3, NOW)
    assert engine.heard("stand") == [("stand", waiter, 5, 5_500)]
    engine.rpm.state = engine.rpm.strategy.settle(engine.rpm.state, 10, 6, NOW, NOW)
    engine.room.standing(queue, waiter, 4, NOW)
    assert engine.heard("stand") == [("stand", waiter, 5, 5_500)], "five are wanted, four are free: six seconds"
    assert engine.room.next_time() == NOW + 5_000


def test_a_head_whose_turn_has_come_asks_whatever_it_was_told(engine: Engine) -> None:
    waiter = engine.wait_on(engine.rpm)
    queue: Any = engine.rpm.queue
    engine.room.called(queue, NOW)
    engine.room.called(queue, NOW)
    assert engine.heard("ask") == [("ask", waiter, "rpm", 5)], "once: it has not been answered yet"


def test_a_head_that_waits_for_the_answer_is_not_asked_for_again(engine: Engine) -> None:
    engine.wait_on(engine.rpm)
    queue: Any = engine.rpm.queue
    engine.room.reconsider(queue, NOW)
    assert len(engine.heard("ask")) == 1, "there is room"
    engine.room.reconsider(queue, NOW)
    engine.room.serve_all(NOW)
    assert engine.heard("ask") == []


def test_whoever_has_gone_gives_back_what_the_store_gives_it(engine: Engine) -> None:
    waiter = engine.arrive()
    engine.room.withdraw(waiter, NOW)
    assert engine.room.busy is False
    engine.room.answered(waiter, None, 0, NOW)
    assert engine.heard("open", "undo") == [("open", waiter.hold), ("undo", waiter.hold)]
    gone = engine.arrive()
    engine.room.withdraw(gone, NOW)
    engine.refuse(gone, engine.rpm, 700)
    engine.room.unanswered(gone, SLOW, NOW)
    assert gone.outcome is None
    assert engine.heard("open", "undo", "stand") == []


@pytest.mark.parametrize("waits", [False, True])
def test_whose_event_loop_is_gone_gives_back_what_the_store_gives_it(engine: Engine, *, waits: bool) -> None:
    waiter = engine.arrive(alive=False)
    if waits:
        engine.refuse(waiter, engine.rpm, 700)
        engine.room.called(waiter.queue, NOW)  # type: ignore[arg-type]
    engine.heard()
    engine.room.answered(waiter, None, 0, NOW)
    assert waiter.outcome is ADMITTED
    assert engine.heard("open", "undo", "leave") == [("open", waiter.hold), ("undo", waiter.hold)]


def test_who_is_admitted_has_left_the_line_and_who_gives_up_says_so(engine: Engine) -> None:
    waiter = engine.wait_on(engine.rpm)
    engine.room.due(NOW + 700)
    engine.room.answered(waiter, None, 0, NOW + 700)
    assert engine.heard("leave") == [], "the store has let it out"
    waiter = engine.wait_on(engine.rpm)
    engine.room.withdraw(waiter, NOW)
    assert engine.heard("leave") == [("leave", "rpm")]
    waiter = engine.wait_on(engine.rpm)
    engine.room.due(NOW + 700)
    never = Refusal(engine.rpm, 1, 0, None, never=True, may_free=False)
    engine.room.answered(waiter, never, 0, NOW + 700)
    assert waiter.outcome is never
    assert engine.heard("leave") == [("leave", "rpm")]


def test_a_call_that_does_not_wait_is_refused_where_others_wait_before_it(engine: Engine) -> None:
    head = engine.wait_on(engine.slots)
    late = engine.arrive(engine.slots, deadline=NOW)
    assert refused(late)
    assert engine.heard("ask") == []
    urgent = engine.arrive(engine.slots, priority=1, deadline=NOW)
    assert not refused(urgent)
    assert engine.heard("ask") == [("ask", urgent, None, 1)]
    engine.refuse(urgent, engine.slots, None)
    assert refused(urgent)
    assert (head.outcome, engine.room.everybody, engine.room.waiting) == (None, 1, 1)


def test_who_waits_behind_others_is_told_what_goes_before_it(engine: Engine) -> None:
    engine.rpm.state = engine.rpm.strategy.take(engine.rpm.state, 10, NOW)
    first = engine.wait_on(engine.rpm)
    second = engine.arrive()
    assert engine.heard("ask", "waits") == [("waits", second, 12_000)], "two units, one each six seconds"
    assert engine.room.everybody == 2
    assert queued(engine.rpm, 1, 1, NOW).wait == 12_000
    engine.room.called(first.queue, NOW)  # type: ignore[arg-type]
    engine.heard()
    engine.room.answered(first, None, 0, NOW)
    assert engine.heard("stand", "ask") == [("stand", second, 5, 5_500)], "plainly, it has to wait: it need not ask"


def test_the_next_asks_where_it_may_fit_and_is_refused_where_it_cannot_wait(engine: Engine) -> None:
    engine.slots.state = engine.slots.strategy.take(engine.slots.state, 2, NOW)
    first = engine.wait_on(engine.slots)
    second = engine.arrive(engine.slots)
    engine.room.called(first.queue, NOW)  # type: ignore[arg-type]
    engine.heard()
    engine.room.answered(first, None, 0, NOW)
    assert engine.heard("ask", "stand") == [("ask", second, "slots", 5)]


def test_the_next_whose_time_will_be_up_is_sent_away(engine: Engine) -> None:
    engine.rpm.state = engine.rpm.strategy.take(engine.rpm.state, 10, NOW)
    first, hurried = engine.wait_on(engine.rpm), engine.arrive(deadline=NOW + 13_000)
    last = engine.arrive()
    assert not refused(hurried), "two units are there in 12 seconds"
    engine.rpm.state = engine.rpm.strategy.settle(engine.rpm.state, 0, 5, NOW, NOW)
    engine.room.called(first.queue, NOW)  # type: ignore[arg-type]
    engine.heard()
    engine.room.answered(first, None, 0, NOW)
    assert refused(hurried)
    assert engine.heard("ask", "stand") == [("stand", last, 5, 5_500)]


def test_while_the_store_is_lost_the_next_is_asked_for_whatever_the_copies_say(engine: Engine) -> None:
    engine.rpm.state = engine.rpm.strategy.take(engine.rpm.state, 10, NOW)
    first, second = engine.wait_on(engine.rpm), engine.arrive()
    engine.room.called(first.queue, NOW)  # type: ignore[arg-type]
    engine.room.blind = True
    engine.heard()
    engine.room.answered(first, None, 0, NOW)
    assert engine.heard("ask", "stand") == [("ask", second, "rpm", 5)]


def test_what_all_were_told_is_forgotten_when_the_store_is_back(engine: Engine) -> None:
    waiters = [engine.wait_on(bucket) for bucket in (engine.rpm, engine.slots)]
    engine.room.recall_all(NOW)
    assert [said[1] for said in engine.heard("ask")] == waiters


def test_what_is_given_back_while_the_store_is_lost_serves_those_who_wait_for_it(engine: Engine) -> None:
    waiter = engine.wait_on(engine.slots)
    engine.room.serve_freed(Hold((engine.rpm, engine.slots), [1, 1]), NOW)
    assert engine.heard("ask") == [("ask", waiter, "slots", 5)]


def test_everybody_is_sent_away_asked_for_or_not(engine: Engine) -> None:
    waits, asked = engine.wait_on(engine.slots), engine.arrive()
    engine.room.abandon_all(SLOW, NOW)
    assert (waits.outcome, asked.outcome) == (SLOW, SLOW)
    assert (engine.room.everybody, engine.room.busy, engine.room.queues()) == (0, False, [])
    assert engine.heard("leave") == [("leave", "slots")]


def test_all_who_wait_are_counted_in_a_queue_or_for_the_answer_alone(engine: Engine) -> None:
    engine.arrive()
    assert (engine.room.busy, engine.room.everybody) == (True, 1)
    engine.wait_on(engine.slots)
    assert (engine.room.busy, engine.room.everybody) == (True, 2)


def test_a_call_follows_limits_that_were_learned_and_says_once_that_it_waits(engine: Engine) -> None:
    waiter = engine.wait_on(engine.rpm)
    waiter.sizing = Sized(engine.rpm, engine.slots)
    engine.room.due(NOW + 700)
    assert waiter.hold.path == (engine.rpm, engine.slots)
    engine.refuse(waiter, engine.rpm, 700, now=NOW + 700)
    assert engine.heard("waits") == []


def test_who_comes_in_behind_others_stands_in_no_line(engine: Engine) -> None:
    calm, urgent = engine.arrive(priority=9), engine.arrive(priority=5)
    engine.refuse(urgent, engine.rpm, 700)
    engine.heard()
    engine.refuse(calm, engine.rpm, 700)
    assert engine.heard("stand") == []
    assert engine.room.waiting == 2


def test_who_finds_a_full_queue_when_it_is_refused_is_told_so() -> None:
    engine = Engine({None: 1})
    first, second = engine.arrive(), engine.arrive()
    rung: list[Any] = []

    def ring(bell: Any) -> bool:
        rung.append(bell)
        return True

    second.ring = ring
    for waiter in (first, second):
        engine.refuse(waiter, engine.rpm, 700)
    assert not refused(first)
    assert isinstance(second.outcome, Refusal)
    assert second.outcome.crowd == 1
    assert rung == [second.bell]
    assert engine.room.everybody == 1


def test_what_others_wait_for_is_not_asked_for_though_it_would_do_for_the_head(engine: Engine) -> None:
    waiter = engine.wait_on(engine.rpm, ahead=3)
    queue: Any = engine.rpm.queue
    engine.rpm.state = engine.rpm.strategy.take(engine.rpm.state, 7, NOW)
    engine.room.reconsider(queue, NOW)
    assert engine.heard("ask") == []
    engine.rpm.state = engine.rpm.strategy.settle(engine.rpm.state, 1, 0, NOW, NOW)
    engine.room.reconsider(queue, NOW)
    assert engine.heard("ask") == [("ask", waiter, "rpm", 5)]


def test_a_head_that_was_told_to_wait_is_not_asked_for_before(engine: Engine) -> None:
    engine.wait_on(engine.rpm)
    engine.room.serve_all(NOW + 699)
    assert engine.heard("ask") == []
    assert engine.room.next_time() == NOW + 700


def test_a_head_waits_until_its_deadline_and_no_longer(engine: Engine) -> None:
    waiter = engine.arrive(deadline=NOW + 3_000)
    engine.refuse(waiter, engine.rpm, 10_000)
    assert engine.room.next_time() == NOW + 3_000
    engine.room.due(NOW + 3_000)
    assert refused(waiter)
    assert engine.heard("leave", "late") == [("leave", "rpm")]


def test_whoever_has_its_answer_is_not_late(engine: Engine) -> None:
    waiter = engine.arrive(deadline=NOW + 50)
    engine.room.answered(waiter, None, 0, NOW)
    engine.room.due(NOW + 50)
    assert engine.heard("late") == []


def test_of_many_deadlines_the_first_comes_first(engine: Engine) -> None:
    kept = [engine.arrive(deadline=NOW + 1_000 + 37 * number % 101) for number in range(1, 41)]
    for number in range(300):
        engine.room.answered(engine.arrive(deadline=NOW + 500 + number), None, 0, NOW)
    for waiter in sorted(kept, key=lambda waiter: waiter.deadline or 0):
        assert engine.room.next_time() == waiter.deadline
        engine.room.due(waiter.deadline or 0)
        assert waiter.outcome == SLOW
