"""Calls that make no sense, by every way in: a clear refusal, and nothing is taken."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent_rate_limiter import (
    ConfigError,
    Estimate,
    MultiProviderLimiter,
    Provider,
    RateLimiter,
    RateLimiterError,
    Usage,
)
from agent_rate_limiter.testing import ManualClock
from tests.core.test_bad_input import POSITIVE, refusal


def nothing() -> None:
    """A function to be decorated."""


# ---------------------------------------------------------------- calls


@pytest.fixture
def limiter(manual_clock: ManualClock) -> MultiProviderLimiter:
    return MultiProviderLimiter([Provider("p", {"m": {"rpm": 100, "tpm": 1_000}})], clock=manual_clock)


def ways_in(limiter: MultiProviderLimiter, *args: Any, **kwargs: Any) -> list[Callable[[], object]]:
    """Every way to make a call."""
    return [
        lambda: limiter.acquire(*args, **kwargs),
        lambda: asyncio.run(limiter.acquire_async(*args, **kwargs)),
        lambda: limiter.reserve(*args, **kwargs).__enter__(),
        lambda: asyncio.run(limiter.reserve(*args, **kwargs).__aenter__()),
    ]


def untouched(limiter: MultiProviderLimiter) -> bool:
    return not limiter.snapshot().in_flight and all(status.used_share == 0 for status in limiter.snapshot().limits)


@pytest.mark.parametrize("priority", [-1, 1.5, 1.0, "high", True, math.nan, [1]])
def test_priorities(limiter: MultiProviderLimiter, priority: Any) -> None:
    message = f"priority is {priority!r}: give a whole number of at least 0, lower goes first (Priority.HIGH is 1)."
    for call in ways_in(limiter, "p:m", priority=priority):
        assert refusal(call) == message
    assert refusal(limiter.try_acquire, "p:m", priority=priority) == message
    assert refusal(limiter.limit, target="p:m", priority=priority) == message
    assert refusal(limiter.scope(priority=priority).__enter__) == message
    assert untouched(limiter)


@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, math.inf, 1e308, 10**400, "5", True, [1]])
def test_timeouts(limiter: MultiProviderLimiter, timeout: Any) -> None:
    message = f"timeout is {timeout!r}: give seconds as a finite number of at least 0, or None to wait for ever."
    for call in ways_in(limiter, "p:m", timeout=timeout):
        assert refusal(call) == message
    assert refusal(limiter.limit, target="p:m", timeout=timeout) == message
    assert untouched(limiter)


@pytest.mark.parametrize("target", ["m", "p:", ":m", "", None, 5, ["p:m"], {"p": "m"}, b"p:m"], ids=repr)
def test_targets(limiter: MultiProviderLimiter, target: Any) -> None:
    message = f"target is {target!r}: write it as 'provider:model', for example 'openai:gpt-4'."
    for call in (limiter.acquire, limiter.try_acquire, limiter.reserve, limiter.explain):
        assert refusal(call, target) == message


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"provider": "p"},
        {"model": "m"},
        {"target": "p:m", "provider": "p"},
        {"target": "p:m", "model": "m"},
        {"target": "p:m", "provider": "p", "model": "m"},
    ],
)
def test_where_decorated_calls_go_is_said_once(limiter: MultiProviderLimiter, where: dict[str, str]) -> None:
    target, provider, model = (where.get(name) for name in ("target", "provider", "model"))
    assert refusal(limiter.limit, **where) == (
        f"target is {target!r}, provider {provider!r}, model {model!r}: "
        "give target='provider:model', or both provider= and model=."
    )


@pytest.mark.parametrize("estimate", [5, "800", {"input_tokens": 5}, Usage()])
def test_an_estimate_is_an_estimate(limiter: MultiProviderLimiter, estimate: Any) -> None:
    message = "estimate is .*: give an Estimate"
    ways: list[Callable[[], object]] = ways_in(limiter, "p:m", estimate)
    ways += [lambda: limiter.try_acquire("p:m", estimate), lambda: limiter.explain("p:m", estimate)]
    ways.append(limiter.limit(target="p:m", estimate=lambda *_: estimate)(nothing))
    for call in ways:
        with pytest.raises(ConfigError, match=message):
            call()


def test_a_function_for_the_estimate_goes_without_counts(limiter: MultiProviderLimiter) -> None:
    message = refusal(limiter.limit, target="p:m", estimate=Estimate, input_tokens=5)
    assert message.startswith("input_tokens is given beside ")


@pytest.mark.parametrize("value", [-1, 1.5, "800", math.nan])
def test_counts(limiter: MultiProviderLimiter, value: Any) -> None:
    message = f"Estimate.input_tokens is {value!r}: give a whole number of at least 0."
    for call in (limiter.acquire, limiter.try_acquire, limiter.reserve, limiter.explain):
        assert refusal(call, "p:m", input_tokens=value) == message
    assert refusal(limiter.limit, target="p:m", input_tokens=value) == message


@pytest.mark.parametrize("budget", [0, -1, math.nan, "5", True])
def test_scopes(limiter: MultiProviderLimiter, budget: Any) -> None:
    assert refusal(limiter.scope(budget=budget).__enter__) == f"budget is {budget!r}: {POSITIVE}."


ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers()))


@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING)
@example(0, 1e300, None, None)
@example(0, None, None, 1e308)
def test_nothing_but_our_errors_whatever_is_given(tokens: Any, cost: Any, priority: Any, timeout: Any) -> None:
    limiter = RateLimiter("$5/day", tpm=1_000, clock=ManualClock())
    try:
        limiter.acquire(Estimate(1, tokens, cost=cost), priority=priority, timeout=timeout).settle()
    except RateLimiterError as error:
        assert len(str(error)) > 20  # noqa: PT017 - the other outcome is as good


# ---------------------------------------------------------------- limiters that are taken elsewhere


def test_a_limiter_is_not_sent_to_another_process(limiter: MultiProviderLimiter) -> None:
    with pytest.raises(TypeError, match=r"A MultiProviderLimiter cannot be pickled: make one in each process, with"):
        pickle.dumps({"limiter": limiter})


def test_copies_of_a_limiter_are_itself(limiter: MultiProviderLimiter) -> None:
    """Frameworks copy what holds one: its limits must go on to hold."""
    assert copy.copy(limiter) is limiter
    assert copy.deepcopy([limiter])[0] is limiter
