"""What the README, the documentation and the notebook show of LlamaIndex runs, offline."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Settings

from agent_rate_limiter.testing import SimulatedProvider
from tests.notebooks import NOTEBOOKS, executed, printed
from tests.readme import at_a_provider, run_framework

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "llamaindex.md"
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # nobody closes clients


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedProvider]:
    with at_a_provider(monkeypatch) as provider:
        monkeypatch.setenv("OPENAI_API_BASE", provider.openai_url)  # as LlamaIndex calls it
        yield provider


def test_the_readmes_blocks_run(provider: SimulatedProvider, capsys: pytest.CaptureFixture[str]) -> None:
    names = run_framework("llamaindex")
    assert capsys.readouterr().out.strip()
    assert provider.report().completed == provider.report().received == 1
    assert str(names["limiter"]).startswith("MultiProviderLimiter")


def test_the_documentations_blocks_run(
    provider: SimulatedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Settings, "_llm", None)
    monkeypatch.setattr(Settings, "_embed_model", None)
    names: dict[str, Any] = {}
    for code in re.findall(
        r"^```python\n(.*?)^```$", DOCUMENTATION.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        exec(compile(code, DOCUMENTATION.name, "exec"), names)  # noqa: S102 - it is what users run
    names["shared"].close()
    assert "analyst  plan" in capsys.readouterr().out
    assert provider.report().completed == provider.report().received == 2


def test_the_notebook_runs() -> None:
    shown = printed(executed(NOTEBOOKS / "llamaindex.ipynb"))
    assert re.search(r"2000 in 00:0\d, about \d s to go at 300 requests/4 s", shown)
    assert "500 answered" in shown
    assert re.search(r"analyst +plan +gpt-4o +2", shown)
    assert re.search(r"fallback +gpt-4o-mini +\d\d", shown)
    (ours, theirs) = re.findall(r"^\$([\d.]+) by", shown, re.MULTILINE)
    assert float(ours) == pytest.approx(float(theirs), abs=2e-6)
