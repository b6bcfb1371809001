"""What a call is expected to use, and what it did use."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
from collections.abc import Coroutine
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_rate_limiter import (
    ConfigError,
    Estimate,
    Limit,
    MultiProviderLimiter,
    Provider,
    RateLimiter,
    Resource,
    Usage,
)
from agent_rate_limiter.testing import ManualClock

ESTIMATE_COUNTS = [field.name for field in fields(Estimate) if field.name not in {"cost", "exact"}]
USAGE_COUNTS = [field.name for field in fields(Usage) if field.name not in {"cost", "exact", "service_tier"}]
COUNTS = [(Estimate, name) for name in ESTIMATE_COUNTS] + [(Usage, name) for name in USAGE_COUNTS]


def test_the_defaults_are_one_request_and_no_tokens() -> None:
    assert Estimate() == Estimate(requests=1, input_tokens=0, output_tokens=0, max_output_tokens=0, cost=None)
    usage = Usage()
    assert (usage.requests, usage.total_tokens, usage.cost, usage.exact) == (1, 0, None, True)
    assert all(getattr(usage, name) == 0 for name in USAGE_COUNTS if name != "requests")


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (Estimate(), 0),
        (Estimate(output_tokens=10), 10),
        (Estimate(max_output_tokens=40), 40),
        (Estimate(output_tokens=10, max_output_tokens=40), 10),
        (Estimate(output_tokens=50, max_output_tokens=40), 50),
    ],
)
def test_output_is_the_expectation_or_else_the_maximum(estimate: Estimate, expected: int) -> None:
    assert estimate.expected_output_tokens == expected


def test_total_tokens_are_input_and_output_and_no_part_twice() -> None:
    assert Usage(input_tokens=10, output_tokens=5, cached_input_tokens=8, reasoning_tokens=3).total_tokens == 15


@pytest.mark.parametrize(
    "value",
    [Estimate(2, 3, 4, 5, 0.5), Usage(1, 2, 3, 1, 1, 1, 1, 1, 1, 0.25, exact=False), Estimate(), Usage()],
    ids=repr,
)
def test_they_are_values(value: Estimate | Usage) -> None:
    for twin in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):  # noqa: S301 - our own
        assert twin == value
        assert hash(twin) == hash(value)
    assert replace(value, requests=7).requests == 7
    assert replace(value, requests=7) != value
    with pytest.raises(FrozenInstanceError):
        value.requests = 3  # type: ignore[misc]


def test_repr_names_what_is_not_as_usual() -> None:
    assert repr(Estimate(1, 2, 3, 4, 0.5)) == (
        "Estimate(input_tokens=2, output_tokens=3, max_output_tokens=4, cost=0.5)"
    )
    assert repr(Usage(input_tokens=2, exact=False)) == "Usage(input_tokens=2, exact=False)"


@pytest.mark.parametrize(("kind", "name"), COUNTS)
@pytest.mark.parametrize("value", [-1, 1.5, 800.0, math.nan, "800", None, [800], {800}])
def test_a_count_is_a_whole_number_of_at_least_0(kind: type, name: str, value: object) -> None:
    with pytest.raises(ConfigError) as refused:
        kind(**{name: value})
    assert str(refused.value) == f"{kind.__name__}.{name} is {value!r}: give a whole number of at least 0."


@pytest.mark.parametrize("kind", [Estimate, Usage])
@pytest.mark.parametrize("value", [-0.01, math.nan, math.inf, "1", True, [1]])
def test_a_cost_is_finite_and_at_least_0(kind: type, value: object) -> None:
    with pytest.raises(ConfigError) as refused:
        kind(cost=value)
    assert str(refused.value) == (
        f"{kind.__name__}.cost is {value!r}: give dollars as a finite number of at least 0, or None."
    )


@pytest.mark.parametrize("kind", [Estimate, Usage])
@pytest.mark.parametrize("cost", [0, 0.0, 1, 0.25, None])
def test_costs(kind: type[Estimate | Usage], cost: float | None) -> None:
    assert kind(cost=cost).cost == cost


def test_several_wrong_values_are_found_one_by_one() -> None:
    with pytest.raises(ConfigError, match=r"^Estimate\.input_tokens is -1: "):
        Estimate(input_tokens=-1, output_tokens="x")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^Usage\.output_tokens is -1: "):
        Usage(output_tokens=-1, cost=-1)


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sets(st.integers()), st.complex_numbers()
)


@given(st.dictionaries(st.sampled_from([*USAGE_COUNTS, "cost"]), ANYTHING))
def test_whatever_is_accepted_is_sound(values: dict[str, Any]) -> None:
    try:
        usage = Usage(**values)
    except ConfigError:
        return
    assert all(isinstance(getattr(usage, name), int) and getattr(usage, name) >= 0 for name in USAGE_COUNTS)
    assert usage.cost is None or 0 <= usage.cost < math.inf


# ---------------------------------------------------------------- on the limits


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({}, 1_000),
        ({"input_tokens": 5, "output_tokens": 5}, 990),
        ({"estimate": Estimate(input_tokens=20)}, 980),
        ({"estimate": lambda prompt, **_: Estimate(input_tokens=len(prompt))}, 997),
    ],
    ids=["nothing", "counts", "Estimate", "function"],
)
def test_what_a_decorated_call_is_expected_to_use(terms: dict[str, Any], expected: float) -> None:
    limiter = RateLimiter(tpm=1_000, clock=ManualClock())

    @limiter.limit(**terms)
    def ask(prompt: str, *, loud: bool = False) -> object:
        return (prompt, loud)

    ask("abc", loud=True)
    assert limiter.snapshot().limits[0].available == expected


class Awaited:
    """A callable of the fifth kind."""

    async def __call__(self) -> Usage:
        await asyncio.sleep(0)
        return Usage(input_tokens=7)


def passes_on() -> Coroutine[Any, Any, Usage]:
    return Awaited()()


@pytest.mark.parametrize("function", [Awaited(), passes_on], ids=["an object", "a function"])
def test_what_is_awaited_later_is_in_flight_until_then(function: Any) -> None:
    """Else it would be limited in nothing, without a word."""
    limiter = RateLimiter(tpm=1_000, clock=ManualClock())
    decorated = limiter.limit(input_tokens=100)(function)

    async def main() -> None:
        call = asyncio.ensure_future(decorated())
        await asyncio.sleep(0)
        assert limiter.snapshot().in_flight == 1
        assert await call == Usage(input_tokens=7)

    asyncio.run(main())
    assert limiter.snapshot().limits[0].available == 993


SIZE = Estimate(2, input_tokens=100, output_tokens=20, max_output_tokens=50)


@pytest.mark.parametrize(
    ("resource", "counts", "reserved", "settled"),
    [
        (Resource.REQUESTS, "actual", 2, 1),
        (Resource.INPUT_TOKENS, "actual", 100, 90),
        (Resource.OUTPUT_TOKENS, "actual", 20, 30),
        (Resource.TOKENS, "actual", 120, 120),
        (Resource.OUTPUT_TOKENS, "max_tokens", 50, 50),
        (Resource.TOKENS, "max_tokens", 150, 150),
        (Resource.INPUT_TOKENS, "max_tokens", 100, 90),
    ],
)
def test_what_a_call_takes_from_each_kind_of_limit(
    resource: Resource, counts: str, reserved: int, settled: int
) -> None:
    """OpenAI and Azure charge `max_tokens` when they admit a call, and keep it."""
    limiter = RateLimiter(Limit(resource, 1_000, "day", counts=counts), clock=ManualClock())
    call = limiter.acquire(SIZE)
    assert limiter.snapshot().limits[0].available == 1_000 - reserved
    call.settle(Usage(input_tokens=90, output_tokens=30))
    assert limiter.snapshot().limits[0].available == 1_000 - settled


def test_money_is_held_for_the_worst_case_and_output_for_the_expected(manual_clock: ManualClock) -> None:
    prices = {"input_per_1m": 1_000, "output_per_1m": 10_000, "cached_input_per_1m": 100}
    limiter = MultiProviderLimiter([Provider("p", {"m": {"rpm": 9, **prices}})], budget_limit=1, clock=manual_clock)
    call = limiter.acquire("p:m", SIZE)
    assert limiter.snapshot().limits[0].available == pytest.approx(1 - 0.1 - 0.5)
    call.settle(Usage(input_tokens=100, output_tokens=10, cached_input_tokens=50))
    assert limiter.snapshot().limits[0].available == pytest.approx(1 - 0.055 - 0.1)
