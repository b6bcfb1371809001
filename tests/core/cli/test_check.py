"""`agent-rate-limiter check`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from agent_rate_limiter.cli.commands import cli

GOOD = """\
providers:
  openai:
    api_key: ${A_KEY}
    base_url: https://hidden.example/v1
    models:
      gpt-4: {rpm: 500, tpm: 10_000, counts: max_tokens, cost_per_1k: 0.03}
      "*": {limits: [{resource: requests, amount: 5, per: day, strategy: fixed_window}]}
    limits: [1M tokens/day]
budget_limit: 100
alert_threshold: [0.5, 0.8]
budgets:
  - {limit: 5, per: total, scope: {agent: each}, action: warn}
"""


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "sk-secret")
    monkeypatch.setenv("COLUMNS", "100")


def check(path: Path, content: str) -> tuple[int, list[str], str]:
    path.write_text(content, encoding="utf-8")
    result = CliRunner().invoke(cli, ["check", str(path)])
    return result.exit_code, [" ".join(line.split()) for line in result.stdout.splitlines()], result.stderr


def test_a_good_file_is_shown(tmp_path: Path) -> None:
    code, lines, errors = check(tmp_path / "limits.yaml", GOOD)
    assert (code, errors) == (0, "")
    for line in (
        "openai (all its models) 1,000,000 tokens/day",
        "openai:gpt-4 500 requests/minute 30 / 30",
        "10,000 tokens/minute (counts max_tokens)",
        "openai:* 5 requests/day (fixed window)",
        "budget $100.00/day everybody's calls are refused 50%, 80%",
        "budget $5.00 in total agent=each warn only 50%, 80%",
        f"{tmp_path / 'limits.yaml'} is right: 1 provider, 2 models, 2 budgets.",
    ):
        assert line in lines


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    _, lines, _ = check(tmp_path / "limits.yaml", GOOD)
    assert not [line for line in lines if "sk-secret" in line or "hidden" in line]


def test_every_problem_of_a_bad_file_is_said_at_once(tmp_path: Path) -> None:
    bad = GOOD.replace("rpm: 500", "rmp: 500").replace("budget_limit: 100", "budget_limit: -1")
    code, lines, errors = check(tmp_path / "limits.yaml", bad)
    assert (code, lines) == (2, [])
    assert "providers.openai.models.gpt-4.rmp: unknown key; did you mean 'rpm'?" in errors
    assert "budget_limit: is -1: give a finite number above 0." in errors


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["check", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert result.stderr == f"{tmp_path / 'none.yaml'}: cannot be read: No such file or directory.\n"


def test_a_file_without_providers(tmp_path: Path) -> None:
    code, lines, _ = check(tmp_path / "limits.yaml", "budget_limit: 3\n")
    assert code == 0
    assert lines[-1].endswith("is right: 0 providers, 0 models, 1 budget.")
