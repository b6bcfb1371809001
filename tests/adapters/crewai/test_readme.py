"""What the README and the notebook show of CrewAI."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import nbformat

from tests.notebooks import NOTEBOOKS, executed, printed
from tests.readme import at_a_provider, blocks, framework_of, run_framework

if TYPE_CHECKING:
    import pytest


def test_the_readmes_block_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with at_a_provider(monkeypatch) as provider:
        names: dict[str, Any] = run_framework("crewai")
    assert provider.report().completed == 1
    assert names["limiter"].costs.report(by=("agent",)).to_dicts()[0]["agent"] == "Analyst"
    assert "explain" in capsys.readouterr().out
    (block,) = [content for language, content in blocks() if language == "python" and framework_of(content) == "crewai"]
    assert len(block.splitlines()) <= 8


def test_the_notebook_runs_and_shows_what_is_saved() -> None:
    path = NOTEBOOKS / "crewai.ipynb"
    shown = printed(executed(path))
    assert "Newsletters sent: 1\nThe provider got 4 requests, and refused 1 of them." in shown
    assert "10 of 10 crews are done" in shown
    if find_spec("crewai.llms.retry"):  # what is saved is of a CrewAI with retries of its own
        assert "Newsletters sent: 3\nThe provider got 31 requests, and refused 27 of them." in shown
        assert shown == printed(nbformat.read(path, as_version=4))  # type: ignore[no-untyped-call]
