"""What a configuration takes from the environment."""

from __future__ import annotations

from typing import Any

import pytest

from agent_rate_limiter.config import load_config
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.limits import Limit, Resource


def refusal(source: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(source)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("redis://${TEST_HOST}:6379/0", "redis://db.example:6379/0"),
        ("redis://${TEST_GONE:-localhost}/0", "redis://localhost/0"),
        ("redis://${TEST_EMPTY:-localhost}/0", "redis://localhost/0"),
        ("redis://${TEST_HOST:-localhost}/${TEST_EMPTY}", "redis://db.example/"),
        ("redis://u:$$p$$$${x}@h/$5", "redis://u:$p$${x}@h/$5"),
    ],
)
def test_the_environment_fills_in(written: str, read: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_HOST", "db.example")
    monkeypatch.setenv("TEST_EMPTY", "")
    monkeypatch.delenv("TEST_GONE", raising=False)
    assert load_config({"store": written}).store == read


def test_numbers_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_RPM", "500")
    config = load_config({"providers": {"openai": {"rpm": "${TEST_RPM}", "limits": ["${TEST_RPM} tokens/day"]}}})
    assert [str(limit) for limit in config.providers[0].limits] == ["500 requests/minute", "500 tokens/day"]


def test_dollars_are_no_variables() -> None:
    (provider,) = load_config({"providers": {"openai": {"limits": ["$5/day"]}}}).providers
    assert provider.limits == (Limit(Resource.COST, 5, "day"),)


def test_keys_come_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    config = load_config({"providers": {"openai": {"api_key": "${TEST_KEY}"}}})
    assert config.providers[0].api_key == "sk-secret"
    assert "sk-secret" not in repr(config)
    assert refusal({"providers": {"openai": {"api_key": "sk-secret"}}}) == (
        "config: providers.openai.api_key: name an environment variable, as in '${OPENAI_API_KEY}'; "
        "the key itself is not written here."
    )


def test_every_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TEST_A", "TEST_B", "TEST_C"):
        monkeypatch.delenv(name, raising=False)
    written = {
        "providers": [{"name": "openai", "rpm": "${TEST_A}", "api_key": "${TEST_B}"}],
        "store": "redis://${TEST_C}",
        "timezone": "${1}",
        "max_queue": "${TEST_A",
    }
    assert refusal(written).splitlines() == [
        (
            "config: providers[0].rpm: is '${TEST_A}': the environment variable TEST_A is not set: set it, "
            "or write '${TEST_A:-default}'."
        ),
        "config: providers[0].api_key: the environment variable TEST_B is not set, or empty: set it.",
        (
            "config: timezone: is '${1}': write '${NAME}' or '${NAME:-default}', "
            "and '$${' for the two characters themselves."
        ),
        (
            "config: max_queue: is '${TEST_A': write '${NAME}' or '${NAME:-default}', "
            "and '$${' for the two characters themselves."
        ),
        "config: store: the environment variable TEST_C is not set: set it, or write '${TEST_C:-default}'.",
    ]


def test_what_came_from_the_environment_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SECRET", "hush")
    written = {
        "providers": {
            "openai": {"rpm": "${TEST_SECRET}", "limits": ["${TEST_SECRET}", {"resource": "${TEST_SECRET}"}]}
        },
        "timezone": "${TEST_SECRET}",
        "store": "${TEST_SECRET}",
        "fallbacks": {"a:b": ["${TEST_SECRET}"]},
    }
    message = refusal(written)
    assert "hush" not in message
    assert "config: timezone: is '${TEST_SECRET}': give an IANA name such as 'America/Los_Angeles'." in message
    assert "config: fallbacks['a:b'][0]: is '${TEST_SECRET}': write it as 'provider:model'" in message
    assert len(message.splitlines()) == 7
