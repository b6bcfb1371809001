"""Batches as `step.lua` reads them, and its answers as the engine does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

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
    Stand,
    Write,
)
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.stores.codec import rule_of, rule_text
from agent_rate_limiter.stores.steps import kind_of, lasting
from agent_rate_limiter.strategies import FixedWindow, Gate, SlidingWindow, Strategy, TokenBucket, strategy_for
from agent_rate_limiter.strategies.numbers import pack, unpack

_VERBS = {Reserve: "r", Settle: "s", Correct: "c", Stand: "t", Leave: "l", Write: "w"}
_json = json.JSONEncoder(separators=(",", ":")).encode
_EXACT = 1 << 53
"""Doubles hold every whole number below; Lua has no others."""


def encode(batch: Batch, now: int | None, about: int, seen: int, known: str) -> str:
    """Return a batch as JSON, in as few arrays as that can be: the script makes a table of each.

    Args:
        batch: what to do.
        now: epoch milliseconds; None for the server's time.
        about: epoch milliseconds, as far as it is known here: calendars are not known there.
        seen: the version of the rules that are known here.
        known: the incarnation of the data that is known here; empty at first.
    """
    places, commands = batch.places, batch.commands
    kinds = "".join([kind_of(place.strategy) for place in places])
    revisions = [place.rev for place in places]
    numbers = [parameters(place, about) for place in places]
    verbs = "".join([_VERBS[command.__class__] for command in commands])
    told = [_told(command, places) for command in commands]
    sender = (batch.number, now or 0, batch.member, batch.lease, seen, known)
    return _json([*sender, kinds, revisions, numbers, verbs, told])


def parameters(place: Place, now: int) -> Sequence[int]:
    """Return a strategy as numbers.

    Raises:
        ConfigError: it needs larger ones than the server can count with.
    """
    strategy: Any = place.strategy
    if isinstance(strategy, TokenBucket):
        return _exact(place, strategy.unit, strategy.leak, strategy.capacity * strategy.unit)
    if isinstance(strategy, SlidingWindow):
        most = strategy.capacity if strategy.enforced else -1
        return _exact(place, most, strategy.period, strategy.width, int(strategy.refunds))
    if isinstance(strategy, FixedWindow):
        return _exact(place, strategy.capacity if strategy.enforced else -1, *strategy.bounds(now, lasting(place.key)))
    return (strategy.initial(0).window,) if isinstance(strategy, Gate) else (strategy.capacity,)


def _exact(place: Place, *numbers: int) -> Sequence[int]:
    if max(numbers) >= _EXACT // 2:
        raise ConfigError(
            f"limit '{place.key}' needs numbers above 2^53 in a Redis store, whose scripts count in doubles: "
            "give a rounder amount per period (such as 60,000 for 59,999), or less than $4,000,000."
        )
    return numbers


def _told(command: Command, places: Sequence[Place]) -> Sequence[Any]:
    if isinstance(command, Reserve):
        return [command.hold, command.rank, command.standing, *chain.from_iterable(command.amounts)]
    if isinstance(command, Settle):
        return [command.hold, command.kept, command.taken_at, *chain.from_iterable(command.changes)]
    if isinstance(command, Correct):
        return [command.taken_at, *chain.from_iterable(command.changes)]
    return _write(command, places[command.place]) if isinstance(command, Write) else command


def _write(change: Write, place: Place) -> list[Any]:
    rule = change.rule
    strategy = change.strategy
    override = parameters(Place(place.key, strategy, place.rev), 0)
    states = pack(place.strategy, change.before), pack(strategy, change.after)
    if rule is None:
        return [change.place, states[0], 0, override, states[1], ""]
    return [change.place, states[0], rule.rev, override, states[1], rule_text(rule)]


def decode(batch: Batch, found: Sequence[Any]) -> Answer:
    """Return the script's answer."""
    now, members, _, _, results, states, pairs = found
    rules = {key.decode(): rule_of(text) for key, text in zip(pairs[::2], pairs[1::2], strict=True)}
    return Answer(
        now,
        members,
        [_result(command, result) for command, result in zip(batch.commands, results, strict=True)],
        [_state(place, state, rules) for place, state in zip(batch.places, states, strict=True)],
        rules,
    )


def _result(command: Command, found: Any) -> Any:
    if command.__class__ is Reserve:
        return found == 1 if found.__class__ is int else tuple(found)
    return found == 1 if command.__class__ is Write else found


def _state(place: Place, found: Sequence[int], rules: Mapping[str, Rule]) -> tuple[int, Any]:
    rev, *numbers = found
    strategy: Strategy = place.strategy
    if rev > place.rev and place.key in rules:
        strategy = strategy_for(rules[place.key].limit)
    return rev, unpack(strategy, numbers)
