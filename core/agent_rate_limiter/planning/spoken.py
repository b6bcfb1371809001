"""A workload in words: "200 agents x 10 calls, 2k in, 500 out"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NoReturn

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.planning.workload import (
    FIRST_TOKEN,
    TOKENS_PER_SECOND,
    Call,
    Lane,
    Workload,
    usual_seconds,
)

_MOST = 100_000
"""Calls of one workload: more belongs into several plans."""
EXAMPLE = "200 agents x 10 calls, 2k in, 500 out"
_NUMBER = r"(?P<n>\d[\d_]*(?:\.\d+)?)\s*(?P<k>[kKmM](?![a-z]))?"
_TIME = r"(?P<t>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|sec|seconds?|min|minutes?|h|hours?)"
_PARTS: Mapping[str, re.Pattern[str]] = {
    "agents": re.compile(rf"{_NUMBER}\s*agents?\s*(?:x|×|\*|times)\s*(?P<calls>\d[\d_]*)\s*(?:calls?)?"),  # noqa: RUF001
    "calls": re.compile(rf"{_NUMBER}\s*calls?"),
    "in": re.compile(rf"{_NUMBER}\s*(?:tokens?\s*)?(?:in|input)(?:\s*tokens?)?"),
    "cached": re.compile(rf"{_NUMBER}\s*(?:tokens?\s*)?cached"),
    "out": re.compile(rf"{_NUMBER}\s*(?:tokens?\s*)?(?:out|output)(?:\s*tokens?)?"),
    "max": re.compile(rf"(?:max(?:_tokens)?\s+)?{_NUMBER}(?:\s*max(?:_tokens)?)?"),
    "each": re.compile(rf"{_TIME}(?:\s*(?:each|latency|per call))?"),
    "over": re.compile(rf"(?:over|within)\s+{_TIME}"),
    "to": re.compile(r"to\s+(?P<target>\S+:\S+)"),
}
_SECONDS = {"m": 60.0, "h": 3_600.0, "s": 1.0}


def in_words(text: str) -> Workload:
    """Several workloads at once stand behind one another, with semicolons."""
    lanes: list[Lane] = []
    words: list[str] = []
    assumed = False
    for place, part in enumerate(filter(str.strip, text.split(";"))):
        parts = _parts(part)
        assumed = assumed or "each" not in parts
        lanes += _lanes(parts, place)
        words.append(part.strip())
    if not lanes:
        _refuse_words(text, "it is empty")
    note = f"A call takes {FIRST_TOKEN:g} s and {1000 / TOKENS_PER_SECOND:g} ms per token of output (say '8 s each')."
    workload = Workload(lanes, "; ".join(words), notes=(note,) if assumed else ())
    if workload.calls > _MOST:
        _refuse_words(text, f"it has {workload.calls:,} calls, more than {_MOST:,}; plan for a part of it")
    return workload


def _parts(text: str) -> dict[str, re.Match[str]]:
    found: dict[str, re.Match[str]] = {}
    for piece in filter(str.strip, text.split(",")):
        matches = ((name, pattern.fullmatch(piece.strip().lower())) for name, pattern in _PARTS.items())
        name, match = next(((name, match) for name, match in matches if match), ("", None))
        if match is None or name in found:
            _refuse_words(text, f"{piece.strip()!r} " + ("is said twice" if match else "is not understood"))
        if name == "to":
            match = _PARTS["to"].fullmatch(piece.strip()) or match  # as written: names may have capitals
        found[name] = match
    if ("agents" in found) == ("calls" in found):
        _refuse_words(text, "it has to say once how many calls there are")
    return found


def _lanes(parts: Mapping[str, re.Match[str]], place: int) -> list[Lane]:
    counted = parts.get("agents") or parts["calls"]
    several, each = _amount(counted), int(counted["calls"].replace("_", "")) if "agents" in parts else 1
    if several * each > _MOST:
        _refuse_words(counted.string, f"it has {several * each:,} calls, more than {_MOST:,}; plan for a part of it")
    sent, produced, most = (_amount(parts.get(name)) for name in ("in", "out", "max"))
    if most and most < produced:
        _refuse_words(counted.string, f"{produced:,} out is more than its max of {most:,}")
    took = _seconds(parts["each"]) if "each" in parts else usual_seconds(produced)
    target = parts["to"]["target"] if "to" in parts else ""
    call = Call(sent, produced, most, took, target, min(sent, _amount(parts.get("cached"))))
    spread = _seconds(parts["over"]) if "over" in parts else 0.0
    prefix = f"{place + 1}." if place else ""
    return [
        Lane(
            spread * number / several,
            {"agent": f"agent {prefix}{number + 1}"} if "agents" in parts else {},
            [call] * each,
        )
        for number in range(several)
    ]


def _amount(match: re.Match[str] | None) -> int:
    if match is None:
        return 0
    suffix = (match["k"] or "").lower()
    return round(float(match["n"].replace("_", "")) * {"": 1, "k": 1_000, "m": 1_000_000}[suffix])


def _seconds(match: re.Match[str]) -> float:
    unit = match["unit"]
    return float(match["t"]) * (0.001 if unit == "ms" else _SECONDS[unit[0]])


def _refuse_words(text: str, why: str) -> NoReturn:
    raise ConfigError(
        f"workload {text.strip()!r}: {why}. Write it like {EXAMPLE!r}; more parts are '1k max', '500 cached', "
        "'8 s each', 'over 1 h', 'to openai:gpt-4', and ';' before another one. Or give a .jsonl file."
    )
