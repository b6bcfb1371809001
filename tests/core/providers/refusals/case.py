"""What a refusal is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

NOW = 1_795_469_220.0  # 2026-11-23 21:27:00 UTC, 13:27 in California
DATE = {"date": "Mon, 23 Nov 2026 21:27:00 GMT"}
TO_MIDNIGHT = 10 * 3600 + 33 * 60.0  # in California
_NONE: Mapping[str, str] = {}


class Case(NamedTuple):
    """A refusal of one provider, and the fields of the `Failure` that matter."""

    kind: str
    name: str
    status: int
    body: Any
    expected: dict[str, Any]
    headers: Mapping[str, str] = _NONE


def openai(message: str, code: str | None = None, error_type: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": error_type, "param": None, "code": code}}
