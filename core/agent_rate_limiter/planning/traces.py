"""A workload call by call: a trace, a ledger's rows, or a list."""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.plain import is_number, is_whole, meant
from agent_rate_limiter.planning.spoken import EXAMPLE, in_words
from agent_rate_limiter.planning.workload import (
    FIRST_TOKEN,
    TOKENS_PER_SECOND,
    Call,
    Lane,
    Workload,
    usual_seconds,
)

_EPOCH = 1e9
"""A time beyond this is epoch seconds, not seconds from the start."""
_COUNTS = ("input_tokens", "output_tokens", "max_output_tokens", "cached_input_tokens")
_ALIASES = {"time": "at", "latency": "seconds", "max_tokens": "max_output_tokens"}
_KEYS = ("at", "target", "provider", "model", "labels", "agent", "run", "seconds", "priority", "timeout", *_COUNTS)
_OF_LEDGERS = {
    "requests",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "cost",
    "estimate",
    "outcome",
    "attempts",
    "price",
}
"""What rows of `limiter.costs.rows()` hold besides: it has no bearing on a plan."""


def _lines(path: Path) -> Iterable[tuple[str, object]]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}.") from None
    if path.suffix == ".json":
        found = _json(text, path.name)
        if not isinstance(found, list):
            raise ConfigError(f"{path.name}: it is no list: give a JSON list of calls, or a .jsonl file.")
        for place, entry in enumerate(cast("list[object]", found)):
            yield f"{path.name}[{place}]", entry
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"{path.name}: line {number}", _json(line, f"{path.name}: line {number}")


def _json(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where}: it is not JSON: {error}.") from None


def _from_entries(entries: Iterable[tuple[str, object]], words: str) -> Workload:
    """Make a lane of each call; those of an agent that tell no time follow one another."""
    timed: list[Lane] = []
    untimed: list[Lane] = []
    following: dict[str, Lane] = {}
    assumed = False
    for where, entry in entries:
        at, labels, call, guessed = _entry(where, entry)
        assumed = assumed or guessed
        agent = labels.get("agent")
        if at is None and agent is not None:
            following.setdefault(agent, Lane(0.0, labels)).calls.append(call)
        else:
            (untimed if at is None else timed).append(Lane(at or 0.0, labels, [call]))
    lanes = [*timed, *following.values(), *untimed]
    if not lanes:
        raise ConfigError(f"workload {words}: there is no call in it.")
    first = min((lane.start for lane in timed), default=0.0)
    begins = first if first > _EPOCH else None
    if begins is not None or first < 0:
        for lane in timed:
            lane.start -= first
    note = f"Calls without 'seconds' take {FIRST_TOKEN:g} s and {1000 / TOKENS_PER_SECOND:g} ms per token of output."
    return Workload(lanes, words, begins, (note,) if assumed else ())


def _entry(where: str, entry: object) -> tuple[float | None, dict[str, str], Call, bool]:
    if not isinstance(entry, Mapping):
        raise ConfigError(f'{where}: it is {entry!r}: give an object such as {{"input_tokens": 2000, …}}.')
    fields = {_ALIASES.get(str(key), str(key)): value for key, value in cast("Mapping[object, object]", entry).items()}
    for key in fields:
        if key not in _KEYS and key not in _OF_LEDGERS:
            raise ConfigError(f"{where}: {key}: unknown key; {meant(key, _KEYS)}")
    sent, produced, most, cached = (_count(where, name, fields.get(name)) for name in _COUNTS)
    took = _number(where, "seconds", fields.get("seconds"))
    call = Call(
        sent,
        produced,
        most,
        usual_seconds(produced) if took is None else took,
        _target(where, fields),
        min(cached, sent),
        None if fields.get("priority") is None else _count(where, "priority", fields["priority"]),
        _number(where, "timeout", fields.get("timeout")),
        where,
    )
    return _moment(where, fields.get("at")), _labels(where, fields), call, took is None


def _count(where: str, name: str, value: object) -> int:
    if value is None:
        return 0
    if not is_whole(value) or value < 0:
        raise ConfigError(f"{where}: {name} is {value!r}: give a whole number of at least 0.")
    return value


def _number(where: str, name: str, value: object) -> float | None:
    if value is None:
        return None
    if not is_number(value) or not 0 <= value < _EPOCH:
        raise ConfigError(f"{where}: {name} is {value!r}: give seconds of at least 0.")
    return float(value)


def _moment(where: str, value: object) -> float | None:
    """Seconds from the start, or since the epoch; as a number or ISO text."""
    if value is None:
        return None
    if is_number(value) and abs(value) < 1e12:  # noqa: PLR2004 - seconds, for 30,000 years
        return float(value)
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        raise ConfigError(
            f"{where}: at is {value!r}: give seconds, or a time such as '2026-11-23T15:40:00Z'."
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def _target(where: str, fields: Mapping[str, object]) -> str:
    provider, model, target = fields.get("provider"), fields.get("model"), fields.get("target")
    if provider and model and not target:
        target = f"{provider}:{model}"
    if target is not None and (not isinstance(target, str) or ":" not in target):
        raise ConfigError(f"{where}: target is {target!r}: write it as 'provider:model'.")
    if target is None and (provider or model):
        raise ConfigError(f"{where}: give both provider and model, or target as 'provider:model'.")
    return target or ""


def _labels(where: str, fields: Mapping[str, object]) -> dict[str, str]:
    given: object = fields.get("labels") or {}
    if not isinstance(given, Mapping):
        raise ConfigError(f'{where}: labels is {given!r}: give an object such as {{"agent": "researcher"}}.')
    labels = {str(name): str(value) for name, value in cast("Mapping[object, object]", given).items()}
    for name in ("budget", "model", "priority", "provider"):
        if name in labels:
            raise ConfigError(f"{where}: labels hold {name!r}: that is no label; rename it.")
    labels.update((name, str(fields[name])) for name in ("agent", "run") if fields.get(name) not in {None, ""})
    return labels


def read_workload(given: str | Path | Iterable[Mapping[str, Any]]) -> Workload:
    """Read a workload: words, the path of a .jsonl or .json trace, or the entries of one.

    Raises:
        ConfigError: it makes no sense; the message names the line and the fix.
    """
    if isinstance(given, Path) or (isinstance(given, str) and given.strip().endswith((".jsonl", ".json"))):
        path = Path(given.strip() if isinstance(given, str) else given)
        return _from_entries(_lines(path), path.name)
    if isinstance(given, str):
        return in_words(given)
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise ConfigError(f"workload is {given!r}: give words such as {EXAMPLE!r}, a .jsonl file, or a list of calls.")
    return _from_entries(((f"workload[{place}]", entry) for place, entry in enumerate(given)), "a list")
