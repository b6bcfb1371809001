"""`agent-rate-limiter plan`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent_rate_limiter.cli.commands import cli

LIMITS = """\
providers:
  p:
    models:
      m: {rpm: 60, input_per_1m: 10, output_per_1m: 20}
"""


@pytest.fixture
def limits(tmp_path: Path) -> str:
    path = tmp_path / "limits.yaml"
    path.write_text(LIMITS)
    return str(path)


def test_it_prints_the_plan(limits: str) -> None:
    result = CliRunner().invoke(cli, ["plan", "--config", limits, "--workload", "120 calls, 1k in, 500 out, 5 s each"])
    assert result.exit_code == 0
    assert "  takes   1 min 5 s; 5 s without limits" in result.stdout
    assert "p:m: 60 requests/minute" in result.stdout


def test_numbers_and_a_picture(limits: str, tmp_path: Path) -> None:
    picture = tmp_path / "plan.png"
    arguments = ["--config", limits, "--workload", "120 calls, 5 s each", "--factor", "4"]
    result = CliRunner().invoke(cli, ["plan", *arguments, "--json", "--plot", str(picture)])
    found = json.loads(result.stdout)
    assert (found["calls"], found["factor"], found["seconds"]) == (120, 4, 65)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("config", "workload", "extra", "why"),
    [
        ("nowhere.yaml", "5 calls", [], "nowhere.yaml: cannot be read"),
        (None, "5 cals", [], "'5 cals' is not understood"),
        (None, "5 calls", ["--factor", "0.5"], "factor is 0.5"),
        (None, "5 calls", ["--plot", "plan.xyz"], "xyz"),
        (None, "5 calls", ["--plot", "no/such/folder/plan.png"], "No such file or directory"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    config: str | None, workload: str, extra: list[str], why: str, limits: str
) -> None:
    result = CliRunner().invoke(cli, ["plan", "--config", config or limits, "--workload", workload, *extra])
    assert (result.exit_code, result.stdout) == (2, "")
    assert why in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
