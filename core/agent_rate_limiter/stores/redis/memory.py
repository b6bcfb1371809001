"""What a process knows of a Redis store, should the server lose it: enough to go on from there."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from agent_rate_limiter.engine.port import Answer, Batch, Place, Reserve, Rule, Settle
from agent_rate_limiter.stores.codec import rule_text
from agent_rate_limiter.stores.redis.wire import parameters
from agent_rate_limiter.stores.steps import kind_of
from agent_rate_limiter.strategies import strategy_for
from agent_rate_limiter.strategies.numbers import lost_with_its_member, pack

_MOST = 10_000
"""Limits that are remembered: those that were drawn on last."""

_Amounts = Sequence[tuple[int, int]]
_States = Sequence[tuple[int, Any]]
_Hold = tuple[int, _Amounts, Sequence[Place], _States]
"""When it was taken, units of each place, the places of its batch, and their states after it."""


class RedisMemory:
    """The states of the limits that this process drew on last, its own holds, and what was learned."""

    def __init__(self) -> None:
        self._places: OrderedDict[str, tuple[Place, int, Any]] = OrderedDict()
        self._holds: dict[int, _Hold] = {}
        self._rules: dict[str, Rule] = {}

    def note(self, batch: Batch, answer: Answer) -> None:
        """Remember what came of a batch."""
        self._rules.update(answer.rules)
        places = self._places
        for place, (rev, state) in zip(batch.places, answer.states, strict=True):
            places[place.key] = (place, rev, state)
            places.move_to_end(place.key)
        while len(places) > _MOST:
            places.popitem(last=False)
        for command, result in zip(batch.commands, answer.results, strict=True):
            if isinstance(command, Settle) and command.kept:
                self._holds.pop(command.hold, None)
            elif isinstance(command, Reserve) and result is True:
                self._holds[command.hold] = (answer.now, command.amounts, batch.places, answer.states)

    @staticmethod
    def _shares(_: int, amounts: _Amounts, places: Sequence[Place], states: _States) -> list[tuple[str, str, int]]:
        rows = ((places[place], amount, states[place][1]) for place, amount in amounts)
        return [
            (place.key, kind_of(place.strategy), amount)
            for place, amount, state in rows
            if lost_with_its_member(place.strategy, state)
        ]

    @property
    def keys(self) -> list[str]:
        """The limits that it knows."""
        return list(self._places)

    def as_text(self, member: str, version: int, now: int) -> str:
        """Return all of it as `restore.lua` reads it."""
        holds = [[number, kept[0], self._shares(*kept)] for number, kept in self._holds.items()]
        rules = {key: rule_text(rule) for key, rule in self._rules.items()}
        buckets = [self._bucket(*known, now) for known in self._places.values()]
        return json.dumps([member, version, buckets, holds, rules])

    def _bucket(self, place: Place, rev: int, state: Any, now: int) -> list[Any]:
        rule = self._rules.get(place.key)
        strategy = place.strategy if rule is None or rev <= place.rev else strategy_for(rule.limit)
        override = parameters(Place(place.key, strategy, rev), now) if rev else False
        return [place.key, kind_of(strategy), rev, override, pack(strategy, state)]
