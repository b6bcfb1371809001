"""The notebooks run from top to bottom, and show what they were saved with."""

from __future__ import annotations

import re
from typing import Any

import nbformat
import pytest

from tests.notebooks import NOTEBOOKS, executed, printed

FRAMEWORKS = {"langchain", "crewai", "llamaindex"}  # theirs run where they are installed
OWN = sorted(path for path in NOTEBOOKS.glob("*.ipynb") if path.stem not in FRAMEWORKS)
SHOWN = {
    "costs_and_budgets": (
        r"critic +gpt-4 +2 ",
        r"openai,gpt-4,.*,ok,1,genai-prices ",
        r"of 200 calls were made for \$0\.09\d+ of \$0\.10",
        r"is refused by 'budget \$0\.10/day'",
        r"budget \$0\.10/day: .* is used, past 90%",
        r"205\.47 dollars in 6,863 calls",
        r"2026-10 +writer +2,297 ",
        r"600 of 800 are made, 200 are refused",
    ),
    "quickstart": (
        r"\['claude-opus-4', 'claude-opus-4', 'gpt-4'\]",
        r"openai:gpt-4 → anthropic:claude-opus-4 because: ",
        r"of the first thirty: 10 of 10 user calls, 20 of 50 nightly ones",
        r"openai:gpt-4 is refused by '10,000 tokens/minute'",
        r"taken by: researcher \d+%",
        r"writer +gpt-4 +3 ",
    ),
}


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_shows(path: Any) -> None:
    saved = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    assert all(cell.outputs for cell in saved.cells if cell.cell_type == "code" and "print(" in cell.source)
    again = printed(executed(path))
    for pattern in SHOWN.get(path.stem, ()):
        assert re.search(pattern, again), pattern
        assert re.search(pattern, printed(saved)), pattern


def test_every_notebook_says_how_to_use_a_real_key() -> None:
    for path in NOTEBOOKS.glob("*.ipynb"):
        first = nbformat.read(path, as_version=4).cells[0].source  # type: ignore[no-untyped-call]
        assert re.search(r"\bkey|_KEY", first), path.stem
