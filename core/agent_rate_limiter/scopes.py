"""Whom limits apply to, and whose calls are counted together: labels, and what they look like as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.redaction import one_line

EACH = "each"
"""As a label's value in a scope: one limit for every value that the label takes."""
_MARKS = frozenset(",=\\")


@dataclass(frozen=True, init=False)
class Scope:
    """Whom a limit applies to: labels that a call must carry.

    `Scope()` is everybody together, `Scope(agent="researcher")` that agent alone, and
    `Scope(agent="each")` gives every agent a limit of its own. A call without the label is not limited by it.

    Args:
        labels: label name → its value, or "each".
    """

    labels: tuple[tuple[str, str], ...]

    def __init__(self, /, **labels: str) -> None:
        object.__setattr__(self, "labels", tuple(sorted(label_texts(labels).items())))

    def key(self, labels: Mapping[str, str]) -> str | None:
        """Name the share of the limit that a call with these labels draws on; None when it draws on none."""
        parts: dict[str, str] = {}
        for name, wanted in self.labels:
            value = labels.get(name)
            if value is None or wanted not in {EACH, value}:
                return None
            parts[name] = value
        return labels_text(parts)

    def __repr__(self) -> str:
        """As it would be written."""
        return f"Scope({', '.join(f'{name}={value!r}' for name, value in self.labels)})"

    def __str__(self) -> str:
        """As `agent=each,run=42`; empty for everybody."""
        return ",".join(f"{name}={value}" for name, value in self.labels)


def label_texts(labels: Mapping[str, object]) -> dict[str, str]:
    """Check labels, and return their values as text.

    Raises:
        ConfigError: a label has no value.
    """
    for name, value in labels.items():
        if value is None or value == "":
            raise ConfigError(f"scope label {name} is {value!r}: give it a value, or leave it out.")
    return {name: str(value) for name, value in labels.items()}


def labels_text(labels: Mapping[str, str]) -> str:
    """Return labels as `agent=a,run=42`: no others look the same, and it is one line."""
    return ",".join(f"{name}={_escaped(value)}" for name, value in labels.items())


def _escaped(value: str) -> str:
    """Keep apart what labels separate, no value may look like two; and on one line what messages repeat."""
    if _MARKS.intersection(value):
        value = value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
    return one_line(value)


EVERYBODY = Scope()
