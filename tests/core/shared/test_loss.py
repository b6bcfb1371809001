"""When a lost store is tried again, what is said of it, and what is owed when it is back."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from agent_rate_limiter.admission import Bucket, Refusal
from agent_rate_limiter.engine.loss import FAIL_CLOSED, FAIL_OPEN, LOCAL, Loss
from agent_rate_limiter.engine.port import Answer, Hold
from agent_rate_limiter.limits import Limit, Resource
from agent_rate_limiter.stores.known import share_of

NOW = 1_767_225_600_000
ERROR = OSError("It is gone.")
RPM = Limit(Resource.REQUESTS, 10, "minute")


def loss(policy: str = LOCAL) -> Loss:
    return Loss(policy, share_of)


def answer(now: int = NOW, members: int = 1) -> Answer:
    return Answer(now, members, [], [], {})


def bucket(limit: Limit = RPM, used: int = 0) -> Bucket:
    found = Bucket(limit.name, limit, "", NOW)
    found.state = found.strategy.settle(found.state, 0, used, NOW, NOW)
    return found


def test_it_is_tried_again_soon_then_less_often_and_each_process_at_its_own_time() -> None:
    pauses: list[set[int]] = [set() for _ in range(16)]
    for _ in range(200):
        one = loss()
        for found in pauses:
            one.lost(ERROR, NOW)
            found.add(one.retry_at - NOW)
    for tries, found in enumerate(pauses):
        longest = min(100 * 2**tries, 2_000)
        assert longest / 2 <= min(found) < 0.6 * longest
        assert 0.9 * longest < max(found) <= longest


def test_once_found_it_is_tried_again_as_soon_as_at_first() -> None:
    one = loss()
    for _ in range(8):
        one.lost(ERROR, NOW)
    one.found(answer())
    one.lost(ERROR, NOW)
    assert one.retry_at <= NOW + 100


@pytest.mark.parametrize(
    ("policy", "means"),
    [
        (FAIL_CLOSED, "calls are refused"),
        (FAIL_OPEN, "calls are admitted without limits"),
        (LOCAL, "calls are admitted by this process's share of the limits"),
    ],
)
def test_each_loss_is_told_once(policy: str, means: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    one, told = loss(policy), list[tuple[str, float | None]]()
    one.told = lambda *what: told.append(what)
    assert one.found(answer()) is False
    assert [one.lost(ERROR, NOW), one.lost(OSError("Still gone."), NOW + 100)] == [True, False]
    assert (one.since, one.reason) == (NOW, "Still gone.")
    assert [one.found(answer(NOW + 2_500)), one.found(answer(NOW + 2_600))] == [True, False]
    assert (one.since, one.reason) == (None, "")
    assert told == [("It is gone.", None), ("", 2.5)]
    assert caplog.messages == [
        f"It is gone. Until it is back, {means} (on_store_error={policy!r}).",
        "The store is back after 2.5 s.",
    ]


@pytest.mark.parametrize(("members", "share"), [(0, 6), (1, 6), (2, 3), (3, 2)])
def test_a_share_is_what_was_left_by_how_many_were_alive(members: int, share: int) -> None:
    one, rpm = loss(), bucket(used=4)
    one.found(answer(members=members))
    one.lost(ERROR, NOW)
    found = [one.decide(Hold((rpm,), (1,)), NOW) for _ in range(share + 1)]
    assert found[:-1] == [None] * share
    refusal = found[-1]
    assert isinstance(refusal, Refusal)
    assert refusal.bucket is rpm, "the limit that everybody knows, not the share"


def test_a_share_that_is_given_back_can_be_taken_again() -> None:
    one, slots = loss(), bucket(Limit(Resource.CONCURRENCY, 1))
    other = bucket(used=3)
    one.lost(ERROR, NOW)
    call = Hold((other, slots), (1, 1))
    assert one.decide(call, NOW) is None
    assert isinstance(one.decide(Hold((slots,), (1,)), NOW), Refusal)
    call.taken_at = NOW
    one.settle(call, [0, 0], NOW)
    one.settle(Hold((bucket(used=1),), (1,)), [1], NOW)  # a limit that nothing was taken from meanwhile
    assert one.decide(Hold((slots,), (1,)), NOW) is None
    assert [one.decide(Hold((other,), (1,)), NOW) is None for _ in range(8)] == [True] * 7 + [False]


def test_after_a_loss_shares_are_reckoned_anew() -> None:
    one, rpm = loss(), bucket(used=9)
    one.lost(ERROR, NOW)
    assert [one.decide(Hold((rpm,), (1,)), NOW) is None for _ in range(2)] == [True, False]
    one.found(answer())
    one.lost(ERROR, NOW)
    assert one.decide(Hold((rpm,), (1,)), NOW) is None


def test_what_the_store_did_not_hear_is_owed_less_what_was_refilled() -> None:
    one, rpm, day = loss(FAIL_OPEN), bucket(), bucket(Limit(Resource.REQUESTS, 9, "day", strategy="fixed_window"))
    call = Hold((rpm, day), (1, 1))
    call.taken_at = NOW
    assert one.unheard(call, [1, 1]) == [1, 1], "it is there, and hears of it itself"
    one.lost(ERROR, NOW)
    for after in (0, 12_000):
        call.taken_at = NOW + after
        assert one.unheard(call, [3, 1]) == [0, 1], "what does not refill is told as it is"
    assert one.unheard(call, [0, 1]) == [0, 1]
    assert one.owed(NOW + 18_000) == [(rpm, 3)], "three less two refilled, and three less one"
    assert one.owed(NOW + 18_000) == []


def test_what_is_refilled_by_then_is_not_owed() -> None:
    one, rpm = loss(FAIL_OPEN), bucket()
    one.lost(ERROR, NOW)
    call: Any = Hold((rpm,), (1,))
    call.taken_at = NOW
    one.unheard(call, [2])
    assert one.owed(NOW + 12_000) == []


@pytest.mark.parametrize(("told", "owed"), [([(0, 1), (12_000, 3)], 3), ([(12_000, 3), (0, 1)], 4)])
def test_only_time_that_was_not_counted_yet_refills(told: list[tuple[int, int]], owed: int) -> None:
    """What is told of late was used by then: it may be owed more, never less."""
    one, rpm = loss(FAIL_OPEN), bucket()
    one.lost(ERROR, NOW)
    call = Hold((rpm,), (1,))
    for after, used in told:
        call.taken_at = NOW + after
        one.unheard(call, [used])
    assert one.owed(NOW + 12_000) == [(rpm, owed)]


def test_a_single_unit_is_owed() -> None:
    one, rpm = loss(FAIL_OPEN), bucket()
    one.lost(ERROR, NOW)
    call = Hold((rpm,), (1,))
    call.taken_at = NOW
    one.unheard(call, [1])
    assert one.owed(NOW) == [(rpm, 1)]
