"""`Provider(...)`: what users write of a provider, what becomes of it, and what is refused."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
import traceback
from typing import Any

import pytest

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.limits import Limit, Resource, Scope, Target, shorthand
from agent_rate_limiter.pricing import Price
from agent_rate_limiter.provider import Model, Provider


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


# -- what is refused ---------------------------------------------------------------------------------------

ABOVE_0 = "give a finite number above 0"
DOLLARS = "give dollars as a finite number of at least 0"
SHARE = "give a share above 0 and up to 1, such as 0.8"
TARGET = "write it as 'provider:model', or as 'model' for one of the same provider"
TEXT_LIMIT = "write it like '40 requests/week', '1M tokens/day', '$5/day' or '10 concurrent'"
RESOURCES = "it is one of requests, input_tokens, output_tokens, tokens, cost, concurrency"
PERIODS = "it is one of second, minute, hour, day, week, month, or a number of seconds"
A_DAY = {"resource": "requests", "amount": 5, "per": "day"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        # Numbers.
        ({"rpm": 0}, f"rpm: is 0: {ABOVE_0}."),
        ({"rpm": -5}, f"rpm: is -5: {ABOVE_0}."),
        ({"rpm": math.nan}, f"rpm: is nan: {ABOVE_0}."),
        ({"rpm": math.inf}, f"rpm: is inf: {ABOVE_0}."),
        ({"rpm": "many"}, f"rpm: is 'many': {ABOVE_0}."),
        ({"rpm": "1:30"}, f"rpm: is '1:30': {ABOVE_0}."),
        ({"rpm": "1,5"}, f"rpm: is '1,5': {ABOVE_0}."),
        ({"rpm": True}, f"rpm: is True: {ABOVE_0} (YAML also reads a bare yes or on as True)."),
        ({"rpm": [5]}, f"rpm: is a list: {ABOVE_0}."),
        ({"rpm": 1.5}, "rpm: is 1.5: give a whole number."),
        ({"rpm": 10**16}, "rpm: is 10000000000000000: give a number of at most 1e15."),
        ({"rpm": 10**5000}, "rpm: is a number of thousands of digits: give a number of at most 1e15."),
        ({"concurrency": 2.5}, "concurrency: is 2.5: give a whole number."),
        # Keys.
        ({"rmp": 500}, "rmp: unknown key; did you mean 'rpm'?"),
        ({"price": 500}, "price: unknown key; it is one of rps, rpm, rpd, tpm, tpd, itpm, otpm, concurrency, limits, "
            "counts, strategy, cost_per_1k, input_per_1m, output_per_1m, cached_input_per_1m, cache_write_per_1m, "
            "cache_write_1h_per_1m, reasoning_per_1m, input_audio_per_1m, output_audio_per_1m, per_request, "
            "fallbacks, degrade_to, degrade_at."),
        ({5: 500}, "[5]: is 5: write the key as text, in quotes."),
        # Words.
        ({"counts": "max"}, "counts: is 'max': it is one of actual, max_tokens."),
        ({"strategy": "gcra"}, "strategy: is 'gcra': it is one of token_bucket, sliding_window, fixed_window."),
        # Limits.
        ({"limits": "5 requests/day"}, "limits: is text: write it as a list."),
        ({"limits": [5]}, "limits[0]: is 5: write '40 requests/week', or the fields of a limit."),
        ({"limits": ["5 apples/day"]}, "limits[0]: is '5 apples/day': count requests, tokens, input tokens, "
            "output tokens, dollars ('$5/day') or concurrent."),
        ({"limits": ["rpm"]}, f"limits[0]: is 'rpm': {TEXT_LIMIT}."),
        ({"limits": ["0 tokens/day"]}, f"limits[0]: is '0 tokens/day': {ABOVE_0}."),
        ({"limits": ["9" * 400 + " tokens/day"]}, f"limits[0]: is '{'9' * 79}…: give a number of at most 1e15."),
        ({"limits": [{**A_DAY, "amount": 0}]}, f"limits[0].amount: is 0: {ABOVE_0}."),
        ({"limits": [{**A_DAY, "amount": 1.5}]}, "limits[0].amount: is 1.5: requests are counted in whole numbers."),
        ({"limits": [{**A_DAY, "per": "fortnight"}]}, f"limits[0].per: is 'fortnight': {PERIODS}."),
        ({"limits": [{**A_DAY, "per": 0}]}, f"limits[0].per: is 0: {PERIODS}."),
        ({"limits": [{**A_DAY, "resource": "apples"}]}, f"limits[0].resource: is 'apples': {RESOURCES}."),
        ({"limits": [{**A_DAY, "strategy": "concurrency"}]}, "limits[0].strategy: is 'concurrency': "
            "'concurrency' goes with the resource 'concurrency', and only with it."),
        ({"limits": [{**A_DAY, "strategy": "sliding_window", "burst": 2}]},
            "limits[0].burst: is 2: only a token bucket has a burst; remove it."),
        ({"limits": [{**A_DAY, "scope": "agent"}]},
            "limits[0].scope: is 'agent': write labels, as in {agent: researcher} or {agent: each}."),
        ({"limits": [{**A_DAY, "scope": {"agent": None}}]},
            "limits[0].scope: is a mapping: write labels, as in {agent: researcher} or {agent: each}."),
        ({"limits": [{**A_DAY, "timezone": "Mars"}]},
            "limits[0].timezone: is 'Mars': give an IANA name such as 'America/Los_Angeles'."),
        ({"limits": [{**A_DAY, "timezone": 5}]}, "limits[0].timezone: is 5: write it as text, in quotes."),
        ({"limits": [{**A_DAY, "name": " x"}]}, "limits[0].name: is ' x': write a name, without spaces around it."),
        ({"limits": [{"amount": 5}]}, "limits[0].resource: is missing: add it."),
        ({"limits": [{**A_DAY, "perr": 5}]}, "limits[0].perr: unknown key; did you mean 'per'?"),
        ({"rpd": 5, "limits": [{**A_DAY, "burst": 2}]}, "limits: is a list: "
            "two different ones are called '5 requests/day'; give one a name of its own."),
        # Prices.
        ({"cost_per_1k": -1}, f"cost_per_1k: is -1: {DOLLARS}."),
        ({"input_per_1m": math.nan, "output_per_1m": 1}, f"input_per_1m: is nan: {DOLLARS}."),
        ({"cost_per_1k": 1, "input_per_1m": 1}, "cost_per_1k: is 1: give it or input_per_1m, not both."),
        ({"input_per_1m": 1}, "output_per_1m: is missing: add it (0 where it is free)."),
        ({"per_request": 1}, "input_per_1m: is missing: add it (0 where it is free)."),
        # Targets.
        ({"fallbacks": "gpt-5"}, "fallbacks: is text: write it as a list."),
        ({"fallbacks": ["gpt-5", ""]}, f"fallbacks[1]: is '': {TARGET}."),
        ({"fallbacks": [":x"]}, f"fallbacks[0]: is ':x': {TARGET}."),
        ({"fallbacks": [4]}, f"fallbacks[0]: is 4: {TARGET}."),
        ({"fallbacks": ["gpt-5", "gpt-4"]}, "fallbacks[1]: is 'openai:gpt-4': it is the model itself; remove it."),
        ({"degrade_to": "openai:gpt-4"},
            "degrade_to: is 'openai:gpt-4': it is the model itself; name a cheaper one."),
        ({"degrade_to": 4}, "degrade_to: is 4: write 'provider:model', or {target: 'provider:model', at: 0.8}."),
        ({"degrade_to": "a:"}, f"degrade_to.target: is 'a:': {TARGET}."),
        ({"degrade_to": {"target": "a:b", "at": 80}}, f"degrade_to.at: is 80: {SHARE}."),
        ({"degrade_to": {"targt": "a:b", "target": "a:b"}},
            "degrade_to.targt: unknown key; did you mean 'target'?"),
        ({"degrade_at": 0.5}, "degrade_at: is 0.5: add degrade_to, or remove this."),
        ({"degrade_to": {"target": "a:b", "at": 0.8}, "degrade_at": 0.5},
            "degrade_at: is 0.5: it is in degrade_to already; remove one."),
    ],
)  # fmt: skip
def test_a_bad_model_is_refused(entry: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Provider("openai", {"gpt-4": entry})
    joint = "" if message.startswith("[") else "."
    assert str(caught.value) == f"Provider 'openai': models.gpt-4{joint}{message}"


NAME = "use letters, digits, '.', '_' and '-' only, as in 'openai'"
URL = "write it like 'https://host/path', without a secret: that goes into api_key"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, f"Provider '': name: is '': {NAME}."),
        ({"name": "open:ai"}, f"Provider 'open:ai': name: is 'open:ai': {NAME}."),
        ({"name": None}, f"Provider None: name: is None: {NAME}."),
        ({"models": ["gpt-4"]}, "Provider 'openai': models: is a list: write it as 'key: value' pairs."),
        ({"models": {"gpt-4": "x"}}, "Provider 'openai': models.gpt-4: is text: write it as 'key: value' pairs."),
        ({"models": {"gpt 4": 5}}, "Provider 'openai': models['gpt 4']: is 5: write it as 'key: value' pairs."),
        ({"models": {"gpt-4.1": {"rpm": 0}}}, f"Provider 'openai': models['gpt-4.1'].rpm: is 0: {ABOVE_0}."),
        ({"models": {"": {}}}, "Provider 'openai': models['']: is '': write a name, without spaces around it."),
        ({"models": {4: {}}}, "Provider 'openai': models[4]: is 4: write it as text, in quotes."),
        (
            {"models": {"gpt-4": Model("gpt-5")}},
            "Provider 'openai': models.gpt-4: is 'gpt-5': its name differs from its key; make them the same.",
        ),
        ({"base_url": "api.openai.com"}, f"Provider 'openai': base_url: {URL}."),
        ({"base_url": "https://me:secret@host"}, f"Provider 'openai': base_url: {URL}."),
        ({"base_url": "https://host:port"}, f"Provider 'openai': base_url: {URL}."),
        ({"base_url": "https://[host"}, f"Provider 'openai': base_url: {URL}."),
        ({"base_url": "https://ho st"}, f"Provider 'openai': base_url: {URL}."),
        ({"kind": 4}, "Provider 'openai': kind: is 4: write it as text, in quotes."),
        ({"limits": ["x"]}, f"Provider 'openai': limits[0]: is 'x': {TEXT_LIMIT}."),
        ({"rmp": 4}, "Provider 'openai': rmp: unknown key; did you mean 'rpm'?"),
        ({"counts": "actual"}, "Provider 'openai': counts: unknown key; did you mean 'concurrency'?"),
    ],
)
def test_a_bad_provider_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Provider(**({"name": "openai"} | arguments))
    assert str(caught.value) == message


def test_everything_that_is_wrong_is_told_at_once() -> None:
    entry: Any = {"rpm": -1, "rmp": 5, "limits": ["10 requests/day", "x"]}
    with pytest.raises(ConfigError) as caught:
        Provider("openai", {"gpt-4": entry}, base_url="x", rpm="y")
    assert str(caught.value).splitlines() == [
        f"Provider 'openai': rpm: is 'y': {ABOVE_0}.",
        f"Provider 'openai': models.gpt-4.rpm: is -1: {ABOVE_0}.",
        f"Provider 'openai': models.gpt-4.limits[1]: is 'x': {TEXT_LIMIT}.",
        "Provider 'openai': models.gpt-4.rmp: unknown key; did you mean 'rpm'?",
        f"Provider 'openai': base_url: {URL}.",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limits": ["5 requests/day"]}, "limits[0] is '5 requests/day': give a Limit(...) or Limit.parse(...)."),
        ({"degrade_at": 0}, f"degrade_at is 0: {SHARE}."),
        ({"degrade_at": "x"}, f"degrade_at is 'x': {SHARE}."),
        ({"fallbacks": ["x"]}, "target is 'x': write it as 'provider:model', for example 'openai:gpt-4'."),
    ],
)
def test_a_bad_model_object_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Model("gpt-4", **arguments)
    assert str(caught.value) == message


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
