"""`agent-rate-limiter presets`."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from agent_rate_limiter.cli.commands import cli
from agent_rate_limiter.providers.presets import presets


def show(*arguments: str) -> list[str]:
    """The lines, with single spaces."""
    result = CliRunner(env={"COLUMNS": "100"}).invoke(cli, ["presets", *arguments])
    assert result.exit_code == 0, result.output
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def test_all_are_listed_with_their_tiers_and_dates() -> None:
    lines = show()
    for each in presets():
        assert f"{each.name} {', '.join(each.tiers)} {each.date}{' observed' * each.uncertain}" in lines


def test_one_is_shown_with_its_source() -> None:
    lines = show("anthropic", "--tier", "build")
    (about,) = [each for each in presets() if each.name == "anthropic"]
    assert lines[0] == f"anthropic, build (of {', '.join(about.tiers)})"
    assert lines[1] == f"{about.date}, {about.source}"
    together = [line for line in lines if "together 5,000 requests/minute" in line]
    assert together, lines
    assert "5,000,000 input tokens/minute" in " ".join(lines)


def test_the_smallest_tier_unless_said() -> None:
    assert show("openai") == show("openai", "--tier", "tier-1")


def test_limits_that_all_models_share_and_zones_are_said() -> None:
    assert "all models together 1 requests/second" in show("mistral")
    assert any("(fixed window, America/Los_Angeles)" in line for line in show("gemini"))
    assert show("gemini")[1].startswith("observed, not published; ")
    assert any(line.startswith("*:free together 20 requests/minute") for line in show("openrouter"))


@pytest.mark.parametrize("name", [each.name for each in presets()])
def test_every_tier_can_be_shown(name: str) -> None:
    (about,) = [each for each in presets() if each.name == name]
    for tier in about.tiers:
        assert len(show(name, "--tier", tier)) > 4


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["opnai"], "Error: preset is 'opnai': it is one of "),
        (["openai", "--tier", "tier-9"], "Error: tier of the preset 'openai' is 'tier-9': it is one of tier-1,"),
    ],
)
def test_what_does_not_exist(arguments: list[str], problem: str) -> None:
    result = CliRunner().invoke(cli, ["presets", *arguments])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(problem)
