"""Configuration that makes no sense: what is refused, in which words, with which place."""

from __future__ import annotations

import math
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_rate_limiter.config import LimiterConfig, load_config
from agent_rate_limiter.errors import ConfigError

ABOVE_0 = "give a finite number above 0"
SHARE = "give a share above 0 and up to 1, such as 0.8"
TARGET = "write it as 'provider:model', for example 'openai:gpt-4'"
PERIODS = "it is one of minute, hour, day, week, month, total, or a number of seconds"
PAIRS = "write it as 'key: value' pairs"
STORE = "write it like 'memory://', 'sqlite:///agents.db' or 'redis://host:6379/0'"
LABELS = "write labels, as in {agent: researcher} or {agent: each}"
NAME = "use letters, digits, '.', '_' and '-' only, as in 'openai'"
KEYS = (
    "providers, budget_limit, budget_period, timezone, alert_threshold, limit_alert_threshold, "
    "on_alert, budgets, fallbacks, retry, store, on_store_error, lease_tokens, lease, ageing, max_queue, policy, "
    "fallback_after, ledger, on_unknown_price"
)


def yaml_file(folder: Path, text: str, name: str = "limits.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(source: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(source)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        # Keys.
        ({"provider": []}, "provider: unknown key; did you mean 'providers'?"),
        ({"xyz": 1}, f"xyz: unknown key; it is one of {KEYS}."),
        ({4: 1}, "[4]: is 4: write the key as text, in quotes."),
        # Providers.
        ({"providers": "openai"}, "providers: is text: write it as a list."),
        ({"providers": None}, "providers: is None: write it as a list."),
        ({"providers": ["openai"]}, f"providers[0]: is text: {PAIRS}."),
        ({"providers": {"openai": "sk-secret"}}, f"providers.openai: is text: {PAIRS}."),
        ({"providers": {"openai": 5}}, f"providers.openai: is 5: {PAIRS}."),
        ({"providers": {"open ai": {}}}, f"providers['open ai'].name: is 'open ai': {NAME}."),
        ({"providers": {"a": {"name": "b"}}}, "providers.a.name: is 'b': its key says another name; remove one."),
        ({"providers": [{}]}, "providers[0].name: is missing: add it."),
        (
            {"providers": [{"name": "a"}, {"name": "b"}, {"name": "a"}]},
            "providers[2].name: is 'a': it is listed already; put all its models in one entry.",
        ),
        (
            {"providers": [{"name": "a", "models": {"gpt-4": {"rmp": 4}}}]},
            "providers[0].models.gpt-4.rmp: unknown key; did you mean 'rpm'?",
        ),
        (
            {"providers": {"models": {"models": {"models": {"rmp": 4}}}}},
            "providers.models.models.models.rmp: unknown key; did you mean 'rpm'?",
        ),
        (
            {"providers": {"a": {"models": {"limits": {"limits": [{"resource": "cost", "amount": 1, "pre": 4}]}}}}},
            "providers.a.models.limits.limits[0].pre: unknown key; did you mean 'per'?",
        ),
        # Budgets.
        ({"budget_limit": 0}, f"budget_limit: is 0: {ABOVE_0}."),
        ({"budget_limit": -1}, f"budget_limit: is -1: {ABOVE_0}."),
        ({"budget_limit": math.nan}, f"budget_limit: is nan: {ABOVE_0}."),
        ({"budget_limit": "$5"}, f"budget_limit: is '$5': {ABOVE_0}."),
        ({"budget_period": "decade"}, f"budget_period: is 'decade': {PERIODS}."),
        ({"budget_period": 0}, f"budget_period: is 0: {PERIODS}."),
        ({"budget_period": None}, f"budget_period: is None: {PERIODS}."),
        ({"timezone": "Mars"}, "timezone: is 'Mars': give an IANA name such as 'America/Los_Angeles'."),
        ({"timezone": 5}, "timezone: is 5: write it as text, in quotes."),
        ({"alert_threshold": 80}, f"alert_threshold: is 80: {SHARE}."),
        ({"alert_threshold": [0.5, 0]}, f"alert_threshold[1]: is 0: {SHARE}."),
        ({"alert_threshold": "80%"}, f"alert_threshold: is '80%': {SHARE}."),
        ({"budgets": {"limit": 5}}, "budgets: is a mapping: write it as a list."),
        ({"budgets": [{}]}, "budgets[0].limit: is missing: add it."),
        (
            {"budgets": [{"limit": 5, "action": "stop"}]},
            "budgets[0].action: is 'stop': it is one of block, warn, degrade.",
        ),
        ({"budgets": [{"limit": 5, "rolling": "yes"}]}, "budgets[0].rolling: is 'yes': write true or false."),
        ({"budgets": [{"limit": 5, "per": "decade"}]}, f"budgets[0].per: is 'decade': {PERIODS}."),
        ({"budgets": [{"limit": 5, "scope": "agent"}]}, f"budgets[0].scope: is 'agent': {LABELS}."),
        ({"budgets": [{"limit": 5, "scopes": {}}]}, "budgets[0].scopes: unknown key; did you mean 'scope'?"),
        # The rest.
        ({"fallbacks": ["a:b"]}, f"fallbacks: is a list: {PAIRS}."),
        ({"fallbacks": {"a:b": "c:d"}}, "fallbacks['a:b']: is text: write it as a list."),
        ({"fallbacks": {"a": ["c:d"]}}, f"fallbacks.a: is 'a': {TARGET}."),
        ({"fallbacks": {"a:b": ["c:d", "c"]}}, f"fallbacks['a:b'][1]: is 'c': {TARGET}."),
        ({"fallbacks": {"a:b": ["a:b"]}}, "fallbacks['a:b'][0]: is 'a:b': it is the target itself; remove it."),
        ({"retry": 5}, f"retry: is 5: {PAIRS}."),
        ({"retry": {"max_attempts": 0}}, f"retry.max_attempts: is 0: {ABOVE_0}."),
        ({"retry": {"max_attempts": 1.5}}, "retry.max_attempts: is 1.5: give a whole number."),
        ({"retry": {"jitter": []}}, "retry.jitter: is a list: it is one of full, none."),
        ({"retry": {"max_attempt": 3}}, "retry.max_attempt: unknown key; did you mean 'max_attempts'?"),
        ({"retry": {"base": -1}}, "retry.base: is -1: give seconds as a finite number of at least 0."),
        ({"retry": {"budget": 3}}, f"retry.budget: is 3: {PAIRS}."),
        ({"retry": {"budget": {"ratio": -1}}}, "retry.budget.ratio: is -1: give a finite number of at least 0."),
        ({"retry": {"budget": {"min": 1}}}, "retry.budget.min: unknown key; did you mean 'minimum'?"),
        ({"store": "memory"}, f"store: {STORE}."),
        ({"store": "//user:hush@host"}, f"store: {STORE}."),
        ({"lease": 0}, f"lease: is 0: {ABOVE_0}."),
        ({"ageing": -1}, f"ageing: is -1: {ABOVE_0}."),
        ({"max_queue": 1.5}, "max_queue: is 1.5: give a whole number of at least 0."),
        ({"max_queue": {"low": 5}}, "max_queue: is a mapping: its keys are priorities, such as 10."),
        (
            {"max_queue": {1.5: 5}},
            "max_queue: is a mapping: its keys are priorities: whole numbers of at least 0, such as 10.",
        ),
        ({"policy": "best"}, "policy: is 'best': it is one of in_order, cheapest, fastest, least_loaded."),
        ({"fallback_after": -1}, "fallback_after: is -1: give seconds as a finite number of at least 0."),
        (
            {"max_queue": False},
            "max_queue: is False: give a whole number of at least 0 (YAML also reads a bare yes or on as True).",
        ),
    ],
)
def test_a_bad_configuration_is_refused(written: dict[str, Any], message: str) -> None:
    joint = "" if message.startswith("[") else " "
    assert refusal(written).replace("config: ", "config:" + joint, 1) == f"config:{joint}{message}"


def test_everything_that_is_wrong_is_told_with_the_file_and_the_place(tmp_path: Path) -> None:
    path = yaml_file(
        tmp_path,
        """
providers:
  - name: openai
    models:
      gpt-4:
        rmp: 500
        tpm: true
        limits: [40 apples/week]
budgt_limit: 5
""",
    )
    assert refusal(path).splitlines() == [
        f"{path}: providers[0].models.gpt-4.tpm: is True: {ABOVE_0} (YAML also reads a bare yes or on as True).",
        (
            f"{path}: providers[0].models.gpt-4.limits[0]: is '40 apples/week': count requests, tokens, input tokens, "
            "output tokens, dollars ('$5/day') or concurrent."
        ),
        f"{path}: providers[0].models.gpt-4.rmp: unknown key; did you mean 'rpm'?",
        f"{path}: budgt_limit: unknown key; did you mean 'budget_limit'?",
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("limits.yaml", "- a\n- b", f"is a list: {PAIRS}."),
        ("limits.yaml", "text", f"is text: {PAIRS}."),
        ("limits.json", "5", f"is 5: {PAIRS}."),
        ("limits.yaml", "lease: on", f"lease: is 'on': {ABOVE_0}."),
        ("limits.yaml", "lease: 1:30", f"lease: is '1:30': {ABOVE_0}."),
        ("limits.yaml", "lease: 2026-01-01", f"lease: is '2026-01-01': {ABOVE_0}."),
        ("limits.yaml", "lease: .nan", f"lease: is nan: {ABOVE_0}."),
        ("limits.yaml", "lease: -.inf", f"lease: is -inf: {ABOVE_0}."),
        ("limits.json", '{"lease": NaN}', f"lease: is nan: {ABOVE_0}."),
        ("limits.json", '{"lease": 1e999}', f"lease: is inf: {ABOVE_0}."),
        ("limits.yaml", "a: 1\nlease: [1, 2", "line 2, column 13: expected ',' or ']', but got '<stream end>'."),
        ("limits.yaml", "lease: 5\n lease: 4", "line 2, column 7: mapping values are not allowed here."),
        ("limits.yaml", "lease: 5\nlease: 4", "line 2, column 1: the key 'lease' is given twice; remove one."),
        ("limits.yaml", "retry: {a: 1,\n  'a': 2}", "line 2, column 3: the key 'a' is given twice; remove one."),
        ("limits.yaml", "lease: *none", "line 1, column 8: found undefined alias 'none'."),
        (
            "limits.yaml",
            "a: 1\n---\nb: 2",
            "line 2, column 1: expected a single document in the stream but found another document.",
        ),
        ("limits.yaml", "lease: !!int many", "line 1, column 8: this is not a tag:yaml.org,2002:int."),
        ("limits.yaml", "lease: !!float ''", "line 1, column 8: this is not a tag:yaml.org,2002:float."),
        (
            "limits.yaml",
            "a: 1\nlease: !!python/object:os.system x",
            (
                "line 2, column 8: could not determine a constructor for the tag "
                "'tag:yaml.org,2002:python/object:os.system'."
            ),
        ),
        ("limits.yaml", "a: 1\nb: \x07", "line 2, column 4: a character that YAML does not allow."),
        ("limits.yaml", "[" * 600, "it is nested too deeply."),  # PyYAML takes the square of it
        ("limits.json", "[" * 100_000, "it is nested too deeply."),
        ("limits.yaml", "retry: &a\n  b: [*a]", "it is nested too deeply."),
        ("limits.json", '{\n "lease" 5\n}', "line 2, column 10: Expecting ':' delimiter."),
        ("limits.json", "{\n 'lease': 5}", "line 2, column 2: Expecting property name enclosed in double quotes."),
        ("limits.json", "", "line 1, column 1: Expecting value."),
        ("limits.json", '{"a": 1, "a": 2}', "the key 'a' is given twice in one object; remove one."),
    ],
)
def test_a_bad_file_is_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = yaml_file(tmp_path, text, name)
    assert refusal(path) == f"{path}: {message}"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "limits.yaml"
    path.write_bytes(b"a: 1\nb: \xff")
    assert refusal(path) == f"{path}: line 2, column 4: it is not UTF-8 text."


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "limits.yaml"
    assert refusal(path) == f"{path}: cannot be read: No such file or directory."
    assert refusal("limits\0.yaml").startswith("limits\0.yaml: cannot be read: ")


@pytest.mark.parametrize("source", ["limits.toml", "limits", "providers: {}"])
def test_another_kind_of_file_is_refused(source: str) -> None:
    assert refusal(source) == f"{source}: give a file that ends in .yaml, .yml or .json, or a mapping."


def test_what_is_no_source_is_refused() -> None:
    assert refusal(5) == "config is 5: give the name of a file, or a mapping."
    assert refusal([]) == "config is a list: give the name of a file, or a mapping."


# -- anything at all ---------------------------------------------------------------------------------------

keys = st.sampled_from(
    sorted({*LimiterConfig.model_fields, "name", "models", "limits", "rpm", "api_key", "scope", "per", "amount"})
)
words = st.sampled_from(["a:b", "openai", "${TEST_NO_SUCH}", "$$", "1M", "5 tokens/day", "$5", "day", "block", "UTC"])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | words
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys | words | st.text(), inner, max_size=4),
    max_leaves=30,
)


def error_of(written: dict[str, Any]) -> ConfigError | None:
    try:
        load_config(written).to_options()
    except ConfigError as error:
        return error
    return None


@given(st.dictionaries(keys | st.text(), anything, max_size=6))
def test_nothing_but_a_config_error_is_raised(written: dict[str, Any]) -> None:
    error = error_of(written)
    if error is not None:
        assert str(error).startswith("config: ")
        assert error.__context__ is None  # which could repeat what was written


nested = st.recursive(
    st.just("sk-0123456789"),
    lambda inner: st.lists(inner, min_size=1, max_size=2) | st.dictionaries(keys, inner, min_size=1, max_size=2),
    max_leaves=4,
)


@given(nested, st.sampled_from(["list", "mapping"]))
def test_a_key_never_shows(key: Any, form: str) -> None:
    entry = {"api_key": key, "rpm": -1, "nmae": 5}
    providers = [entry] if form == "list" else {"openai": entry}
    with pytest.raises(ConfigError) as caught:
        load_config({"providers": providers, "store": key})
    assert "sk-0123456789" not in "".join(traceback.format_exception(caught.value))
