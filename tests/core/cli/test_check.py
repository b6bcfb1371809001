"""`agent-rate-limiter check`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.core.cli.conftest import Done

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

Check = Callable[[str], Done]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "sk-secret")


@pytest.fixture
def check(command: Callable[..., Done], tmp_path: Path) -> Check:
    """What is said about a file called limits.yaml."""

    def call(content: str) -> Done:
        (tmp_path / "limits.yaml").write_text(content, encoding="utf-8")
        return command("check", str(tmp_path / "limits.yaml"))

    return call


def test_a_good_file_is_shown(check: Check, tmp_path: Path) -> None:
    done = check(GOOD)
    assert (done.code, done.stderr) == (0, "")
    for line in (
        "openai (all its models) 1,000,000 tokens/day",
        "openai:gpt-4 500 requests/minute 30 / 30",
        "10,000 tokens/minute (counts max_tokens)",
        "openai:* 5 requests/day (fixed window)",
        "budget $100.00/day everybody's calls are refused 50%, 80%",
        "budget $5.00 in total agent=each warn only 50%, 80%",
        f"{tmp_path / 'limits.yaml'} is right: 1 provider, 2 models, 2 budgets.",
    ):
        assert line in done.lines


def test_secrets_are_not_shown(check: Check) -> None:
    done = check(GOOD)
    assert "sk-secret" not in done.stdout
    assert "hidden" not in done.stdout


def test_every_problem_of_a_bad_file_is_said_at_once(check: Check) -> None:
    bad = GOOD.replace("rpm: 500", "rmp: 500").replace("budget_limit: 100", "budget_limit: -1")
    done = check(bad)
    assert (done.code, done.stdout) == (2, "")
    assert "providers.openai.models.gpt-4.rmp: unknown key; did you mean 'rpm'?" in done.stderr
    assert "budget_limit: is -1: give a finite number above 0." in done.stderr


def test_a_file_that_is_not_there(command: Callable[..., Done], tmp_path: Path) -> None:
    done = command("check", str(tmp_path / "none.yaml"))
    assert done.code == 2
    assert done.stderr == f"{tmp_path / 'none.yaml'}: cannot be read: No such file or directory.\n"


def test_a_file_without_providers(check: Check) -> None:
    done = check("budget_limit: 3\n")
    assert done.code == 0
    assert done.lines[-1].endswith("is right: 0 providers, 0 models, 1 budget.")
