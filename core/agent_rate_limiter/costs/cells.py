"""Values of a report as texts: in a terminal's table, in a notebook's, in a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import cast
from unicodedata import combining, east_asian_width

from agent_rate_limiter.redaction import one_line

_MONEY = ("cost", "estimate")
_LONGEST = 48
"""Characters of a label that a table shows."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How texts begin that spreadsheets calculate (OWASP, "CSV Injection")."""


def cell(name: str, value: object) -> str:
    """Return a value as a table shows it: on one line, and not without end."""
    if name in _MONEY:
        return f"${value:,.4f}"
    if name == "latency":
        return f"{value:,.3f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, dict):
        labels = cast("dict[str, str]", value).items()
        return " ".join(f"{label}={one_line(text, _LONGEST)}" for label, text in labels)
    return f"{value:,}" if isinstance(value, int) else one_line(str(value), _LONGEST)


def text_table(lines: Sequence[Sequence[str]], labels: int) -> list[str]:
    """Return the lines of a table; so many columns are labels and stand at the left, numbers at the right."""
    columns = range(len(lines[0]))
    widths = [max(_width(line[column]) for line in lines) for column in columns]
    return ["  ".join(_padded(line[at], widths[at], left=at < labels) for at in columns).rstrip() for line in lines]


def _padded(text: str, width: int, *, left: bool) -> str:
    space = " " * (width - _width(text))
    return text + space if left else space + text


def _width(text: str) -> int:
    """Places that a terminal gives to a text: two to Chinese, Japanese, Korean signs and emoji."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(letter) else 1 + (east_asian_width(letter) in "WF") for letter in text)


def exported(value: object) -> object:
    """Return a value as CSV has it."""
    if isinstance(value, float):
        return f"{value:.9f}".rstrip("0").removesuffix(".")
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False) if value else ""
    if isinstance(value, str):
        text = value.replace("\r", "\\r")  # which the csv module does not quote, though it reads it as a line's end
        return f"'{text}" if value.startswith(_FORMULA) else text
    return iso(value) if isinstance(value, datetime) else value


def iso(value: object) -> str:
    """Return a moment in ISO 8601, to the millisecond."""
    return value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else str(value)
