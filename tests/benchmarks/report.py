"""What a benchmark found: tables and goals, as text for people and as plain data for programs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

Cell = str | float | None
"""A number, a text, or None where there is nothing to say."""


@dataclass(frozen=True)
class Goal:
    """A bound that a measurement has to keep.

    Args:
        what: what was measured, in words.
        measured: the number; None when it could not be measured here.
        bound: the most it may be.
        at_least: the bound is the least it may be instead.
        unit: follows the numbers.
        why: why it was not measured.
    """

    what: str
    measured: float | None
    bound: float
    at_least: bool = False
    unit: str = " x"
    why: str = ""

    @property
    def met(self) -> bool | None:
        """None when it was not measured."""
        if self.measured is None:
            return None
        if math.isnan(self.measured):
            return False
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound

    def __str__(self) -> str:
        side = "at least" if self.at_least else "at most"
        bound = f"{side} {self.bound:g}{self.unit}"
        if self.measured is None:
            return f"  NOT MEASURED  {self.what}: {bound}. {self.why}"
        verdict = "pass" if self.met else "FAIL"
        return f"  {verdict:<12}  {self.what}: {_short(self.measured)}{self.unit} ({bound})"


@dataclass(frozen=True)
class Table:
    """Rows of numbers under headings.

    Args:
        title: what they are about.
        columns: heading → how its numbers are written, as a format spec.
        rows: one cell per column.
    """

    title: str
    columns: dict[str, str]
    rows: list[list[Cell]]

    def __str__(self) -> str:
        specs = list(self.columns.values())
        rows = [[_text(cell, spec) for cell, spec in zip(row, specs, strict=True)] for row in self.rows]
        lines = [list(self.columns), *rows]
        widths = [max(len(line[place]) for line in lines) for place in range(len(specs))]
        body = ["  " + _aligned(line, widths) for line in lines]
        return "\n".join([self.title, *body])

    def as_data(self) -> dict[str, Any]:
        """The rows by heading."""
        return {"title": self.title, "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows]}


@dataclass
class Report:
    """One benchmark's findings.

    Args:
        name: the benchmark's.
        about: what it measures and how.
    """

    name: str
    about: str
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{self.name}: {self.about}", *(str(table) for table in self.tables)]
        if self.notes:
            parts.append("\n".join(f"  {note}" for note in self.notes))
        if self.goals:
            parts.append("\n".join(["goals", *(str(goal) for goal in self.goals)]))
        return "\n\n".join(parts)

    def as_data(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "name": self.name,
            "about": self.about,
            "tables": [table.as_data() for table in self.tables],
            "goals": [{**vars(goal), "met": goal.met} for goal in self.goals],
            "notes": self.notes,
        }


def _aligned(line: list[str], widths: list[int]) -> str:
    first, *rest = [
        text.rjust(width) if place else text.ljust(width)
        for place, (text, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join([first, *rest]).rstrip()


def _text(cell: Cell, spec: str) -> str:
    if cell is None:
        return "-"
    return cell if isinstance(cell, str) else format(cell, spec)


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 or number == int(number) else f"{number:.2f}"
