"""The dated presets."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.limit_text import SHORTHANDS, shorthand
from agent_rate_limiter.limits import Limit, Resource
from agent_rate_limiter.provider import Provider
from agent_rate_limiter.providers import dialect
from agent_rate_limiter.providers.presets import preset, presets

ALL = [(each.name, tier) for each in presets() for tier in each.tiers]

# The published tables: (preset, tier, model or pool) → requests, tokens, …
PUBLISHED: list[tuple[str, str, str, dict[str, int]]] = [
    *(
        ("openai", f"tier-{tier}", model, {"rpm": rpm, "tpm": tpm})
        for models, rows in (
            (
                ("gpt-5.6-sol", "gpt-5.6-terra"),
                [(500, 500_000), (5_000, 1_000_000), (5_000, 2_000_000), (10_000, 4_000_000), (15_000, 40_000_000)],
            ),
            (
                ("gpt-5.6-luna",),
                [(500, 500_000), (5_000, 2_000_000), (5_000, 4_000_000), (10_000, 10_000_000), (30_000, 180_000_000)],
            ),
        )
        for model in models
        for tier, (rpm, tpm) in enumerate(rows, start=1)
    ),
    *(
        ("anthropic", tier, model, {"rpm": rpm, "itpm": itpm, "otpm": otpm})
        for tier, rpm, itpm, otpm in (
            ("start", 1_000, 2_000_000, 400_000),
            ("build", 5_000, 5_000_000, 1_000_000),
            ("scale", 10_000, 10_000_000, 2_000_000),
        )
        for model in ("opus-4", "sonnet-4", "claude-opus-5-5", "claude-sonnet-5", "claude-haiku-4-5")
    ),
    ("groq", "free", "llama-3.1-8b-instant", {"rpm": 30, "rpd": 14_400}),
    ("groq", "free", "llama-3.3-70b-versatile", {"rpm": 30, "rpd": 1_000, "tpm": 12_000, "tpd": 100_000}),
    ("groq", "free", "openai/gpt-oss-120b", {"rpm": 30, "rpd": 1_000, "tpm": 8_000, "tpd": 200_000}),
    ("xai", "tier-0", "grok-4.5", {"rps": 150, "tpm": 50_000_000}),
    ("xai", "tier-4", "grok-4.7", {"rps": 500, "tpm": 100_000_000}),
    ("cohere", "trial", "command-a-03-2025", {"rpm": 20}),
    ("cohere", "production", "command-a-03-2025", {"rpm": 500}),
    ("deepseek", "default", "deepseek-v4-pro", {"concurrency": 500}),
    ("deepseek", "default", "flash", {"concurrency": 2_500}),
    ("openrouter", "free", "free", {"rpm": 20}),
    ("gemini", "free", "gemini-3.1-flash-lite", {"rpm": 15}),
]


@pytest.mark.parametrize(("name", "tier", "entry", "expected"), PUBLISHED)
def test_published_numbers(name: str, tier: str, entry: str, expected: dict[str, int]) -> None:
    found = preset(name, tier)
    limits = found.get("pools", {}).get(entry) or found["models"][entry]
    assert {key: value for key, value in limits.items() if key in SHORTHANDS} == expected


@pytest.mark.parametrize(
    ("name", "tier", "where", "expected"),
    [
        ("mistral", "free", None, Limit(Resource.TOKENS, 10**9, "month", strategy="fixed_window")),
        ("cohere", "trial", None, Limit(Resource.REQUESTS, 1_000, "month", strategy="fixed_window")),
        ("openrouter", "free", "free", Limit(Resource.REQUESTS, 50, "day", strategy="fixed_window")),
        ("openrouter", "credits", "free", Limit(Resource.REQUESTS, 1_000, "day", strategy="fixed_window")),
        (
            "gemini",
            "free",
            "gemini-2.5-flash",
            Limit(Resource.REQUESTS, 20, "day", strategy="fixed_window", timezone="America/Los_Angeles"),
        ),
    ],
)
def test_long_limits(name: str, tier: str, where: str | None, expected: Limit) -> None:
    found = preset(name, tier)
    entry = found if where is None else (found.get("pools", {}).get(where) or found["models"][where])
    assert [Limit(**fields) for fields in entry["limits"]] == [expected]


@pytest.mark.parametrize(("name", "tier"), ALL)
def test_every_preset_makes_a_provider(name: str, tier: str) -> None:
    fields = preset(name, tier)
    provider = Provider.preset(name, tier)
    assert set(provider.models) == set(fields["models"])
    assert {pool: list(made.models) for pool, made in provider.pools.items()} == {
        pool: entry["models"] for pool, entry in fields.get("pools", {}).items()
    }
    for pool in fields.get("pools", {}).values():
        _check_pool(pool, fields["models"])


def _check_pool(pool: dict[str, Any], models: dict[str, Any]) -> None:
    for model in pool["models"]:
        assert "*" in model or model in models
    limits = [shorthand(key, amount) for key, amount in pool.items() if key in SHORTHANDS]
    limits += [Limit(**fields) for fields in pool.get("limits", [])]
    assert limits
    assert set(pool) <= {"models", "limits", "counts", "strategy", *SHORTHANDS}


def test_shared_pools_are_one_limit() -> None:
    pools = preset("anthropic", "build")["pools"]
    assert pools["opus-4"]["models"] == ["claude-opus-4-8", "claude-opus-4-7", "claude-opus-4-6", "claude-opus-4-5"]
    assert pools["sonnet-4"]["models"] == ["claude-sonnet-4-6", "claude-sonnet-4-5"]


@pytest.mark.parametrize("each", presets(), ids=lambda each: each.name)
def test_every_preset_is_dated_and_sourced(each: Any) -> None:
    assert dt.date.fromisoformat(each.date) > dt.date(2026, 6, 30)
    assert each.source.startswith("https://")
    assert dialect(each.name).kind == each.name
    assert each.uncertain == (each.name == "gemini")


def test_the_smallest_tier_is_the_default() -> None:
    assert preset("openai") == preset("openai", "tier-1")
    assert preset("google") == preset("gemini", "free")


def test_what_is_returned_is_the_callers_own() -> None:
    preset("openai")["models"]["gpt-5.6-luna"]["rpm"] = 1
    assert preset("openai")["models"]["gpt-5.6-luna"]["rpm"] == 500


@pytest.mark.parametrize(
    ("name", "tier", "message"),
    [
        ("antropic", None, r"preset is 'antropic': it is one of anthropic, .* Did you mean 'anthropic'\?"),
        ("openai", "tier-9", r"tier of the preset 'openai' is 'tier-9': it is one of tier-1, .*"),
        ("azure", None, r"preset is 'azure'"),
    ],
)
def test_what_does_not_exist_is_refused(name: str, tier: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        preset(name, tier)
