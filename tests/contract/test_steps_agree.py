"""Random batches of several members: SQLite, which runs steps.py, and Redis, which runs step.lua, answer alike.

Unlike the long trace of test_stores_agree.py these stand in lines, learn rules, close gates, and fall silent.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_rate_limiter.engine.port import (
    Answer,
    Batch,
    Command,
    Correct,
    Leave,
    Place,
    Reserve,
    Rule,
    Settle,
    SharedStore,
    Stand,
    Write,
)
from agent_rate_limiter.engine.verdicts import translated
from agent_rate_limiter.limits import Limit, Resource
from agent_rate_limiter.stores.redis.store import RedisStore
from agent_rate_limiter.stores.redis.uri import RedisAddress
from agent_rate_limiter.stores.sqlite.store import SQLiteStore
from agent_rate_limiter.strategies import GATE, gate, strategy_for
from tests.contract.opened import SHARED, server

NOW = 1_795_667_123_457
LEASE = 100_000
PATIENCE = 300
"""Milliseconds; some heads come back in time, and some do not."""
LIMITS = [
    GATE,
    Limit(Resource.REQUESTS, 7, 3.1, burst=5),
    Limit(Resource.TOKENS, 11, 5.3, strategy="sliding_window"),
    Limit(Resource.COST, 9e-9, "day", strategy="sliding_window"),
    Limit(Resource.COST, 12e-9, "day", timezone="Asia/Tokyo"),
    Limit(Resource.REQUESTS, 9, 7, strategy="fixed_window"),
    Limit(Resource.CONCURRENCY, 4),
]
"""Small numbers, so that most things are refused now and then."""
KEYS = [f"{number} {limit.name}" for number, limit in enumerate(LIMITS)]


class Move(NamedTuple):
    """What a member wants; the numbers mean whatever its kind makes of them."""

    kind: str
    places: int
    one: int
    two: int
    three: int


class Step(NamedTuple):
    """Milliseconds after the last one, a member sends these."""

    after: int
    member: int
    moves: list[Move]


_KINDS = ["reserve"] * 4 + ["settle"] * 3 + ["correct", "stand", "stand", "leave", "close", "learn"]
_MOVE = st.builds(
    Move,
    st.sampled_from(_KINDS),
    st.integers(1, 2 ** len(LIMITS) - 1),
    st.integers(0, 6),
    st.integers(0, 3),
    st.integers(0, 6),
)
_AFTER = st.sampled_from([0, 0, 1, 40, 700, 3_001, LEASE + 1_001])  # the last: nobody is alive any more
_STEPS = st.lists(st.builds(Step, _AFTER, st.integers(0, 2), st.lists(_MOVE, max_size=4)), max_size=25)


class Member:
    """One process: what it knows, and what it sends to both stores."""

    def __init__(self, name: str, stores: list[SharedStore]) -> None:
        self.name = name
        self.stores = stores
        self.numbers = count(1)
        self.known: list[tuple[int, Any, Any]] = [
            (0, strategy_for(limit), strategy_for(limit).initial(NOW)) for limit in LIMITS
        ]
        self.seen: list[list[Any]] = [[state for _, _, state in self.known] for _ in stores]
        self.rules: dict[str, Rule] = {}
        self.learned = False
        self.open: list[tuple[Reserve, bool, int]] = []

    def step(self, moves: list[Move], now: int) -> None:
        """Send a batch to each store; their answers are the same."""
        if any(move.kind in {"learn", "close"} for move in moves):
            self._send([], now)  # who writes has read before
        self._send(moves, now)

    def _send(self, moves: list[Move], now: int) -> None:
        self.learned = False
        commands = [command for move in moves if (command := self._command(move, now)) is not None]
        commands.sort(key=lambda command: not isinstance(command, Write))  # they are made of what was seen before
        places = [Place(key, known[1], known[0]) for key, known in zip(KEYS, self.known, strict=True)]
        batch = Batch(self.name, next(self.numbers), LEASE, places, commands)
        answers = [
            store.run(self._as_seen(batch, seen), now) for store, seen in zip(self.stores, self.seen, strict=True)
        ]
        self._hear(batch, answers[0])
        ours, theirs = (self._comparable(answer) for answer in answers)
        assert theirs == ours
        self.seen = [[state for _, state in answer.states] for answer in answers]

    def _as_seen(self, batch: Batch, seen: list[Any]) -> Batch:
        """Stores keep idle states in different words; who writes says what it has read there."""

        def read(write: Write) -> Write:
            return write._replace(before=translated(seen[write.place], self.known[write.place][1], write.strategy))

        return batch._replace(commands=[read(c) if isinstance(c, Write) else c for c in batch.commands])

    def _comparable(self, answer: Answer) -> Any:
        results = [tuple(found) if isinstance(found, (list, tuple)) else (found or 0) for found in answer.results]
        states = [
            (rev, known[1].settle(state, 0, 0, answer.now, answer.now))
            for known, (rev, state) in zip(self.known, answer.states, strict=True)
        ]
        return answer.now, answer.members, results, states, dict(answer.rules)

    def _hear(self, batch: Batch, answer: Answer) -> None:
        self.rules.update(answer.rules)
        for command, result in zip(batch.commands, answer.results, strict=True):
            if isinstance(command, Reserve) and isinstance(result, bool):
                self.open.append((command, result, answer.now))
            elif isinstance(command, Write) and command.rule is not None and result:
                self.rules[batch.places[command.place].key] = command.rule
        for place, (rev, state) in zip(batch.places, answer.states, strict=True):
            number = int(place.key[0])
            limit = self.rules[place.key].limit if rev else LIMITS[number]
            self.known[number] = (rev, strategy_for(limit), state)

    def _command(self, move: Move, now: int) -> Command | None:
        chosen = [place for place in range(len(LIMITS)) if move.places >> place & 1]
        first = chosen[0]
        if move.kind == "reserve":
            amounts = tuple((place, 1 if place in {0, 6} else 1 + move.one) for place in chosen)
            return Reserve(next(self.numbers), move.two, first if move.three > 3 else -1, amounts)
        if move.kind == "settle":
            return self._settle(move)
        if move.kind == "correct":
            return Correct(
                now - 1_000 * move.three, tuple((place, move.one - 3) for place in chosen if place not in {0, 6})
            )
        if move.kind == "stand":
            return Stand(
                first,
                move.three % 3,
                move.two,
                "ab"[move.one % 2],
                1 + move.one,
                1 + move.two,
                PATIENCE * move.one,
            )
        if move.kind == "leave":
            return Leave(first)
        return self._write(move, now)

    def _settle(self, move: Move) -> Command | None:
        if not self.open:
            return None
        end, kept, at = self.open.pop(move.three % len(self.open))
        changes = (
            (place, taken, 0 if place in {0, 6} else max(0, taken + move.one - 4)) for place, taken in end.amounts
        )
        return Settle(end.hold, kept, at, tuple(changes))

    def _write(self, move: Move, now: int) -> Command | None:
        if move.kind == "close":
            _, strategy, before = self.known[0]
            return Write(0, before, gate.closed(before, now + 500 * move.one, now), strategy, None)
        if self.learned:  # one change of a rule at a time
            return None
        self.learned = True
        rev, old, before = self.known[1]
        limit = Limit(Resource.REQUESTS, 2 + move.one, 3.1, burst=2 + move.two)
        strategy = strategy_for(limit)
        before = translated(before, old, strategy)
        self.known[1] = (rev, strategy, before)  # who has learned it counts so from here on
        return Write(
            1,
            before if move.two else None,
            (move.three, now),
            strategy,
            Rule(rev + 1, limit, "openai:gpt", move.three > 3),
        )


_examples = count()


def _run(name: str, steps: Iterable[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "limits.db"
        address = RedisAddress(f"{server(name).uri}?namespace=agree-{next(_examples)}")
        members = [Member(who, [SQLiteStore(file), RedisStore(address)]) for who in "abc"]
        now = NOW
        for step in steps:
            now += step.after
            members[step.member].step(step.moves, now)
        for member in members:
            for store in member.stores:
                store.close()


SERVERS = [name for name in SHARED if name != "sqlite"]


@pytest.mark.parametrize("name", SERVERS)
@settings(max_examples=40, deadline=None)
@given(steps=_STEPS)
def test_the_same_batches_are_answered_alike(name: str, steps: list[Step]) -> None:
    _run(name, steps)


@pytest.mark.parametrize("name", SERVERS)
def test_a_long_trace_is_answered_alike(name: str) -> None:
    """Mostly small calls that come soon after each other: lines are long, and what was noted long ago still counts."""
    dice = random.Random(11)

    def move() -> Move:
        places = sum({1 << dice.randrange(len(LIMITS)) for _ in range(dice.randint(1, 3))})
        return Move(dice.choice(_KINDS), places, dice.randint(0, 6), dice.randint(0, 3), dice.randint(0, 6))

    def step() -> Step:
        after = dice.choice((0, 0, 0, 1, 1, 40, 700, 3_001 if dice.random() < 0.3 else 90))
        if dice.random() < 0.004:
            after = LEASE + 1_001
        return Step(after, dice.randrange(3), [move() for _ in range(dice.randint(0, 4))])

    _run(name, [step() for _ in range(1_000)])
