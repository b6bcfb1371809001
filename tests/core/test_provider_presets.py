"""`Provider.preset(...)`, and pools: limits that some of a provider's models share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent_rate_limiter import ConfigError, Limit, MultiProviderLimiter, Pool, Provider, Resource
from agent_rate_limiter.calls.reservation import Reservation
from agent_rate_limiter.providers import Quota
from agent_rate_limiter.testing import ManualClock


def amounts(limits: tuple[Limit, ...]) -> dict[str, float]:
    return {limit.name: limit.amount for limit in limits}


def free(limiter: MultiProviderLimiter, target: str) -> dict[tuple[str, str], float]:
    """What each limit of a target has left, by owner and resource."""
    return {(limit.owner, limit.resource): limit.available for limit in limiter.explain(target).limits}


# ---------------------------------------------------------------- pools


def test_models_of_a_pool_draw_on_one_limit(manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter([Provider.preset("anthropic", tier="build")], clock=manual_clock)
    for model in ("claude-opus-4-8", "claude-opus-4-5"):
        limiter.acquire(f"anthropic:{model}", input_tokens=1_000)
    pool = "anthropic pool opus-4"
    left = free(limiter, "anthropic:claude-opus-4-6")
    assert left == {(pool, "requests"): 4_998, (pool, "input_tokens"): 4_998_000, (pool, "output_tokens"): 1_000_000}
    assert free(limiter, "anthropic:claude-sonnet-4-5")["anthropic pool sonnet-4", "requests"] == 5_000
    assert free(limiter, "anthropic:claude-opus-5")["anthropic:claude-opus-5", "requests"] == 5_000


def test_headers_of_one_model_correct_the_limit_of_its_pool(manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter([Provider.preset("anthropic")], clock=manual_clock)
    call = limiter.acquire("anthropic:claude-opus-4-8")
    call.observe([Quota(Resource.REQUESTS, "minute", 1_000, 40)])
    assert free(limiter, "anthropic:claude-opus-4-5")["anthropic pool opus-4", "requests"] == 40


@pytest.mark.parametrize(("model", "pooled"), [("llama:free", True), ("llama", False)])
def test_a_pool_may_name_a_pattern(manual_clock: ManualClock, model: str, pooled: bool) -> None:
    limiter = MultiProviderLimiter([Provider.preset("openrouter")], clock=manual_clock)
    assert (("openrouter pool free", "requests") in free(limiter, f"openrouter:{model}")) is pooled
    assert list(limiter.providers["openrouter"].models) == ["*"]


def test_a_model_has_limits_of_its_own_beside_its_pool(manual_clock: ManualClock) -> None:
    provider = Provider("openai", {"big": {"rpm": 3}}, pools={"all": {"models": ["big", "small"], "rpm": 5}})
    limiter = MultiProviderLimiter([provider], clock=manual_clock)
    calls = [
        limiter.try_acquire(f"openai:{model}") for model in ("big", "big", "big", "big", "small", "small", "small")
    ]
    assert [isinstance(call, Reservation) for call in calls] == [True, True, True, False, True, True, False]


@pytest.mark.parametrize(
    ("pools", "message"),
    [
        ({"p": {"rpm": 4}}, "Provider 'x': pools.p.models: is missing: add it."),
        (
            {"p": {"models": [], "rpm": 4}},
            "Provider 'x': pools.p.models: is a list: list the models that share the limits, at least one.",
        ),
        ({"p": {"models": ["a"], "rmp": 4}}, "Provider 'x': pools.p.rmp: unknown key; did you mean 'rpm'?"),
        ({"p": {"models": ["a"], "rpm": 0}}, "Provider 'x': pools.p.rpm: is 0: give a finite number above 0."),
    ],
)
def test_a_bad_pool_is_refused(pools: Any, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Provider("x", pools=pools)
    assert str(refused.value) == message


def test_a_pool_can_be_made_by_hand() -> None:
    pool = Pool("fast", ["a", "b-*"], [Limit.parse("5 requests/minute")])  # type: ignore[arg-type]
    provider = Provider("x", pools={"fast": pool})
    assert provider.pools == {"fast": pool}
    assert list(provider.models) == ["a"]
    assert (provider.pools_of("b-1"), provider.pools_of("c")) == ((pool,), ())
    with pytest.raises(ConfigError, match="models is 'a'"):
        Pool("fast", "a")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"limits\[0\] is '5/s'"):
        Pool("fast", ("a",), ("5/s",))  # type: ignore[arg-type]


# ---------------------------------------------------------------- presets


def test_what_a_user_gives_wins_over_the_preset_key_by_key() -> None:
    provider = Provider.preset(
        "anthropic",
        tier="build",
        models={"claude-haiku-4-5": {"rpm": 50}, "claude-next": {"rpm": 9}, "claude-opus-4-8": {"rpm": 2}},
        pools={"opus-4": {"rpm": 70}},
        limits=["1M tokens/day"],
        concurrency=20,
        name="claude",
    )
    assert (provider.name, provider.kind) == ("claude", "anthropic")
    assert amounts(provider.models["claude-haiku-4-5"].limits) == {
        "50 requests/minute": 50,
        "5,000,000 input tokens/minute": 5_000_000,
        "1,000,000 output tokens/minute": 1_000_000,
    }
    assert amounts(provider.models["claude-next"].limits) == {"9 requests/minute": 9}
    assert amounts(provider.models["claude-opus-4-8"].limits) == {"2 requests/minute": 2}
    assert amounts(provider.models["claude-opus-5"].limits)["5,000 requests/minute"] == 5_000
    assert [limit.amount for limit in provider.pools["opus-4"].limits] == [70, 5_000_000, 1_000_000]
    assert [limit.name for limit in provider.limits] == ["20 at once", "1,000,000 tokens/day"]


def test_what_is_published_for_all_models_holds_until_it_is_replaced() -> None:
    monthly = "1,000 requests/month"
    assert [limit.name for limit in Provider.preset("cohere").limits] == [monthly]
    assert [limit.name for limit in Provider.preset("cohere", rpm=5).limits] == ["5 requests/minute", monthly]
    assert Provider.preset("cohere", limits=[]).limits == ()


def test_openai_reserves_max_tokens() -> None:
    provider = Provider.preset("openai", tier="tier-3")
    limits = [*provider.models["gpt-5.6-terra"].limits, *provider.pools["gpt-5.6-sol"].limits]
    assert {limit.counts for limit in limits} == {"max_tokens"}


YAML = """\
providers:
  anthropic: {preset: anthropic, tier: "${TIER}", models: {claude-haiku-4-5: {rpm: 50}}}
  second:
    preset: openai
    concurrency: 4
"""


def test_files_may_name_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "limits.yaml").write_text(YAML)
    monkeypatch.setenv("TIER", "scale")
    providers = MultiProviderLimiter.from_config(tmp_path / "limits.yaml").providers
    haiku = {"claude-haiku-4-5": {"rpm": 50}}
    assert providers["anthropic"] == Provider.preset("anthropic", tier="scale", models=haiku)
    assert providers["second"] == Provider.preset("openai", name="second", concurrency=4)
    listed = MultiProviderLimiter.from_config({"providers": [{"preset": "google"}]})
    assert listed.providers == {"gemini": Provider.preset("gemini")}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"preset": "antropic"}, "preset: is 'antropic': it is one of anthropic, "),
        ({"preset": "openai", "tier": "x"}, "tier: is 'x': it is one of tier-1, tier-2, tier-3, tier-4, tier-5."),
        ({"tier": "build"}, "tier: is 'build': it is a preset's; name that with 'preset'."),
        ({"preset": ["openai"]}, "preset: is a list: it is one of "),
        ({"preset": "openai", "models": []}, "models: is a list: write it as 'key: value' pairs."),
    ],
)
def test_a_bad_preset_is_refused(entry: Any, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        MultiProviderLimiter.from_config({"providers": {"x": entry}})
    assert str(refused.value).startswith(f"config: providers.x.{message}")


def test_an_unknown_preset_or_tier_names_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"preset is 'opnai': .* Did you mean 'openai'\?"):
        Provider.preset("opnai")
    with pytest.raises(ConfigError, match="tier of the preset 'openai' is 'tier-9'"):
        Provider.preset("openai", "tier-9")
    with pytest.raises(ConfigError, match="rmp: unknown key; did you mean 'rpm'"):
        Provider.preset("openai", rmp=4)
