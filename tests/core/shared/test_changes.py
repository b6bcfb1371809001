"""Changes to limits on their way to the store: when they go, as how many, and what becomes of those that come late."""

from __future__ import annotations

from typing import Any

import pytest

from agent_rate_limiter import Limit, Resource
from agent_rate_limiter.admission import Bucket
from agent_rate_limiter.engine.changes import Changes
from agent_rate_limiter.engine.outbox import Outbox, Parcel
from agent_rate_limiter.engine.port import Leave, Write
from agent_rate_limiter.strategies import strategy_for

NOW = 1_767_225_600_000
RPM = Limit(Resource.REQUESTS, 60, "minute")


@pytest.fixture
def outbox() -> Outbox:
    return Outbox("me", 10_000)


@pytest.fixture
def changes(outbox: Outbox) -> Changes:
    return Changes(outbox, lambda _: False)


@pytest.fixture
def bucket() -> Bucket:
    return Bucket("openai:gpt|rpm", RPM, "", NOW)


def use(changes: Changes, bucket: Bucket, units: int) -> None:
    """Say that more was used than is known."""
    was = bucket.state, bucket.limit, bucket.strategy
    bucket.state = bucket.strategy.settle(bucket.state, 0, units, NOW, NOW)
    changes.note(bucket, was)


def used(bucket: Bucket, state: Any = None) -> int:
    return 60 - bucket.strategy.available(bucket.state if state is None else state, NOW)


def writes(parcel: Parcel) -> list[tuple[int, int]]:
    """What each says was used before, and what after it."""
    bucket = Bucket("", RPM, "", NOW)
    found = [command for command in parcel.batch.commands if isinstance(command, Write)]
    return [(used(bucket, write.before), used(bucket, write.after)) for write in found]


def test_many_of_one_limit_are_one_and_go_before_what_was_wanted_meanwhile(
    outbox: Outbox, changes: Changes, bucket: Bucket
) -> None:
    other = Bucket("openai:gpt|other", RPM, "", NOW)
    outbox.put(lambda place: Leave(place(bucket)))
    for _ in range(5):
        use(changes, bucket, 2)
        use(changes, other, 1)
    parcel = outbox.pack()
    assert [type(command) for command in parcel.batch.commands] == [Write, Write, Leave]
    assert sorted(writes(parcel)) == [(0, 5), (0, 10)]


def test_what_comes_after_it_was_sent_is_another(outbox: Outbox, changes: Changes, bucket: Bucket) -> None:
    use(changes, bucket, 2)
    assert writes(outbox.pack()) == [(0, 2)]
    use(changes, bucket, 3)
    assert writes(outbox.pack()) == [(2, 5)]


def test_another_rule_is_a_change_of_its_own(outbox: Outbox, changes: Changes, bucket: Bucket) -> None:
    use(changes, bucket, 2)
    was = bucket.state, bucket.limit, bucket.strategy
    lower = Limit(Resource.REQUESTS, 30, "minute")
    bucket.obey(lower, strategy_for(lower))
    changes.note(bucket, was)
    first, second = (command for command in outbox.pack().batch.commands if isinstance(command, Write))
    assert (first.rule, first.before) == (None, (0, NOW))
    assert second.rule is not None
    assert (second.rule.rev, second.rule.limit) == (1, lower)


def test_whoever_is_late_works_it_into_what_is_there(outbox: Outbox, changes: Changes, bucket: Bucket) -> None:
    use(changes, bucket, 2)
    parcel = outbox.pack()
    bucket.state = bucket.strategy.settle(bucket.strategy.initial(NOW), 0, 7, NOW, NOW)  # by others
    parcel.wishes[0].hear(False, NOW)  # noqa: FBT003 - the answer
    use(changes, bucket, 1)
    assert used(bucket) == 10
    assert writes(outbox.pack()) == [(7, 10)]


def test_a_state_that_is_written_is_not_set_back_to_what_was_written(
    outbox: Outbox, changes: Changes, bucket: Bucket
) -> None:
    use(changes, bucket, 2)
    parcel = outbox.pack()
    bucket.state = bucket.strategy.settle(bucket.state, 0, 7, NOW, NOW)  # by what came after it in the batch
    parcel.wishes[0].hear(True, NOW)  # noqa: FBT003 - the answer
    assert used(bucket) == 9
    assert not outbox.wishes


def test_what_was_not_sent_when_the_store_was_lost_is_old(outbox: Outbox, changes: Changes, bucket: Bucket) -> None:
    use(changes, bucket, 2)
    assert not outbox.wishes.pop().lost(NOW)
    use(changes, bucket, 3)
    assert writes(outbox.pack()) == [(2, 5)]
