"""Everything in the README runs, in the order in which it is read, and prints what the README says."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_rate_limiter.testing import SimulatedProvider

README = Path(__file__).parents[2] / "README.md"
_BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL)
_CHANGING = re.compile(r"[\d.,:█-]+ *")


def blocks() -> list[tuple[str, str]]:
    return [(found["language"], found["content"]) for found in _BLOCK.finditer(README.read_text(encoding="utf-8"))]


@pytest.fixture
def at_a_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedProvider]:
    """The environment of a user: a key, files in the working directory, and an OpenAI that answers."""
    (configuration,) = [content for language, content in blocks() if language == "yaml"]
    (tmp_path / "limits.yaml").write_text(configuration, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with SimulatedProvider() as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        yield provider


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_readme_runs(at_a_provider: SimulatedProvider, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"__name__": "readme"}
    for language, content in blocks():
        if language == "python":
            capsys.readouterr()
            exec(compile(content, "README.md", "exec"), names)  # noqa: S102 - it is what users run
        elif language == "text":
            assert _CHANGING.sub("#", capsys.readouterr().out) == _CHANGING.sub("#", content)
    assert at_a_provider.report().completed == at_a_provider.report().received > 0
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    while tests:
        test = tests.pop()
        assert callable(test)
        test()
        del test
    names.clear()
    gc.collect()  # clients that the README leaves open are closed here, and not in somebody else's test


def test_files_and_commands_that_the_readme_names_exist() -> None:
    text = README.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([\w./]+)\)", text):
        assert (README.parent / link).is_file(), link
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w+)", text.partition("## Try it")[2].partition("##")[0]):
        assert f"\n{target}:" in makefile or target == "and", target
