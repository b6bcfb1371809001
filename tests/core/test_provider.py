"""`Provider(...)`: what users write of a provider, and what becomes of it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import traceback
from typing import Any

import pytest

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.limit_text import shorthand
from agent_rate_limiter.limits import Limit, Resource, Target
from agent_rate_limiter.pricing import Price
from agent_rate_limiter.provider import Model, Provider
from agent_rate_limiter.scopes import Scope


def model_of(entry: Any, name: str = "gpt-4", **rest: Any) -> Model:
    model = Provider("openai", {name: entry, **rest.pop("others", {})}, **rest).model(name)
    assert model is not None
    return model


# -- what is understood ------------------------------------------------------------------------------------


def test_the_designs_first_example() -> None:
    provider = Provider(name="openai", models={"gpt-4": {"rpm": 500, "tpm": 10000, "cost_per_1k": 0.03}})
    assert provider.name == "openai"
    assert provider.models == {
        "gpt-4": Model("gpt-4", (shorthand("rpm", 500), shorthand("tpm", 10_000)), Price.per_1k(0.03))
    }
    assert (provider.limits, provider.base_url, provider.api_key, provider.kind) == ((), None, None, None)


def test_every_shorthand() -> None:
    entry = {"rps": 1, "rpm": 2, "rpd": 3, "tpm": 4, "tpd": 5, "itpm": 6, "otpm": 7, "concurrency": 8}
    wanted = tuple(shorthand(name, amount) for name, amount in entry.items())
    assert model_of(entry).limits == wanted
    provider = Provider("openai", rps=1, rpm=2, rpd=3, tpm=4, tpd=5, itpm=6, otpm=7, concurrency=8)
    assert provider.limits == wanted


@pytest.mark.parametrize("amount", [1_000_000, 1e6, "1e6", "1_000_000", "1,000,000", "1M", "1m", "0.001 B", "1000k"])
def test_an_amount_may_be_written_in_many_ways(amount: float | str) -> None:
    (limit,) = model_of({"tpm": amount}).limits
    assert limit.amount == 1_000_000
    assert isinstance(limit.amount, int)


@pytest.mark.parametrize(
    ("item", "limit"),
    [
        ("40 requests/week", Limit(Resource.REQUESTS, 40, "week")),
        ("10 concurrent", Limit(Resource.CONCURRENCY, 10)),
        ({"resource": "tokens", "amount": "1M", "per": 30}, Limit(Resource.TOKENS, 1_000_000, 30)),
        ({"resource": Resource.COST, "amount": 0.5}, Limit(Resource.COST, 0.5)),
        (
            {
                "resource": "requests",
                "amount": 60,
                "per": "minute",
                "burst": 5,
                "strategy": "token_bucket",
                "scope": {"agent": "each", "run": 42},
                "name": "fair",
            },
            Limit(Resource.REQUESTS, 60, "minute", 5, scope=Scope(agent="each", run="42"), name="fair"),
        ),
        (
            {"resource": "requests", "amount": 60, "per": "day", "strategy": "fixed_window", "timezone": "Asia/Tokyo"},
            Limit(Resource.REQUESTS, 60, "day", strategy="fixed_window", timezone="Asia/Tokyo"),
        ),
        (
            {"resource": "tokens", "amount": 5, "per": "day", "counts": "max_tokens", "scope": Scope(agent="a")},
            Limit(Resource.TOKENS, 5, "day", counts="max_tokens", scope=Scope(agent="a")),
        ),
        (Limit(Resource.TOKENS, 5, "day", strategy="sliding_window"),) * 2,
    ],
)
def test_limits_take_three_forms(item: Any, limit: Limit) -> None:
    assert model_of({"limits": [item]}).limits == (limit,)
    assert Provider("openai", limits=[item]).limits == (limit,)


def test_equal_limits_count_once() -> None:
    assert model_of({"rpm": 500, "limits": ["500 requests/minute"]}).limits == (shorthand("rpm", 500),)


def test_counts_and_strategy_apply_to_what_does_not_say_otherwise() -> None:
    made = model_of(
        {
            "rpm": 5,
            "concurrency": 3,
            "counts": "max_tokens",
            "strategy": "sliding_window",
            "limits": [
                "100 tokens/hour",
                "4 concurrent",
                "$5",
                {"resource": "tokens", "amount": 9, "per": "day"},
                {"resource": "tokens", "amount": 9, "per": "week", "counts": "actual"},
                Limit(Resource.TOKENS, 7, "day"),
            ],
        }
    ).limits
    assert [(str(limit), limit.strategy, limit.counts) for limit in made] == [
        ("5 requests/minute", "sliding_window", "max_tokens"),
        ("3 at once", "concurrency", "max_tokens"),
        ("100 tokens/hour", "sliding_window", "max_tokens"),
        ("4 at once", "concurrency", "max_tokens"),
        ("$5.00 in total", "fixed_window", "max_tokens"),
        ("9 tokens/day", "token_bucket", "max_tokens"),
        ("9 tokens/week", "token_bucket", "actual"),
        ("7 tokens/day", "token_bucket", "actual"),
    ]


@pytest.mark.parametrize(
    ("entry", "price"),
    [
        ({}, None),
        (None, None),
        ({"cost_per_1k": 0.03}, Price(30, 30)),
        ({"cost_per_1k": 0.03, "cached_input_per_1m": 1}, Price(30, 30, cached_input_per_1m=1)),
        ({"cost_per_1k": 0}, Price(0, 0)),
        ({"input_per_1m": 3, "output_per_1m": "15"}, Price(3, 15)),
        (
            {
                "input_per_1m": 1,
                "output_per_1m": 2,
                "cached_input_per_1m": 3,
                "cache_write_per_1m": 4,
                "cache_write_1h_per_1m": 5,
                "reasoning_per_1m": 6,
                "input_audio_per_1m": 7,
                "output_audio_per_1m": 8,
                "per_request": 9,
            },
            Price(1, 2, 3, 4, 6, 7, 8, 9, cache_write_1h_per_1m=5),
        ),
    ],
)
def test_prices(entry: Any, price: Price | None) -> None:
    assert model_of(entry).price == price


def test_targets_are_resolved() -> None:
    model = model_of(
        {
            "fallbacks": ["gpt-4o", "anthropic:claude-opus-4", "llama3:8b", Target("ollama", "x")],
            "degrade_to": "gpt-4o",
        },
        others={"llama3:8b": None},
    )
    assert model.fallbacks == (
        Target("openai", "gpt-4o"),
        Target("anthropic", "claude-opus-4"),
        Target("openai", "llama3:8b"),  # one of its own, whose name holds a colon
        Target("ollama", "x"),
    )
    assert model.degrade_to == Target("openai", "gpt-4o")


@pytest.mark.parametrize(
    ("entry", "target", "share"),
    [
        ({}, None, 0.8),
        ({"degrade_to": "mini"}, Target("openai", "mini"), 0.8),
        ({"degrade_to": Target("groq", "mini"), "degrade_at": 0.5}, Target("groq", "mini"), 0.5),
        ({"degrade_to": {"target": "groq:mini", "at": 0.9}}, Target("groq", "mini"), 0.9),
        ({"degrade_to": {"target": "mini"}, "degrade_at": 1}, Target("openai", "mini"), 1),
    ],
)
def test_degrading(entry: Any, target: Target | None, share: float) -> None:
    model = model_of(entry)
    assert (model.degrade_to, model.degrade_at) == (target, share)


def test_the_star_stands_for_models_that_are_not_listed() -> None:
    provider = Provider(
        "openai", {"gpt-4": {"rpm": 5}, "*": {"rpm": 9, "fallbacks": ["mini", "gpt-4"], "degrade_to": "mini"}}
    )
    mini, other, listed = provider.model("mini"), provider.model("other"), provider.model("gpt-4")
    assert listed == Model("gpt-4", (shorthand("rpm", 5),))
    assert other == Model(
        "other",
        (shorthand("rpm", 9),),
        fallbacks=(Target("openai", "mini"), Target("openai", "gpt-4")),
        degrade_to=Target("openai", "mini"),
    )
    assert mini == Model("mini", (shorthand("rpm", 9),), fallbacks=(Target("openai", "gpt-4"),))  # not to itself
    assert Provider("openai", {"gpt-4": {}}).model("other") is None


def test_a_model_object_is_taken_as_it_is() -> None:
    model = Model("gpt-4", (shorthand("rpm", 5),), Price(1, 2), (Target("a", "b"),), Target("c", "d"), 0.5)
    assert model_of(model) == model
    written: Any = {"limits": [shorthand("rpm", 5)], "fallbacks": ["a:b"], "degrade_to": "c:d"}
    assert Model("gpt-4", price=Price(1, 2), degrade_at=0.5, **written) == model


def test_a_provider_is_a_value() -> None:
    def make(**options: Any) -> Provider:
        return Provider("openai", {"gpt-4": {"rpm": 5}}, kind="openai", base_url="http://[::1]:8000/v1?a=b", **options)

    assert make() == make()
    assert make() != make(rpm=4)
    assert hash(make()) == hash(make())
    assert pickle.loads(pickle.dumps(make())) == make()  # noqa: S301 - our own
    assert copy.deepcopy(make()) == make()
    assert (make().kind, make().base_url) == ("openai", "http://[::1]:8000/v1?a=b")


# -- the key -----------------------------------------------------------------------------------------------


def test_the_key_stays_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    provider = Provider("openai", api_key="${TEST_KEY}")
    assert provider.api_key == "sk-secret"
    assert "sk-secret" not in repr(provider)
    assert b"sk-secret" not in pickle.dumps(provider)
    monkeypatch.setenv("TEST_KEY", "sk-rotated")
    assert provider.api_key == "sk-rotated"
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(ConfigError, match="the environment variable TEST_KEY is not set"):
        _ = provider.api_key


def test_a_key_may_be_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    assert Provider("openai", api_key="${TEST_KEY:-}").api_key is None
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    assert Provider("openai", api_key="${TEST_KEY:-}").api_key == "sk-secret"


LITERAL = "api_key: name an environment variable, as in '${OPENAI_API_KEY}'; the key itself is not written here."


@pytest.mark.parametrize(
    "key", ["sk-secret", "sk-${TEST_KEY}", "${TEST_KEY:-sk-secret}", 5, ["sk-secret"], "$TEST_KEY"]
)
def test_a_literal_key_is_refused_and_not_repeated(key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    with pytest.raises(ConfigError) as caught:
        Provider("openai", api_key=key)
    assert str(caught.value) == f"Provider 'openai': {LITERAL}"
    assert "sk-secret" not in "".join(traceback.format_exception(caught.value)).replace("api_key=key", "")
    assert caught.value.__context__ is None


@pytest.mark.parametrize("value", [None, ""])
def test_a_key_that_the_environment_lacks_is_refused(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("TEST_KEY", value)
    with pytest.raises(ConfigError) as caught:
        Provider("openai", api_key="${TEST_KEY}")
    assert str(caught.value) == (
        "Provider 'openai': api_key: the environment variable TEST_KEY is not set, or empty: set it."
    )


def test_pydantic_is_imported_only_when_a_provider_is_made() -> None:
    program = """
import sys
import agent_rate_limiter.provider, agent_rate_limiter.pricing
assert not {"pydantic", "yaml"} & set(sys.modules), "imported too early"
agent_rate_limiter.provider.Provider("openai", {"gpt-4": {"rpm": 5}})
assert "pydantic" in sys.modules
assert "yaml" not in sys.modules, "only files need it"
"""
    subprocess.run([sys.executable, "-c", program], check=True)
