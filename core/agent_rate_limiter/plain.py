"""What users pass, told apart: numbers, of which booleans are none here, and names that are nearly right."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a number, and not True or False."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether it is a whole number, and not True or False."""
    return isinstance(value, int) and not isinstance(value, bool)


def meant(name: str, known: Collection[str]) -> str:
    """Return which of the known names a wrong one was meant for, or all of them; for a message."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"it is one of {', '.join(known)}."
