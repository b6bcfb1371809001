"""Every argument of the public API, given what makes no sense: taken as it is, or refused by an error that names it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import pytest

from agent_rate_limiter import (
    Budget,
    CostTracker,
    Estimate,
    Limit,
    Model,
    MultiProviderLimiter,
    Pool,
    Price,
    Provider,
    RateLimiter,
    RateLimiterError,
    Reservation,
    RetryBudget,
    RetryStrategy,
    Scope,
    ScopeBudget,
    Target,
    Usage,
    Webhook,
    plan,
)

BAD = [
    *(None, math.nan, math.inf, -1, True, 10**400, "", "abc", "\x00", b"x"),
    *([], {}, {"a": 1}, (1, "a"), object(), lambda: 1),
]
CONFIG = {"providers": {"openai": {"models": {"gpt-4": {"rpm": 500, "input_per_1m": 30, "output_per_1m": 60}}}}}
COUNTS = ("requests", "input_tokens", "output_tokens", "max_output_tokens", "cost")


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level("CRITICAL")
    monkeypatch.chdir(tmp_path)


def limiter() -> MultiProviderLimiter:
    return MultiProviderLimiter.from_config({**CONFIG, "budget_limit": 10})


def reserve(**arguments: Any) -> None:
    with limiter().reserve(**{"target": "openai:gpt-4", **arguments}) as call:
        call.cancel()


def scoped(**arguments: Any) -> None:
    with limiter().scope(**arguments):
        reserve()


def called(name: str) -> Callable[..., object]:
    def call(**arguments: Any) -> object:
        done = getattr(limiter(), name)(**{"target": "openai:gpt-4", **arguments})
        if isinstance(done, Reservation):
            done.cancel()
        return done

    return call


def settle(usage: Any) -> None:
    limiter().acquire("openai:gpt-4").settle(usage)


def arguments_of(function: Callable[..., object]) -> list[str]:
    """The names of all arguments; of those that are gathered, the ones that mean something."""
    found = inspect.signature(function).parameters.values()
    names = [each.name for each in found if each.kind not in {each.VAR_KEYWORD, each.VAR_POSITIONAL}]
    return [name for name in names if name != "self" and not name.startswith("_")]


def cases() -> Iterable[tuple[str, Callable[..., object], dict[str, Any], list[str]]]:
    """What is called, what it needs besides, and the arguments to be tried."""
    constructors: list[tuple[Callable[..., object], dict[str, Any]]] = [
        (Budget, {"limit": 1}),
        (Limit, {"resource": "requests", "amount": 1, "per": "minute"}),
        (Price, {"input_per_1m": 1, "output_per_1m": 1}),
        (Provider, {"name": "p"}),
        (Model, {"name": "m"}),
        (Pool, {"name": "p", "models": ("a", "b")}),
        (Usage, {}),
        (Estimate, {}),
        (RetryStrategy, {}),
        (RetryBudget, {}),
        (ScopeBudget, {"dollars": 1}),
        (Webhook, {"url": "https://host/path"}),
        (CostTracker, {}),
        (MultiProviderLimiter, {}),
        (RateLimiter, {"limits": "5 requests/minute"}),
        (Target.parse, {}),
        (Limit.parse, {}),
        (Price.per_1k, {}),
        (MultiProviderLimiter.from_config, {"source": CONFIG}),
        (plan, {"config": CONFIG, "workload": "2 calls"}),
    ]
    for function, needed in constructors:
        yield function.__qualname__, function, needed, arguments_of(function)
    yield "Scope", Scope, {}, ["agent"]
    costs = CostTracker(on_unknown_price="zero")
    yield "record", costs.record, {"target": "p:m", "usage": Usage()}, [*arguments_of(costs.record), "agent"]
    yield "report", costs.report, {}, arguments_of(costs.report)
    yield "rows", costs.rows, {}, arguments_of(costs.rows)
    for name in ("acquire", "try_acquire", "explain", "advice", "limit"):
        counts = [] if name == "limit" else COUNTS
        yield name, called(name), {}, [*arguments_of(getattr(limiter(), name)), *counts]
    yield "reserve", reserve, {}, [*arguments_of(limiter().reserve), *COUNTS]
    yield "scope", scoped, {}, [*arguments_of(limiter().scope), "agent"]
    yield "settle", settle, {}, ["usage"]
    yield "wrap", limiter().wrap, {}, ["client"]
    yield "flush", limiter().alerts.flush, {}, ["timeout"]


ALL = [
    pytest.param(function, needed, argument, id=f"{name}-{argument}")
    for name, function, needed, arguments in cases()
    for argument in dict.fromkeys(arguments)
]


def test_all_of_it_is_tried() -> None:
    assert len(ALL) > 180


@pytest.mark.parametrize(("function", "needed", "argument"), ALL)
def test_what_makes_no_sense_is_taken_or_refused_by_name(
    function: Callable[..., object], needed: dict[str, Any], argument: str
) -> None:
    """Never a TypeError from within, an overflow or a division: whoever reads those has to read our code."""
    for bad in BAD:
        with suppress(RateLimiterError):
            function(**{**needed, argument: bad})
