"""What providers charge, when they refuse, and what they give back: in virtual time, without a socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.testing.simulated.accounts import Reservation, nanoseconds
from agent_rate_limiter.testing.simulated.calls import Tokens
from agent_rate_limiter.testing.simulated.openai import OpenAIWire
from agent_rate_limiter.testing.simulated.options import Dialect, configure
from agent_rate_limiter.testing.simulated.simulation import WIRES
from agent_rate_limiter.testing.simulated.wires import Moment
from tests.core.testing.simulated import NOW, account, admitted, call, refused, remaining

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
