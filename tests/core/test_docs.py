"""Everything in docs/ on costs, budgets, fallbacks and planning runs, and prints what is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent_rate_limiter.cli.plan import show_plan
from agent_rate_limiter.config import load_config

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(name: str) -> list[tuple[str, str]]:
    return _BLOCK.findall((DOCS / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["budgets.md", "costs.md", "fallbacks.md", "planning.md"])
def test_it_runs_and_prints_what_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLACK_WEBHOOK", "https://hooks.slack.com/services/T0/B0/key")
    monkeypatch.setenv("ALERT_SECRET", "hush")
    names: dict[str, object] = {"__name__": "docs"}
    for language, content in blocks(name):
        if language == "yaml":
            Path("limits.yaml").write_text(content, encoding="utf-8")
            load_config("limits.yaml")
        elif language == "python":
            capsys.readouterr()
            exec(compile(content, name, "exec"), names)  # noqa: S102 - it is what users run
        elif language == "text":
            assert capsys.readouterr().out == content


def test_every_workload_that_is_shown_is_understood(tmp_path: Path) -> None:
    text = (DOCS / "planning.md").read_text(encoding="utf-8")
    config = tmp_path / "limits.json"
    config.write_text('{"providers": {"openai": {"models": {"gpt-4": {}, "gpt-4o-mini": {"rpm": 5000}}}}}')
    parts = [part for row in re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE) for part in re.findall("`(.+?)`", row)]
    assert len(parts) == 9
    for part in parts:
        count = "" if re.search("agents|calls", part) else "1 call, "
        assert show_plan(str(config), count + part, 2.0, plot=None, as_json=False) == 0, part
    (several,) = re.findall(r'`"(.+;.+)"`', text)
    assert show_plan(str(config), several, 2.0, plot=None, as_json=False) == 0
    (line,) = [content for language, content in blocks("planning.md") if language == "json"]
    trace = tmp_path / "trace.jsonl"
    trace.write_text(line)
    assert show_plan(str(config), str(trace), 2.0, plot=None, as_json=False) == 0
