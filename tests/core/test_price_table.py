"""Prices from the table: found by provider and model, in force at a moment, with their tiers; or not at all."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timezone

import pytest

from agent_rate_limiter.costs.price_table import listed_price
from agent_rate_limiter.pricing import Price


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp() * 1000)


NOW = at("2026-11-20T12:00:00")


def price_of(provider: str, model: str, now: int = NOW) -> Price:
    listed = listed_price(provider, model, now)
    assert listed is not None
    return listed.price


# Input and output dollars per million, as the providers' price pages had them in October 2026.
@pytest.mark.parametrize(
    ("provider", "model", "dollars"),
    [
        ("openai", "gpt-4", (30, 60)),
        ("openai", "gpt-4o-2024-08-06", (2.5, 10)),
        ("OpenAI", "GPT-4o", (2.5, 10)),
        ("openai", "text-embedding-3-small", (0.02, 0)),
        ("azure", "gpt-4o", (2.5, 10)),  # another seller's list stands in
        ("anthropic", "claude-sonnet-4-5-20250929", (3, 15)),
        ("claude", "claude-haiku-4-5", (1, 5)),  # an alias of the provider
        ("google", "gemini-2.5-flash", (0.3, 2.5)),
        ("gemini", "gemini-2.5-flash", (0.3, 2.5)),
        ("vertex", "gemini-2.5-flash", (0.3, 2.5)),
        ("bedrock", "global.anthropic.claude-haiku-4-5-20251001-v1:0", (1, 5)),
        ("xai", "grok-4", (3, 15)),
        ("perplexity", "sonar", (1, 1)),  # no dialect of ours, but the table's own name
    ],
)
def test_a_model_is_found(provider: str, model: str, dollars: tuple[float, float]) -> None:
    price = price_of(provider, model)
    assert (price.input_per_1m, price.output_per_1m) == dollars


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4-of-my-own"),
        ("p", "gpt-4"),  # a seller that nobody knows
        ("my-openai", "gpt-4"),  # a name is not taken for another because it looks like it
        ("openai", "whisper-1"),  # charged by the hour, not by tokens
    ],
)
def test_what_the_table_does_not_know_is_not_made_up(provider: str, model: str) -> None:
    assert listed_price(provider, model, NOW) is None


def test_every_kind_of_token_has_its_price() -> None:
    claude = price_of("anthropic", "claude-haiku-4-5")
    assert (claude.cached_input_per_1m, claude.cache_write_per_1m, claude.cache_write_1h_per_1m) == (0.1, 1.25, 2.0)
    voice = price_of("openai", "gpt-realtime")
    assert (voice.cached_input_per_1m, voice.input_audio_per_1m, voice.output_audio_per_1m) == (0.4, 32, 64)
    assert price_of("perplexity", "sonar").per_request == 0.012


def test_tiers_and_services() -> None:
    price = price_of("anthropic", "claude-sonnet-4-5")
    assert price.tiers == {
        200_000: Price(6, 22.5, cached_input_per_1m=0.6, cache_write_per_1m=7.5, cache_write_1h_per_1m=12)
    }
    assert set(price.service_tiers) == {"batch"}
    assert price.applied(200_001, "batch").output_per_1m == 11.25
    assert set(price_of("openai", "gpt-5").service_tiers) == {"batch", "fast", "flex", "priority"}
    assert price_of("azure", "gpt-4o").service_tiers == {}  # the other seller's services are not this one's


def test_prices_change_on_their_day() -> None:
    before, after = at("2026-03-12T23:59:59"), at("2026-03-13T00:00:00")
    listed = listed_price("anthropic", "claude-opus-4-6", before)
    assert listed is not None
    assert listed.price.tiers
    assert listed.until == after
    assert not price_of("anthropic", "claude-opus-4-6", after).tiers


@pytest.mark.parametrize(
    ("time", "dollars", "until"),
    [
        ("2026-11-20T00:29:00", 0.135, "2026-11-20T00:30:00"),
        ("2026-11-20T00:30:00", 0.27, "2026-11-20T16:30:00"),
        ("2026-11-20T16:30:00", 0.135, "2026-11-21T00:30:00"),
    ],
)
def test_prices_change_with_the_hour(time: str, dollars: float, until: str) -> None:
    listed = listed_price("deepseek", "deepseek-chat", at(time))
    assert listed is not None
    assert listed.price.input_per_1m == dollars
    assert listed.until == at(until)


def test_the_source_names_the_version() -> None:
    from importlib.metadata import version

    listed = listed_price("openai", "gpt-4", NOW)
    assert listed is not None
    assert listed.source == f"genai-prices {version('genai-prices')}"
    assert listed.until is None


def test_a_table_that_updates_itself_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from genai_prices import data_snapshot

    noon = datetime(2026, 11, 19, 12, tzinfo=timezone.utc)
    bundled = data_snapshot.get_snapshot()
    fresh = data_snapshot.DataSnapshot(bundled.providers, from_auto_update=True, timestamp=noon)
    monkeypatch.setattr(data_snapshot, "_custom_snapshot", fresh)
    listed = listed_price("openai", "gpt-4", NOW)
    assert listed is not None
    assert listed.source.endswith(", updated 2026-11-19")


PROGRAM = """
import sys
from agent_rate_limiter import MultiProviderLimiter, Provider, RateLimiter, Usage
limiters = [
    MultiProviderLimiter([Provider("openai", {"gpt-4": {"rpm": 9, "input_per_1m": 1, "output_per_1m": 1}})]),
    RateLimiter(rpm=9),
]
limiters[0].acquire("openai:gpt-4").settle(Usage(input_tokens=5))
limiters[1].acquire().settle(Usage(input_tokens=5))
assert "genai_prices" not in sys.modules
limiter = MAKE
before = set(sys.modules)
call = limiter.acquire(*(["openai:gpt-4"] if isinstance(limiter, MultiProviderLimiter) else []))
call.settle(Usage(input_tokens=1000))
assert set(sys.modules) == before
print(limiter.costs.total)
"""


@pytest.mark.parametrize(
    "make",
    [
        "MultiProviderLimiter()",
        "MultiProviderLimiter([Provider('openai', {'gpt-4': {'rpm': 9}})])",
        "RateLimiter(rpm=9, target='openai:gpt-4')",
    ],
)
def test_what_a_call_needs_is_loaded_when_a_limiter_is_made(make: str) -> None:
    """It would hold an event loop. The table is left out where all prices are configured, or nobody knows any."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("MAKE", make)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) == 0.03
