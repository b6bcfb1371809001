"""Everything in the README runs, in the order in which it is read, and prints what the README says."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_rate_limiter.testing import SimulatedProvider
from tests.readme import FRAMEWORKS, README, at_a_provider, blocks, framework_of

_CHANGING = re.compile(r"[\d.,:█-]+ *")


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedProvider]:
    """The environment of a user, with files in the working directory."""
    (configuration,) = [content for language, content in blocks() if language == "yaml"]
    (tmp_path / "limits.yaml").write_text(configuration, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with at_a_provider(monkeypatch) as provider:
        yield provider


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_readme_runs(provider: SimulatedProvider, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"__name__": "readme"}
    for language, content in blocks():
        if language == "python" and framework_of(content) is None:
            capsys.readouterr()
            exec(compile(content, "README.md", "exec"), names)  # noqa: S102 - it is what users run
        elif language == "text":
            assert _CHANGING.sub("#", capsys.readouterr().out) == _CHANGING.sub("#", content)
    assert provider.report().completed == provider.report().received > 0
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    while tests:
        test = tests.pop()
        assert callable(test)
        test()
        del test
    names.clear()
    gc.collect()  # clients that the README leaves open are closed here, and not in somebody else's test


def test_blocks_that_import_a_framework_run_in_its_own_tests() -> None:
    frameworks = {framework_of(content) for language, content in blocks() if language == "python"} - {None}
    assert frameworks <= set(FRAMEWORKS)
    for framework in frameworks:
        own = README.parent / f"tests/adapters/{framework}/test_readme.py"
        assert f'run_framework("{framework}")' in own.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("code", "framework"),
    [
        ("from langchain_openai import ChatOpenAI\n", "langchain"),
        ("import os\nimport langgraph.graph\n", "langchain"),
        ("from crewai import LLM\n", "crewai"),
        ("from llama_index.core import Settings\n", "llamaindex"),
        ("from agent_rate_limiter_adapters.crewai import adapter\n", "crewai"),
        ("from agent_rate_limiter_adapters.openai import adapter\n", None),
        ("print('import crewai')\n", None),
    ],
)
def test_whose_a_block_is(code: str, framework: str | None) -> None:
    assert framework_of(code) == framework


def test_files_and_commands_that_the_readme_names_exist() -> None:
    text = README.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([\w./]+)\)", text):
        assert (README.parent / link).is_file(), link
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w+)", text.partition("## Try it")[2].partition("##")[0]):
        assert f"\n{target}:" in makefile or target == "and", target
