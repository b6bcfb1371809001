"""Prices: exact integers inside, rounded up once, and a bound that holds."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.pricing import Price
from agent_rate_limiter.usage import Usage

EVERY_KIND = Price(
    input_per_1m=3,
    output_per_1m=15,
    cached_input_per_1m=0.3,
    cache_write_per_1m=3.75,
    cache_write_1h_per_1m=6,
    reasoning_per_1m=20,
    input_audio_per_1m=40,
    output_audio_per_1m=80,
    per_request=0.01,
)
TEXT = Price(3, 15)


@pytest.mark.parametrize(
    ("price", "usage", "nano"),
    [
        (TEXT, Usage(input_tokens=1_000_000), 3_000_000_000),
        (TEXT, Usage(output_tokens=1_000_000), 15_000_000_000),
        (TEXT, Usage(input_tokens=800, output_tokens=400), 8_400_000),
        (TEXT, Usage(), 0),
        # A kind without a price of its own is charged like the kind it is part of.
        (TEXT, Usage(input_tokens=10, cached_input_tokens=10), 30_000),
        (TEXT, Usage(output_tokens=10, reasoning_tokens=10, output_audio_tokens=0), 150_000),
        (Price(3, 15, cache_write_per_1m=4), Usage(0, 10, 0, 0, 10, 10), 40_000),
        # Each kind that has one.
        (EVERY_KIND, Usage(), 10_000_000),
        (EVERY_KIND, Usage(0, 100, 0, cached_input_tokens=60), 40 * 3_000 + 60 * 300),
        (EVERY_KIND, Usage(0, 100, 0, cache_write_tokens=60), 40 * 3_000 + 60 * 3_750),
        (EVERY_KIND, Usage(0, 100, 0, 0, 60, cache_write_1h_tokens=20), 40 * 3_000 + 40 * 3_750 + 20 * 6_000),
        (EVERY_KIND, Usage(0, 100, input_audio_tokens=1), 99 * 3_000 + 40_000),
        (EVERY_KIND, Usage(0, 0, 100, reasoning_tokens=70), 30 * 15_000 + 70 * 20_000),
        (EVERY_KIND, Usage(0, 0, 100, output_audio_tokens=100), 100 * 80_000),
        # Rounded up, once: three times 0.4 and 0.4 nano-dollars are 2, and not 3.
        (Price(0.0004, 0.0004), Usage(input_tokens=3, output_tokens=1), 2),
        (Price(0.000000001, 0), Usage(input_tokens=1), 1),
        # More parts than there are tokens: the dearest, and no token twice.
        (EVERY_KIND, Usage(0, 100, 0, cached_input_tokens=80, input_audio_tokens=60), 60 * 40_000 + 40 * 300),
        # What the provider states wins, and is taken as it was written.
        (EVERY_KIND, Usage(input_tokens=5, cost=0.07), 70_000_000),
        (TEXT, Usage(cost=0.0), 0),
        (TEXT, Usage(cost=1e-10), 1),
    ],
)
def test_a_usage_costs(price: Price, usage: Usage, nano: int) -> None:
    assert price.nano(usage) == nano


def test_a_free_model_costs_nothing() -> None:
    free = Price(0, 0)
    assert free.nano(Usage(input_tokens=10**9)) == free.worst_nano(1, 10**9, 10**9) == 0


def test_the_worst_case_takes_the_dearest_kind_of_each_direction() -> None:
    assert EVERY_KIND.worst_nano(2, 100, 10) == 2 * 10_000_000 + 100 * 40_000 + 10 * 80_000
    assert replace(TEXT, cache_write_per_1m=3.75).worst_nano(1, 100, 10) == 100 * 3_750 + 10 * 15_000
    assert replace(TEXT, cached_input_per_1m=0.3).worst_nano(1, 100, 10) == 100 * 3_000 + 10 * 15_000


def test_the_expected_case_takes_the_plain_prices() -> None:
    assert EVERY_KIND.expected_nano(2, 100, 10) == 2 * 10_000_000 + 100 * 3_000 + 10 * 15_000
    assert Price(0.0004, 0.0004).expected_nano(1, 3, 1) == 2


@pytest.mark.parametrize(("dollars", "per_1m"), [(0.03, 30.0), (0.0007, 0.7), (0.015, 15.0), (0, 0.0), (1, 1000.0)])
def test_per_1k_charges_both_directions(dollars: float, per_1m: float) -> None:
    assert Price.per_1k(dollars) == Price(per_1m, per_1m)


@pytest.mark.parametrize("bad", [-1, -0.001, math.nan, math.inf, True, "3"])
@pytest.mark.parametrize("field", ["input_per_1m", "output_per_1m", "cached_input_per_1m", "per_request"])
def test_a_price_that_makes_no_sense_is_refused(field: str, bad: float) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(Price(1, 1), **{field: bad})  # type: ignore[arg-type]
    assert str(caught.value) == f"{field} is {bad!r}: give dollars as a finite number of at least 0."


def test_a_price_per_1k_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        Price.per_1k(-0.03)
    assert str(caught.value) == "cost_per_1k is -0.03: give dollars as a finite number of at least 0."


def test_a_missing_price_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        Price(None, 1)  # type: ignore[arg-type]
    assert str(caught.value) == "input_per_1m is None: give dollars as a finite number of at least 0."


LONG = Price(6, 22.5, cached_input_per_1m=0.6)
TIERED = Price(3, 15, tiers={200_000: LONG, 500_000: Price(9, 30)})
BATCH = Price(1.5, 7.5, tiers={200_000: Price(3, 11.25)})
SERVED = replace(TIERED, service_tiers={"batch": BATCH})


@pytest.mark.parametrize(
    ("price", "usage", "nano"),
    [
        (TIERED, Usage(0, 200_000, 10), 200_000 * 3_000 + 10 * 15_000),  # up to there
        (TIERED, Usage(0, 200_001, 10), 200_001 * 6_000 + 10 * 22_500),  # then all of the call
        (TIERED, Usage(0, 200_001, 0, cached_input_tokens=200_000), 200_000 * 600 + 6_000),
        (TIERED, Usage(0, 500_001, 1), 500_001 * 9_000 + 30_000),
        (SERVED, Usage(0, 100, 10), 100 * 3_000 + 10 * 15_000),
        (SERVED, Usage(0, 100, 10, service_tier="batch"), 100 * 1_500 + 10 * 7_500),
        (SERVED, Usage(0, 300_000, 10, service_tier="batch"), 300_000 * 3_000 + 10 * 11_250),
        (SERVED, Usage(0, 300_000, 10, service_tier="priority"), 300_000 * 6_000 + 10 * 22_500),  # has no price
        (SERVED, Usage(0, 300_000, 10, service_tier="batch", cost=0.5), 500_000_000),
        (TEXT, Usage(0, 100, 10, service_tier="batch"), 100 * 3_000 + 10 * 15_000),
    ],
)
def test_tiers_and_services(price: Price, usage: Usage, nano: int) -> None:
    assert price.nano(usage) == nano


def test_what_is_expected_and_the_worst_follow_the_tiers() -> None:
    assert TIERED.flat_rates is None
    assert TIERED.expected_nano(1, 200_000, 1) == 200_000 * 3_000 + 15_000
    assert TIERED.expected_nano(1, 200_001, 1) == 200_001 * 6_000 + 22_500
    cheaper_beyond = Price(3, 15, tiers={1_000: Price(1, 5)})
    assert cheaper_beyond.worst_nano(1, 2_000, 10) == 2_000 * 3_000 + 10 * 15_000  # it may send fewer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tiers": {-1: TEXT}}, "tiers hold -1: give the input tokens above which it begins, a whole number."),
        ({"tiers": {"200K": TEXT}}, "tiers hold '200K': give the input tokens above which it begins"),
        ({"tiers": {5: 3}}, "tiers[5] is 3: give a Price without tiers or service tiers of its own."),
        ({"tiers": {5: TIERED}}, "give a Price without tiers or service tiers of its own."),
        ({"tiers": [TEXT]}, "give a mapping such as {200_000: Price(6, 22.5)}."),
        ({"service_tiers": {"batch": 3}}, "service_tiers['batch'] is 3: give a name, and a Price"),
        ({"service_tiers": {"": TEXT}}, "service_tiers[''] is"),
        ({"service_tiers": {"batch": SERVED}}, "without service tiers of its own."),
        ({"service_tiers": TEXT}, "give a mapping such as {'batch': Price(1.5, 7.5)}."),
    ],
)
def test_tiers_and_services_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(TEXT, **change)
    assert message in str(caught.value)


def test_a_price_is_a_value() -> None:
    assert pickle.loads(pickle.dumps(SERVED)) == SERVED  # noqa: S301 - our own
    assert len({SERVED, replace(SERVED), TIERED}) == 2
    assert pickle.loads(pickle.dumps(EVERY_KIND)) == EVERY_KIND  # noqa: S301 - our own
    assert hash(Price(3, 15)) == hash(TEXT)
    assert Price(3, 16) != TEXT
    assert "_worst" not in repr(TEXT)


dollars = st.integers(0, 10**14).map(lambda nano: nano / 10**9)  # as written: at most nine decimals
maybe_dollars = st.none() | dollars
prices = st.builds(
    Price,
    dollars,
    dollars,
    maybe_dollars,
    maybe_dollars,
    maybe_dollars,
    maybe_dollars,
    maybe_dollars,
    dollars,
    maybe_dollars,
)
counts = st.integers(0, 10**7)
tiered = st.builds(
    lambda price, tiers: replace(price, tiers=tiers), prices, st.dictionaries(counts, prices, max_size=3)
)


def exactly(price: float | None, otherwise: Fraction = Fraction(0)) -> Fraction:
    return otherwise if price is None else Fraction(str(price))


@given(prices, st.integers(0, 5), st.tuples(*[counts] * 8))
def test_the_cost_is_what_fractions_say(price: Price, requests: int, tokens: tuple[int, ...]) -> None:
    plain_in, cached, write, write_1h, audio_in, plain_out, reasoning, audio_out = tokens
    usage = Usage(
        requests,
        input_tokens=plain_in + cached + write + write_1h + audio_in,
        output_tokens=plain_out + reasoning + audio_out,
        cached_input_tokens=cached,
        cache_write_tokens=write + write_1h,
        cache_write_1h_tokens=write_1h,
        reasoning_tokens=reasoning,
        input_audio_tokens=audio_in,
        output_audio_tokens=audio_out,
    )
    sent, produced = exactly(price.input_per_1m), exactly(price.output_per_1m)
    written = exactly(price.cache_write_per_1m, sent)
    millionths = (
        plain_in * sent
        + cached * exactly(price.cached_input_per_1m, sent)
        + write * written
        + write_1h * exactly(price.cache_write_1h_per_1m, written)
        + audio_in * exactly(price.input_audio_per_1m, sent)
        + plain_out * produced
        + reasoning * exactly(price.reasoning_per_1m, produced)
        + audio_out * exactly(price.output_audio_per_1m, produced)
    )
    in_dollars = millionths / 10**6 + requests * exactly(price.per_request)
    assert price.nano(usage) == math.ceil(in_dollars * 10**9)


@given(prices, st.integers(0, 5), st.tuples(*[counts] * 8))
def test_no_usage_costs_more_than_the_worst_case(price: Price, requests: int, tokens: tuple[int, ...]) -> None:
    usage = Usage(requests, *tokens)
    assert price.nano(usage) <= price.worst_nano(requests, usage.input_tokens, usage.output_tokens)
    assert price.expected_nano(requests, *tokens[:2]) <= price.worst_nano(requests, *tokens[:2])


@given(tiered, st.integers(0, 5), st.tuples(*[counts] * 8), counts)
def test_nor_in_any_tier_that_it_may_reach(price: Price, requests: int, tokens: tuple[int, ...], unused: int) -> None:
    usage = Usage(requests, *tokens)
    assert price.nano(usage) <= price.worst_nano(requests, usage.input_tokens + unused, usage.output_tokens)


@given(st.floats(0, 1e9))
def test_a_stated_cost_is_rounded_up_to_the_next_nano_dollar(cost: float) -> None:
    assert TEXT.nano(Usage(cost=cost)) == math.ceil(Fraction(str(cost)) * 10**9)


def test_the_worst_case_is_the_dearest_service() -> None:
    """A budget is ready for it: a call may be served as `priority` by a setting of the account."""
    price = Price(1, 2, service_tiers={"priority": Price(2, 4, tiers={1_000: Price(3, 6)}), "flex": Price(0.5, 1)})
    assert price.worst_nano(1, 100, 10) == 100 * 2_000 + 10 * 4_000
    assert price.worst_nano(1, 2_000, 10) == 2_000 * 3_000 + 10 * 6_000
    for service in ("", "priority", "flex"):
        assert price.nano(Usage(1, 100, 10, service_tier=service)) <= price.worst_nano(1, 100, 10)
