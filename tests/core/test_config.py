"""Configuration from YAML, JSON and mappings: what is understood, and that nothing secret leaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent_rate_limiter import MultiProviderLimiter
from agent_rate_limiter.config import LimiterConfig, config_schema, load_config
from agent_rate_limiter.limits import Limit, Resource, Target
from agent_rate_limiter.provider import Model, Provider
from agent_rate_limiter.scopes import Scope

EVERYTHING = {
    "providers": [
        {
            "name": "openai",
            "models": {
                "gpt-4": {
                    "rpm": 500,
                    "tpm": 10_000,
                    "cost_per_1k": 0.03,
                    "counts": "max_tokens",
                    "fallbacks": ["anthropic:claude-opus-4"],
                    "degrade_to": {"target": "gpt-4o-mini", "at": 0.9},
                },
                "gpt-4o-mini": {"limits": ["40 requests/week", {"resource": "tokens", "amount": 5, "per": 60}]},
            },
            "limits": ["1M tokens/day"],
            "concurrency": 20,
            "base_url": "https://proxy.example/v1",
            "kind": "openai",
        },
        {"name": "anthropic", "models": {"claude-opus-4": {"input_per_1m": 15, "output_per_1m": 75}}},
    ],
    "budget_limit": 100,
    "budget_period": "month",
    "timezone": "Europe/Berlin",
    "alert_threshold": [0.95, 0.5],
    "limit_alert_threshold": 0.9,
    "on_alert": {"webhook": "https://host/hook", "secret": "hush", "format": "slack", "timeout": 3},
    "budgets": [
        {"limit": 5, "per": "total", "scope": {"agent": "each"}, "action": "warn", "thresholds": 0.5, "rolling": False}
    ],
    "fallbacks": {"openai:gpt-4": ["anthropic:claude-opus-4"]},
    "ledger": "sqlite:///costs.db",
    "on_unknown_price": "zero",
    "on_store_error": "local",
    "retry": {"max_attempts": 4, "max_time": 60, "backoff": "exponential", "jitter": "full"},
    "store": "sqlite:///agents.db",
    "lease": 30,
    "ageing": 2.5,
    "max_queue": 100,
    "lease_tokens": 20_000,
    "policy": "cheapest",
    "fallback_after": 2,
}

EVERYTHING_IN_YAML = """\
# A comment; the providers by their names this time.
providers:
  openai:
    models:
      gpt-4:
        rpm: 500
        tpm: 10_000
        cost_per_1k: 0.03
        counts: max_tokens
        fallbacks: [anthropic:claude-opus-4]
        degrade_to: {target: gpt-4o-mini, at: 0.9}
      gpt-4o-mini:
        limits:
          - 40 requests/week
          - {resource: tokens, amount: 5, per: 60}
    limits: [1M tokens/day]
    concurrency: 20
    base_url: https://proxy.example/v1
    kind: openai
  anthropic:
    models:
      claude-opus-4: {input_per_1m: 15, output_per_1m: 75}
budget_limit: 1e2
budget_period: month
timezone: Europe/Berlin
alert_threshold: [0.95, 0.5]
limit_alert_threshold: 0.9
on_alert: {webhook: https://host/hook, secret: hush, format: slack, timeout: 3}
budgets:
  - {limit: 5, per: total, scope: {agent: each}, action: warn, thresholds: 0.5, rolling: false}
fallbacks:
  openai:gpt-4: [anthropic:claude-opus-4]
ledger: sqlite:///costs.db
on_unknown_price: zero
on_store_error: local
retry: {max_attempts: 4, max_time: 60, backoff: exponential, jitter: full}
store: sqlite:///agents.db
lease: 30
ageing: 2.5
max_queue: 100
lease_tokens: 20_000
policy: cheapest
fallback_after: 2
"""


def yaml_file(folder: Path, text: str, name: str = "limits.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# -- what is understood ------------------------------------------------------------------------------------


def test_the_options_are_ready_for_the_limiter() -> None:
    options = load_config(EVERYTHING).to_options()
    entries: Any = EVERYTHING["providers"]
    assert options == {
        "providers": [Provider(**entry) for entry in entries],
        "budget_limit": 100,
        "budget_period": "month",
        "timezone": "Europe/Berlin",
        "alert_threshold": (0.5, 0.95),
        "limit_alert_threshold": (0.9,),
        "on_alert": [{"webhook": "https://host/hook", "secret": "hush", "format": "slack", "timeout": 3}],
        "budgets": [
            {
                "limit": 5,
                "per": "total",
                "scope": Scope(agent="each"),
                "action": "warn",
                "thresholds": (0.5,),
                "rolling": False,
            }
        ],
        "fallbacks": {"openai:gpt-4": ["anthropic:claude-opus-4"]},
        "retry": {"max_attempts": 4, "max_time": 60, "backoff": "exponential", "jitter": "full"},
        "store": "sqlite:///agents.db",
        "lease": 30,
        "ageing": 2.5,
        "max_queue": 100,
        "lease_tokens": 20_000,
        "policy": "cheapest",
        "fallback_after": 2,
        "ledger": "sqlite:///costs.db",
        "on_unknown_price": "zero",
        "on_store_error": "local",
    }


def test_whatever_a_file_says_makes_a_limiter(tmp_path: Path) -> None:
    """Nothing is read and then refused, or ignored: its retries, down to their budget, included."""
    retry = {"max_attempts": "4", "base": "0.25", "cap": 5, "backoff": "linear", "jitter": "none", "max_time": 0}
    written: Any = {**EVERYTHING, "retry": {**retry, "budget": {"ratio": "0.5", "minimum": 0}}, "max_queue": {10: 0}}
    store = f"sqlite:///{tmp_path}/limits.db"
    limiter = MultiProviderLimiter.from_config(written, store=store, ledger="memory://", on_alert=None)
    made = limiter._calls.retry
    assert {name: getattr(made, name) for name in retry} == {**retry, "max_attempts": 4, "base": 0.25}
    assert repr(made.budget) == "RetryBudget(ratio=0.5, minimum=0)"
    limiter.close()


@pytest.mark.parametrize("name", ["limits.json", "limits.yaml", "limits.yml", "LIMITS.YAML"])
def test_files_and_mappings_say_the_same(name: str, tmp_path: Path) -> None:
    text = json.dumps(EVERYTHING, indent=1) if name.endswith(".json") else EVERYTHING_IN_YAML
    path = yaml_file(tmp_path, text, name)
    expected = load_config(EVERYTHING).to_options()
    assert load_config(path).to_options() == expected
    assert load_config(str(path)).to_options() == expected


def test_what_is_left_open_is_left_to_the_limiter(tmp_path: Path) -> None:
    assert load_config({}).to_options() == {"providers": []}
    assert load_config(yaml_file(tmp_path, "# nothing yet\n")).to_options() == {"providers": []}
    assert load_config({"store": None, "providers": {"openai": None}}).to_options() == {
        "providers": [Provider("openai")]
    }
    assert load_config({}).budget_period == "day"


def test_objects_are_taken_as_they_are() -> None:
    provider = Provider("openai", rpm=5)
    assert load_config({"providers": [provider]}).providers == (provider,)
    assert load_config({"providers": {"openai": provider}}).providers == (provider,)
    target = Target("anthropic", "claude")
    entry = {"models": {"gpt-4": {"fallbacks": [target], "limits": [Limit(Resource.TOKENS, 5, "day")]}}}
    (made,) = load_config({"providers": {"openai": entry}, "fallbacks": {target: [Target("a", "b")]}}).providers
    assert made.model("gpt-4") == Model("gpt-4", (Limit(Resource.TOKENS, 5, "day"),), fallbacks=(target,))


def test_editors_may_be_told_the_schema() -> None:
    assert load_config({"$schema": "https://example.org/limits.json", "lease": 5}).lease == 5


@pytest.mark.parametrize(
    ("written", "read"),
    [("0.8", (0.8,)), ("1", (1,)), ("[0.95, 0.5, 0.5]", (0.5, 0.95)), ("[]", ()), ("'0.5'", (0.5,))],
)
def test_alert_thresholds(written: str, read: tuple[float, ...], tmp_path: Path) -> None:
    assert load_config(yaml_file(tmp_path, f"alert_threshold: {written}")).alert_threshold == read


@pytest.mark.parametrize("period", ["minute", "hour", "day", "week", "month", "total", 90])
def test_budget_periods(period: str | int) -> None:
    assert load_config({"budget_period": period, "budgets": [{"limit": 1, "per": period}]}).to_options() == {
        "providers": [],
        "budget_period": period,
        "budgets": [{"limit": 1, "per": period}],
    }


@pytest.mark.parametrize("amount", ["1e6", "1_000_000", "1M", "1000000", "1000000.0", "'1,000,000'", "+1e+6"])
def test_yaml_amounts(amount: str, tmp_path: Path) -> None:
    config = load_config(yaml_file(tmp_path, f"providers: {{openai: {{tpm: {amount}}}}}"))
    assert config.providers[0].limits == (Limit(Resource.TOKENS, 1_000_000, "minute"),)


def test_yaml_is_what_it_seems(tmp_path: Path) -> None:
    text = """
providers:
  on:
    models:
      4: {rpm: 5}
      4.10: {rpm: 5}
      1:30: {rpm: 5}
      2026-01-01: {rpm: 5}
      no: {rpm: 5}
      null: {rpm: 5}
"""
    (provider,) = load_config(yaml_file(tmp_path, text)).providers
    assert provider.name == "on"
    assert list(provider.models) == ["4", "4.10", "1:30", "2026-01-01", "no", "null"]


def test_yaml_anchors_and_merges_work(tmp_path: Path) -> None:
    text = """
providers:
  openai:
    models:
      gpt-4: &usual {rpm: 010, tpm: 100}
      gpt-5: {<<: *usual, tpm: 200}
"""
    (provider,) = load_config(yaml_file(tmp_path, text)).providers
    assert provider == Provider("openai", {"gpt-4": {"rpm": 10, "tpm": 100}, "gpt-5": {"rpm": 10, "tpm": 200}})


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    for name, text in (("limits.yaml", "lease: 5"), ("limits.json", '{"lease": 5}')):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert load_config(tmp_path / name).lease == 5


def test_a_password_in_the_store_does_not_show() -> None:
    assert "hush" not in repr(load_config({"store": "redis://user:hush@host"}))


# -- the environment ---------------------------------------------------------------------------------------


# -- the schema --------------------------------------------------------------------------------------------


def test_the_schema_knows_every_key() -> None:
    schema = config_schema()
    entries = schema["$defs"]
    assert set(schema["properties"]) == set(LimiterConfig.model_fields) | {"$schema"}
    assert set(EVERYTHING) == set(LimiterConfig.model_fields)
    assert {"rpm", "limits", "fallbacks", "cost_per_1k"} <= set(entries["ModelEntry"]["properties"])
    assert {"name", "models", "api_key", "concurrency"} <= set(entries["ProviderEntry"]["properties"])
    assert entries["ProviderEntry"]["required"] == ["name"]
    assert "required" not in entries["ProviderBody"]  # its name is its key
    assert all(entry["additionalProperties"] is False for name, entry in entries.items() if name != "RetryEntry")
    assert entries["LimitEntry"]["required"] == ["resource", "amount"]
    json.dumps(schema)
