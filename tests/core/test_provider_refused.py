"""`Provider(...)` that makes no sense: what is refused, and in which words."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

import pytest

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.provider import Model, Provider

ABOVE_0 = "give a finite number above 0"
DOLLARS = "give dollars as a finite number of at least 0"
SHARE = "give a share above 0 and up to 1, such as 0.8"
TARGET = "write it as 'provider:model', or as 'model' for one of the same provider"
TEXT_LIMIT = "write it like '40 requests/week', '1M tokens/day', '$5/day' or '10 concurrent'"
RESOURCES = "it is one of requests, input_tokens, output_tokens, tokens, cost, concurrency"
PERIODS = "it is one of second, minute, hour, day, week, month, or a number of seconds"
MODEL_KEYS = (
    "rps, rpm, rpd, tpm, tpd, itpm, otpm, concurrency, limits, counts, strategy, cost_per_1k, input_per_1m, "
    "output_per_1m, cached_input_per_1m, cache_write_per_1m, cache_write_1h_per_1m, reasoning_per_1m, "
    "input_audio_per_1m, output_audio_per_1m, per_request, tiers, service_tiers, fallbacks, degrade_to, degrade_at"
)
WORDS = "count requests, tokens, input tokens, output tokens, dollars ('$5/day') or concurrent"
CONCURRENCY = "'concurrency' goes with the resource 'concurrency', and only with it"
TWO_ALIKE = "two different ones are called '5 requests/day'; give one a name of its own"
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
        ({"rpm": date(2026, 1, 1)}, f"rpm: is a date: {ABOVE_0}."),
        ({"rpm": 1.5}, "rpm: is 1.5: give a whole number."),
        ({"rpm": 10**16}, "rpm: is 10000000000000000: give a number of at most 1e15."),
        ({"rpm": 10**5000}, "rpm: is a number of thousands of digits: give a number of at most 1e15."),
        ({"concurrency": 2.5}, "concurrency: is 2.5: give a whole number."),
        # Keys.
        ({"rmp": 500}, "rmp: unknown key; did you mean 'rpm'?"),
        ({"price": 500}, f"price: unknown key; it is one of {MODEL_KEYS}."),
        ({5: 500}, "[5]: is 5: write the key as text, in quotes."),
        # Words.
        ({"counts": "max"}, "counts: is 'max': it is one of actual, max_tokens."),
        ({"strategy": "gcra"}, "strategy: is 'gcra': it is one of token_bucket, sliding_window, fixed_window."),
        # Limits.
        ({"limits": "5 requests/day"}, "limits: is text: write it as a list."),
        ({"limits": [5]}, "limits[0]: is 5: write '40 requests/week', or the fields of a limit."),
        ({"limits": ["5 apples/day"]}, f"limits[0]: is '5 apples/day': {WORDS}."),
        ({"limits": ["rpm"]}, f"limits[0]: is 'rpm': {TEXT_LIMIT}."),
        ({"limits": ["0 tokens/day"]}, f"limits[0]: is '0 tokens/day': {ABOVE_0}."),
        ({"limits": ["9" * 400 + " tokens/day"]}, f"limits[0]: is '{'9' * 79}…: give a number of at most 1e15."),
        ({"limits": [{**A_DAY, "amount": 0}]}, f"limits[0].amount: is 0: {ABOVE_0}."),
        ({"limits": [{**A_DAY, "amount": 1.5}]}, "limits[0].amount: is 1.5: requests are counted in whole numbers."),
        ({"limits": [{**A_DAY, "per": "fortnight"}]}, f"limits[0].per: is 'fortnight': {PERIODS}."),
        ({"limits": [{**A_DAY, "per": 0}]}, f"limits[0].per: is 0: {PERIODS}."),
        ({"limits": [{**A_DAY, "resource": "apples"}]}, f"limits[0].resource: is 'apples': {RESOURCES}."),
        ({"limits": [{**A_DAY, "strategy": "concurrency"}]},
            f"limits[0].strategy: is 'concurrency': {CONCURRENCY}."),
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
        ({"rpd": 5, "limits": [{**A_DAY, "burst": 2}]}, f"limits: is a list: {TWO_ALIKE}."),
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


PROVIDER_KEYS = (
    "rps, rpm, rpd, tpm, tpd, itpm, otpm, concurrency, limits, preset, tier, models, pools, base_url, api_key, kind, "
    "name"
)
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
        ({"counts": "actual"}, f"Provider 'openai': counts: unknown key; it is one of {PROVIDER_KEYS}."),
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
