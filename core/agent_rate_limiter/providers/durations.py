"""Times as providers write them, turned into seconds. Nothing here raises, whatever it is given."""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone
from functools import lru_cache

MAX_SECONDS = 400 * 86_400.0
"""Longer waits than the longest quota (a month, a year of credit) are nonsense, and read as not told."""

_UNIT_SECONDS = {
    "d": 86_400.0,
    "h": 3_600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ns": 1e-9,
}
_NUMBER = r"\d{1,18}(?:\.\d{0,18})?|\.\d{1,18}"
_PART = re.compile(rf"({_NUMBER})\s*(ms|us|µs|μs|ns|d|h|m|s)")
_GO_DURATION = re.compile(rf"(?:(?:{_NUMBER})\s*(?:ms|us|µs|μs|ns|d|h|m|s)\s*)+")
_PLAIN = re.compile(rf"-?(?:{_NUMBER})")
_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?\s*([Zz]|[+-]\d\d:?\d\d)?")
_EPOCH_S = 1e9
_EPOCH_MS = 1e12


def number(value: object) -> float | None:
    """Read a finite number, also out of a text; None when it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = value.strip()
        if not _PLAIN.fullmatch(value):
            return None
        value = float(value)
    if not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def seconds(value: object) -> float | None:
    """Read a length of time: seconds as a number, or a Go or protobuf duration (`6m0s`, `12ms`, `45.8s`).

    Returns:
        Seconds; 0 for one that has passed, None when it is not a sensible length of time.
    """
    plain = number(value)
    if plain is not None:
        return sensible(plain)
    return _duration(value.strip()) if isinstance(value, str) else None


def sensible(wait: float) -> float | None:
    """Take a wait in seconds for what it can be: never negative, and not told when absurdly long."""
    return max(0.0, wait) if wait <= MAX_SECONDS else None


def epoch(value: object) -> float | None:
    """Read a moment: RFC 3339, an HTTP-date, or seconds or milliseconds since 1970.

    Returns:
        Epoch seconds; None when it is not a moment.
    """
    plain = number(value)
    if plain is not None:
        if plain >= _EPOCH_MS:
            return plain / 1000
        return plain if plain >= _EPOCH_S else None
    return _calendar(value.strip()) if isinstance(value, str) else None


def _duration(text: str) -> float | None:
    if not _GO_DURATION.fullmatch(text):
        return None
    return sensible(sum(float(amount) * _UNIT_SECONDS[unit] for amount, unit in _PART.findall(text)))


@lru_cache(maxsize=256)  # the same second's dates come back on many responses
def _calendar(text: str) -> float | None:
    from email.utils import parsedate_to_datetime  # it brings sockets with it

    if len(text) > 64:  # noqa: PLR2004 - no date is longer, and the parser of dates is slow on rubbish
        return None
    found = _RFC3339.fullmatch(text)
    try:
        if found is not None:
            return _rfc3339(found)
        moment = parsedate_to_datetime(text)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        return aware.timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _rfc3339(found: re.Match[str]) -> float:
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    fraction, zone = found[7], found[8]
    leap = second == 60  # noqa: PLR2004 - RFC 3339 allows it, datetime does not
    moment = datetime(year, month, day, hour, minute, 59 if leap else second, tzinfo=timezone.utc).timestamp()
    moment += leap + (float(f"0.{fraction}") if fraction else 0.0)
    if zone in {None, "Z", "z"}:
        return moment
    sign = -1 if zone[0] == "-" else 1
    return moment - sign * (int(zone[1:3]) * 3_600 + int(zone[-2:]) * 60)
