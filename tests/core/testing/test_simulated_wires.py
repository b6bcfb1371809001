"""What each provider's headers and 429s say, word for word: in virtual time, without a socket."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent_rate_limiter.testing.simulated.anthropic import AnthropicWire
from agent_rate_limiter.testing.simulated.calls import Refusal
from agent_rate_limiter.testing.simulated.gemini import GeminiWire
from agent_rate_limiter.testing.simulated.openai import AzureWire, GroqWire
from agent_rate_limiter.testing.simulated.options import DIMENSIONS, Dialect
from agent_rate_limiter.testing.simulated.simulation import WIRES
from agent_rate_limiter.testing.simulated.wires import Moment
from tests.core.testing.simulated import NOW, account, admitted, call, refused


@pytest.mark.parametrize(
    ("dialect", "limits", "used", "requested", "sentence"),
    [
        (
            "openai",
            {"tpm": 500_000},
            442_231,
            249_686,
            "on tokens per min (TPM): Limit 500000, Used 442231, Requested 249686. Please try again in 23.03s.",
        ),
        (
            "openai",
            {"tpm": 500_000},
            396_582,
            249_686,
            "on tokens per min (TPM): Limit 500000, Used 396582, Requested 249686. Please try again in 17.552s.",
        ),
        (
            "openai",
            {"tpm": 10_000},
            8_554,
            3_082,
            "on tokens per min (TPM): Limit 10000, Used 8554, Requested 3082. Please try again in 9.816s.",
        ),
        (
            "groq",
            {"tpd": 100_000},
            99_996,
            484,
            "on tokens per day (TPD): Limit 100000, Used 99996, Requested 484. Please try again in 6m54.72s.",
        ),
        (
            "groq",
            {"tpd": 200_000},
            197_494,
            4_035,
            "on tokens per day (TPD): Limit 200000, Used 197494, Requested 4035. Please try again in 11m0.528s.",
        ),
    ],
)
def test_published_429_bodies_recompute_word_for_word(
    dialect: Dialect, limits: dict[str, int], used: int, requested: int, sentence: str
) -> None:
    held = account(dialect, **limits)
    admitted(held, call(used))
    refusal = refused(held, call(requested))
    reply = WIRES[dialect].refusal(call(requested), refusal, Moment(NOW))
    assert reply.status == 429
    assert sentence in reply.body["error"]["message"]
    assert (reply.body["error"]["type"], reply.body["error"]["code"]) == ("tokens", "rate_limit_exceeded")
    admitted(held, call(requested), NOW + (refusal.wait or 0))


def test_published_groq_headers_recompute() -> None:
    held = account("groq", rpd=1_000, tpm=8_000)
    admitted(held, call(43))
    admitted(held, call(30))
    assert GroqWire().quota_headers(held.readings(NOW), Moment(NOW), "all") == {
        "x-ratelimit-limit-requests": "1000",
        "x-ratelimit-remaining-requests": "998",
        "x-ratelimit-reset-requests": "2m52.8s",
        "x-ratelimit-limit-tokens": "8000",
        "x-ratelimit-remaining-tokens": "7927",
        "x-ratelimit-reset-tokens": "547ms",
    }


def test_groq_tells_nothing_of_tokens_per_day() -> None:
    held = account("groq", rpm=30, tpd=100_000)
    headers = GroqWire().quota_headers(held.readings(NOW), Moment(NOW), "all")
    assert headers == {
        "x-ratelimit-limit-requests": "30",
        "x-ratelimit-remaining-requests": "30",
        "x-ratelimit-reset-requests": "0s",
    }


def test_azure_counts_whole_seconds_and_may_state_only_what_remains() -> None:
    held = account("azure", rpm=60, tpm=1_000, slices=())
    admitted(held, call(100, 400), NOW + 15.5)
    readings, moment = held.readings(NOW + 15.5), Moment(NOW + 15.5)
    assert AzureWire().quota_headers(readings, moment, "all")["x-ratelimit-reset-tokens"] == "45"
    assert AzureWire().quota_headers(readings, moment, "remaining") == {
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-remaining-tokens": "500",
    }
    assert AzureWire().quota_headers(readings, moment, "none") == {}
    refusal = refused(held, call(501), NOW + 38)
    reply = AzureWire().refusal(call(501), refusal, Moment(NOW + 38))
    assert reply.headers == {"retry-after": "22", "retry-after-ms": "22000"}
    assert reply.body["error"]["code"] == "429"
    assert (
        "have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 22 seconds."
        in reply.body["error"]["message"]
    )


def test_anthropic_rounds_tokens_to_thousands_and_names_the_moment_of_being_full() -> None:
    held = account("anthropic", rpm=50, itpm=30_000, otpm=8_000)
    taken = admitted(held, call(10_400, 500))
    held.produce(taken, 700, NOW)
    headers = AnthropicWire().quota_headers(held.readings(NOW), Moment(NOW), "all")
    assert headers == {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-11-23T22:00:02Z",  # 1.2 s
        "anthropic-ratelimit-tokens-limit": "8000",
        "anthropic-ratelimit-tokens-remaining": "7000",
        "anthropic-ratelimit-tokens-reset": "2026-11-23T22:00:06Z",  # 5.25 s
        "anthropic-ratelimit-input-tokens-limit": "30000",
        "anthropic-ratelimit-input-tokens-remaining": "20000",
        "anthropic-ratelimit-input-tokens-reset": "2026-11-23T22:00:21Z",  # 20.8 s
        "anthropic-ratelimit-output-tokens-limit": "8000",
        "anthropic-ratelimit-output-tokens-remaining": "7000",
        "anthropic-ratelimit-output-tokens-reset": "2026-11-23T22:00:06Z",
    }


def test_anthropic_refuses_in_its_own_words() -> None:
    held = account("anthropic", itpm=50_000)
    admitted(held, call(50_000))
    reply = AnthropicWire().refusal(call(100, model="claude"), refused(held, call(100)), Moment(NOW))
    assert reply.body["type"] == "error"
    assert reply.body["error"]["type"] == "rate_limit_error"
    assert reply.body["error"]["message"].startswith(
        "This request would exceed your organization's rate limit of 50,000 input tokens per minute "
        "(org: org-simulated, model: claude)."
    )
    assert reply.headers == {"retry-after": "1"}


def test_anthropics_ramp_limit_says_how_it_will_grow() -> None:
    held = account("anthropic", itpm=1_000_000, ramp=(58_276, 10_000))
    admitted(held, call(58_276))
    refusal = refused(held, call(1), NOW + 20)
    reply = AnthropicWire().refusal(call(1), refusal, Moment(NOW + 20))
    assert reply.body["error"]["details"] == {"error_code": "ramp_limit_exceeded"}
    assert "maximum usage increase rate for input tokens per minute" in reply.body["error"]["message"]
    assert "limit is 58,276 and will increase to 68,276 at the next minute boundary" in reply.body["error"]["message"]
    assert reply.headers == {"retry-after": "40"}
    admitted(held, call(68_276), NOW + 60)


@pytest.mark.parametrize(
    ("limits", "asked", "quota_id", "value"),
    [
        ({"rpm": 15}, 15, "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "15"),
        ({"rpd": 20}, 20, "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "20"),
        ({"tpm": 250}, 1, "GenerateContentInputTokensPerModelPerMinute-FreeTier", "250"),
    ],
)
def test_gemini_names_the_quota_in_the_details(limits: dict[str, int], asked: int, quota_id: str, value: str) -> None:
    held = account("gemini", **limits)
    for _ in range(asked):
        admitted(held, call(250 if "tpm" in limits else 1))
    refusal = refused(held, call(1))
    error = GeminiWire().refusal(call(1), refusal, Moment(NOW)).body["error"]
    details = {detail["@type"].rpartition(".")[2]: detail for detail in error["details"]}
    assert (error["code"], error["status"]) == (429, "RESOURCE_EXHAUSTED")
    violation = details["QuotaFailure"]["violations"][0]
    assert (violation["quotaId"], violation["quotaValue"]) == (quota_id, value)
    assert details["RetryInfo"]["retryDelay"].endswith("s")
    assert float(details["RetryInfo"]["retryDelay"][:-1]) == pytest.approx(refusal.wait)


def test_geminis_order_of_details_varies() -> None:
    held = account("gemini", rpm=0)
    orders = set()
    for tokens in range(1, 10):
        error = GeminiWire().refusal(call(tokens), refused(held, call(tokens)), Moment(NOW)).body["error"]
        orders.add(tuple(detail["@type"] for detail in error["details"]))
    assert len(orders) > 1


def test_geminis_day_ends_at_midnight_in_california() -> None:
    held = account("gemini", rpd=1)
    admitted(held, call(1))
    assert refused(held, call(1)).wait == 10 * 3600  # 14:00 there
    admitted(held, call(1), NOW + 10 * 3600)


@pytest.mark.parametrize(("dialect", "status"), [("openai", 429), ("groq", 413)])
def test_what_never_fits_says_so_and_does_not_say_when(dialect: Dialect, status: int) -> None:
    held = account(dialect, tpm=30_000)
    reply = WIRES[dialect].refusal(call(32_042), refused(held, call(32_042)), Moment(NOW))
    assert reply.status == status
    assert "Request too large for " in reply.body["error"]["message"]
    assert "Limit 30000, Requested 32042" in reply.body["error"]["message"]
    assert reply.headers == {}


@pytest.mark.parametrize(
    ("speed", "duration", "retry_after", "milliseconds", "timestamp"),
    [
        (1, "23.03s", "24", "23031", "2026-11-23T22:00:24Z"),
        (60, "383ms", "0.384", "384", "2026-11-23T22:00:00.384Z"),
    ],
)
def test_told_times_are_the_clients(
    speed: float, duration: str, retry_after: str, milliseconds: str, timestamp: str
) -> None:
    moment = Moment(NOW, speed=speed)
    assert moment.duration(23.03004) == duration
    assert moment.retry_after(23.03004) == retry_after
    assert moment.retry_after_ms(23.03004) == milliseconds
    assert moment.timestamp(23.03004) == timestamp


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.012, "12ms"), (1, "1s"), (8.64, "8.64s"), (360, "6m0s"), (5184, "1h26m24s"), (86_400, "24h0m0s")],
)
def test_durations_are_written_as_go_does(seconds: float, text: str) -> None:
    assert Moment(NOW).duration(seconds) == text


def test_every_limit_has_words_for_its_errors() -> None:
    for dimension in DIMENSIONS.values():
        refusal = Refusal(dimension, 10, 10, 1, 1.0)
        for wire in WIRES.values():
            assert wire.refusal(call(1), refusal, Moment(NOW)).status == 429
            assert wire.refusal(call(1), replace(refusal, wait=None), Moment(NOW)).body["error"]["message"]
