"""What providers charge, when they refuse, and what their headers and errors say: all in virtual time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.testing.simulated.accounts import Account, Reservation, nanoseconds
from agent_rate_limiter.testing.simulated.anthropic import AnthropicWire
from agent_rate_limiter.testing.simulated.calls import Call, Refusal, Tokens
from agent_rate_limiter.testing.simulated.gemini import GeminiWire
from agent_rate_limiter.testing.simulated.openai import AzureWire, GroqWire, OpenAIWire
from agent_rate_limiter.testing.simulated.options import DIMENSIONS, Dialect, configure
from agent_rate_limiter.testing.simulated.wires import Moment, Wire

NOW = 1_795_471_200.0  # 2026-11-23 22:00:00 UTC, a whole minute
WIRES: dict[Dialect, Wire] = {
    "openai": OpenAIWire(),
    "azure": AzureWire(),
    "groq": GroqWire(),
    "anthropic": AnthropicWire(),
    "gemini": GeminiWire(),
}


def account(dialect: Dialect = "openai", **options: Any) -> Account:
    config = configure(options, "model")
    return Account(config, config.behaviour(dialect), NOW)


def call(tokens: int, most: int | None = None, model: str = "m") -> Call:
    return Call("chat", model, tokens, most)


def admitted(account: Account, asked: Call, now: float = NOW) -> Reservation:
    verdict = account.admit(asked, now)
    assert isinstance(verdict, Reservation)
    return verdict


def refused(account: Account, asked: Call, now: float = NOW) -> Refusal:
    verdict = account.admit(asked, now)
    assert isinstance(verdict, Refusal)
    return verdict


def remaining(account: Account, now: float = NOW) -> dict[str, int]:
    return {name: reading.remaining for name, reading in account.readings(now).items()}


# ---------------------------------------------------------------- published 429s and headers


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


# ---------------------------------------------------------------- charging and settling

LIMITS = {"rpm": 100, "tpm": 10_000, "itpm": 10_000, "otpm": 10_000}
USED = Tokens(input=100, output=30, cached=40, reasoning=10)


@pytest.mark.parametrize(
    ("options", "most", "at_first", "at_last"),
    [  # tokens, input tokens and output tokens taken
        ({"charge": "max_tokens", "settle": "none"}, 400, (400, 100, 400), (400, 100, 400)),
        ({"charge": "max_tokens", "settle": "none"}, 50, (100, 100, 50), (100, 100, 50)),
        ({"charge": "max_tokens", "settle": "none"}, None, (100, 100, 0), (100, 100, 0)),
        ({"charge": "max_tokens", "settle": "end"}, 400, (400, 100, 400), (130, 100, 30)),
        ({"charge": "input_plus_max_tokens", "settle": "none"}, 400, (500, 100, 400), (500, 100, 400)),
        ({"charge": "input_plus_max_tokens", "settle": "end"}, 400, (500, 100, 400), (130, 100, 30)),
        ({"charge": "input_only"}, 400, (100, 100, 0), (100, 100, 0)),
        ({"charge": "actual"}, 400, (100, 100, 0), (130, 100, 30)),
        ({"charge": "actual", "settle": "live"}, 400, (100, 100, 0), (130, 100, 30)),
        ({"charge": "none", "settle": "end"}, 400, (0, 0, 0), (130, 100, 30)),
        ({"charge": "actual", "cache_reads_count": False}, None, (100, 100, 0), (90, 60, 30)),
        ({"charge": "actual", "input_estimate": 1.5}, None, (150, 150, 0), (130, 100, 30)),
        (
            {"charge": "input_plus_max_tokens", "settle": "end", "burndown": 5, "default_max_tokens": 4_096},
            None,
            (4_196, 100, 4_096),
            (250, 100, 150),
        ),
    ],
)
def test_what_is_taken_at_admission_and_what_in_the_end(
    options: dict[str, Any], most: int | None, at_first: tuple[int, int, int], at_last: tuple[int, int, int]
) -> None:
    held = account("openai", **LIMITS, **options)

    def taken() -> tuple[int, int, int]:
        left = remaining(held)
        return 10_000 - left["tpm"], 10_000 - left["itpm"], 10_000 - left["otpm"]

    reservation = admitted(held, call(100, most))
    assert taken() == at_first
    held.produce(reservation, 10, NOW)
    live = options.get("settle") == "live"
    assert taken() == (tuple(map(sum, zip(at_first, (10, 0, 10), strict=True))) if live else at_first)
    held.produce(reservation, 20, NOW)
    held.settle(reservation, USED, NOW)
    assert taken() == at_last
    assert remaining(held)["rpm"] == 99


def test_output_counted_live_may_overdraw_and_then_holds_up_the_next() -> None:
    held = account("anthropic", otpm=100)
    reservation = admitted(held, call(10, 4_000))
    held.produce(reservation, 150, NOW)
    assert remaining(held)["otpm"] == -50
    assert refused(held, call(10)).wait == pytest.approx(30.6)
    admitted(held, call(10), NOW + 31)


@pytest.mark.parametrize(("dialect", "left"), [("openai", 1), ("anthropic", 2)])
def test_a_refusal_charges_nothing_but_a_counting_providers_request_limits(dialect: Dialect, left: int) -> None:
    held = account(dialect, rpm=3, tpm=100)
    admitted(held, call(90))
    refused(held, call(90))
    assert remaining(held) == {"rpm": left, "tpm": 10}


def test_counted_refusals_never_overdraw_a_request_limit() -> None:
    held = account("openai", rpm=3)
    for _ in range(3):
        admitted(held, call(1))
    for _ in range(10):
        refused(held, call(1))
    assert remaining(held) == {"rpm": 0}


@pytest.mark.parametrize(("dialect", "slices", "wait"), [("anthropic", (1.0,), 1.0), ("azure", (10.0,), 10.0)])
def test_requests_per_minute_are_held_to_their_share_of_a_slice(
    dialect: Dialect, slices: tuple[float, ...], wait: float
) -> None:
    held = account(dialect, rpm=60, slices=slices)
    for _ in range(round(60 * slices[0] / 60)):
        admitted(held, call(1))
    assert refused(held, call(1)).wait == wait
    assert remaining(held)["rpm"] > 0
    admitted(held, call(1), NOW + wait)
    assert set(held.readings(NOW)) == {"rpm"}  # no header tells of slices


def test_a_slot_is_held_until_the_call_is_over() -> None:
    held = account("openai", concurrency=1)
    first = admitted(held, call(1))
    refusal = refused(held, call(1), NOW + 3600)
    assert refusal.wait is None
    reply = OpenAIWire().refusal(call(1), refusal, Moment(NOW))
    assert "retry-after" not in reply.headers
    held.settle(first, Tokens(), NOW + 3600)
    admitted(held, call(1), NOW + 3600)


def test_of_several_limits_the_refusal_names_the_one_that_frees_last() -> None:
    held = account("openai", rpm=1, rpd=1)
    admitted(held, call(1))
    refusal = refused(held, call(1))
    assert (refusal.dimension.name, refusal.wait) == ("rpd", 86_400)


def test_a_changed_limit_keeps_what_is_used_and_may_be_new() -> None:
    held = account("openai", tpm=1_000)
    admitted(held, call(800))
    held.resize({"tpm": 500, "rpm": 10}, NOW)
    assert remaining(held) == {"tpm": -300, "rpm": 10}
    assert refused(held, call(1)).wait == pytest.approx(36.12)


@given(
    dialect=st.sampled_from(sorted(WIRES)),
    mode=st.sampled_from(["continuous", "fixed_minute", "sliding"]),
    rpm=st.integers(1, 30),
    tpm=st.integers(50, 2_000),
    steps=st.lists(st.tuples(st.floats(0, 70), st.integers(1, 400), st.integers(0, 400)), min_size=1, max_size=30),
)
def test_admitted_charges_never_exceed_what_the_limits_allowed(
    dialect: Dialect, mode: str, rpm: int, tpm: int, steps: list[tuple[float, int, int]]
) -> None:
    """Whatever comes, in every stretch of time: no more requests and tokens than capacity and refill."""
    held = account(dialect, rpm=rpm, tpm=tpm, mode=mode, settle="none", failed_requests_count=False)
    limits = {counter.dimension.name: counter.meter for counter in held.counters if not counter.slice}
    now, taken = NOW, []
    for pause, tokens, most in steps:
        now += pause
        verdict = held.admit(call(tokens, most), now)
        if isinstance(verdict, Reservation):
            taken.append((nanoseconds(now), verdict.charged["tokens"]))
    for first, (start, _) in enumerate(taken):
        for last in range(first, len(taken)):
            stretch, end = taken[first : last + 1], taken[last][0]
            assert len(stretch) <= limits["rpm"].allowed(start, end)
            assert sum(tokens for _, tokens in stretch) <= limits["tpm"].allowed(start, end)


@given(steps=st.lists(st.tuples(st.floats(0, 5), st.integers(1, 50), st.integers(0, 50)), min_size=1, max_size=20))
def test_settling_at_the_end_equals_charging_the_truth_at_once(steps: list[tuple[float, int, int]]) -> None:
    settled = account("openai", tpm=100_000, charge="input_plus_max_tokens", settle="end")
    truth = account("openai", tpm=100_000, charge="input_only")
    now = NOW
    for pause, read, written in steps:
        now += pause
        reservation = admitted(settled, call(read, 500), now)
        settled.settle(reservation, Tokens(read, written), now)
        admitted(truth, call(read + written), now)
        assert remaining(settled, now) == remaining(truth, now)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"latancy": 5}, "no option 'latancy'; did you mean 'latency'?"),
        ({"rpm": -1}, "rpm=-1 must be a whole number, 0 or more"),
        ({"tpm": 1.5}, "tpm=1.5 must be a whole number"),
        ({"rpm": True}, "rpm=True must be a whole number"),
        ({"mode": "leaky"}, "mode='leaky' is none of 'continuous'"),
        ({"charge": "actual", "settle": "none"}, "never counts output"),
        ({"latency": -1.0}, "latency=-1.0 must not be negative"),
        ({"output_tokens": (9, 3)}, "output_tokens=(9, 3) must be (low, high)"),
        ({"output_tokens": (9,)}, "output_tokens=(9,) must be (low, high)"),
        ({"tokens_per_second": 0}, "would never answer"),
        ({"prices": (1.0, -2.0)}, "must be dollars per million"),
        ({"prices": (1.0, 2.0, 3.0)}, "must be dollars per million"),
        ({"prices": {"inputs": 1.0}}, "must be dollars per million"),
    ],
)
def test_nonsense_is_refused_with_its_name_and_value(options: Mapping[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=r"models\['m'\]: ") as caught:
        configure(options, "models['m']")
    assert complaint in str(caught.value)


def test_every_limit_has_words_for_its_errors() -> None:
    for dimension in DIMENSIONS.values():
        refusal = Refusal(dimension, 10, 10, 1, 1.0)
        for wire in WIRES.values():
            assert wire.refusal(call(1), refusal, Moment(NOW)).status == 429
            assert wire.refusal(call(1), replace(refusal, wait=None), Moment(NOW)).body["error"]["message"]
