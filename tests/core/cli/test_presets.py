"""`agent-rate-limiter presets`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent_rate_limiter.provider import Provider
from agent_rate_limiter.providers.presets import presets
from tests.core.cli.conftest import Done

Command = Callable[..., Done]
Show = Callable[..., list[str]]


@pytest.fixture
def show(command: Command) -> Show:
    """The lines of what is shown."""

    def call(*arguments: str) -> list[str]:
        done = command("presets", *arguments)
        assert (done.code, done.stderr) == (0, "")
        return done.lines

    return call


def test_all_are_listed_with_their_tiers_and_dates(show: Show) -> None:
    lines = show()
    for each in presets():
        assert f"{each.name} {', '.join(each.tiers)} {each.date}{' observed' * each.uncertain}" in lines


def test_one_is_shown_with_its_source(show: Show) -> None:
    lines = show("anthropic", "--tier", "build")
    (about,) = [each for each in presets() if each.name == "anthropic"]
    assert lines[0] == f"anthropic, build (of {', '.join(about.tiers)})"
    assert lines[1] == f"{about.date}, {about.source}"
    together = [line for line in lines if "together 5,000 requests/minute" in line]
    assert together, lines
    assert "5,000,000 input tokens/minute" in " ".join(lines)


def test_the_smallest_tier_unless_said(show: Show) -> None:
    assert show("openai") == show("openai", "--tier", "tier-1")


def test_limits_that_all_models_share_and_zones_are_said(show: Show) -> None:
    assert "all models together 1 requests/second" in show("mistral")
    assert any("(fixed window, America/Los_Angeles)" in line for line in show("gemini"))
    assert show("gemini")[1].startswith("observed, not published; ")
    assert any(line.startswith("*:free together 20 requests/minute") for line in show("openrouter"))


@pytest.mark.parametrize("name", [each.name for each in presets()])
def test_every_tier_can_be_shown(name: str, show: Show) -> None:
    (about,) = [each for each in presets() if each.name == name]
    for tier in about.tiers:
        assert len(show(name, "--tier", tier)) > 4


def test_what_is_shown_is_what_a_provider_is_given(show: Show) -> None:
    shown = " ".join(show("cohere", "--tier", "production"))
    provider = Provider.preset("cohere", tier="production")
    limits = [*provider.limits, *(limit for it in provider.pools.values() for limit in it.limits)]
    limits += [limit for model in provider.models.values() for limit in model.limits]
    assert len({limit.name for limit in limits}) > 2
    for name in [*provider.models, *(limit.name for limit in limits)]:
        assert name in shown


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["opnai"], "Error: preset is 'opnai': it is one of "),
        (["openai", "--tier", "tier-9"], "Error: tier of the preset 'openai' is 'tier-9': it is one of tier-1,"),
    ],
)
def test_what_does_not_exist(arguments: list[str], problem: str, command: Command) -> None:
    done = command("presets", *arguments)
    assert (done.code, done.stdout) == (2, "")  # as of every other mistake
    assert f"\n{problem}" in done.stderr
