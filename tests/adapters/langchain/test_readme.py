"""The README's LangChain block, and the documentation's, do what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from langchain_openai import ChatOpenAI

from tests.notebooks import NOTEBOOKS, executed, printed
from tests.readme import at_a_provider, run_framework

DOCS = Path(__file__).parents[3] / "docs" / "langchain.md"


def test_the_readmes_block_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with at_a_provider(monkeypatch) as provider:
        names = run_framework("langchain")
        assert isinstance(names["model"], ChatOpenAI)
        limiter: Any = names["limiter"]
        (row,) = limiter.costs.report().to_dicts()
        assert row["requests"] == provider.report().completed == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_documentations_blocks_run(monkeypatch: pytest.MonkeyPatch) -> None:
    text = DOCS.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    with at_a_provider(monkeypatch) as provider:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "any")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", provider.anthropic_url)
        names: dict[str, object] = {"__name__": "docs"}
        for block in blocks:
            exec(compile(block, "docs/langchain.md", "exec"), names)  # noqa: S102 - it is what users run
        assert provider.report().completed == provider.report().received > 0


def test_the_notebook_runs() -> None:
    text = printed(executed(NOTEBOOKS / "langchain.ipynb"))
    assert re.search(r"The others failed with \w*RateLimitError\.", text)
    assert re.search(r"ChatOpenAI True\s+30 of 30 answered", text)
    assert "ai: I have to stop here, because the budget is used up." in text
