"""What users write, as type checkers see it: `make lint` reads this file, nothing runs it.

A `type: ignore` here is a claim: mypy says so when the mistake beside it is no longer found.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from typing_extensions import assert_type

from agent_rate_limiter import (
    EACH,
    AcquireTimeout,
    Advice,
    Alert,
    AllTargetsFailed,
    Budget,
    BudgetExceeded,
    CostReport,
    CostTracker,
    Decision,
    Estimate,
    Event,
    Explanation,
    FellBack,
    Holder,
    Limit,
    LimitExceeded,
    LimitStatus,
    Model,
    MultiProviderLimiter,
    Plan,
    Price,
    Priority,
    Provider,
    RateLimiter,
    Refused,
    Reservation,
    Resource,
    Scope,
    ScopeBudget,
    Snapshot,
    Target,
    Usage,
    Webhook,
    plan,
)
from agent_rate_limiter.testing import ManualClock, run_virtual


class Client:
    """Somebody's SDK."""

    def create(self, *, model: str) -> dict[str, object]:
        return {"model": model}


# ---------------------------------------------------------------- made


def told(alert: Alert) -> None:
    assert_type(alert.threshold, float)
    assert_type(alert.name, str)


async def tell_later(alert: Alert) -> None:
    await asyncio.sleep(0)


limiter = MultiProviderLimiter(
    providers=[
        Provider(name="openai", models={"gpt-4": {"rpm": 500, "tpm": 10000, "cost_per_1k": 0.03}}),
        Provider("anthropic", {"claude-opus-4": {"rpm": 50, "limits": ["40 requests/week"]}, "*": None}, rpd=1_000),
        Provider("own", {"m": Model("m", price=Price(1, 2))}, tpm="1M", limits=[Limit(Resource.REQUESTS, 5, "day")]),
    ],
    budget_limit=100.00,
    budget_period="week",
    alert_threshold=(0.5, 0.8, 0.95),
    budgets=[Budget(5, scope=Scope(agent=EACH), thresholds=(0.9,)), {"limit": 5}],
    limit_alert_threshold=0.9,
    on_alert=[told, Webhook("https://host/", secret="s", format="slack"), logging.getLogger("ops")],
    clock=ManualClock(),
)
assert_type(limiter.alerts.flush(1.0), bool)
assert_type(plan("limits.yaml", "5 calls, 2k in", factor=3), Plan)
assert_type(plan({}, [{"target": "p:m", "input_tokens": 5}]).limits[0].share, float)
MultiProviderLimiter(on_alert=tell_later)
MultiProviderLimiter()
MultiProviderLimiter(alert_threshold=0.8, store="memory://", lease=60, ageing=0.5)
single = RateLimiter(["40 requests/week", Limit(Resource.TOKENS, 5, 60)], rpm=500, tpm=10_000, price=Price.per_1k(0.03))

assert_type(MultiProviderLimiter.from_config("limits.yaml", on_alert=print), MultiProviderLimiter)
assert_type(limiter.providers["openai"].models["gpt-4"].price, Price | None)
assert_type(limiter.budgets, tuple[Budget, ...])
assert_type(single.limits, tuple[Limit, ...])
assert_type(single.target, Target)

MultiProviderLimiter([Provider("p")], budget=5)  # type: ignore[call-arg]
MultiProviderLimiter("openai")  # type: ignore[arg-type]
MultiProviderLimiter(on_alert=lambda: None)  # type: ignore[arg-type]
RateLimiter(rpm="500")  # type: ignore[arg-type]
Provider("p", rpn=5)  # type: ignore[call-arg]


# ---------------------------------------------------------------- called


def call() -> None:
    with limiter.reserve("openai:gpt-4", input_tokens=800, max_output_tokens=400, priority=1, timeout=30) as reserved:
        assert_type(reserved, Reservation)
        reserved.settle(Client().create(model=reserved.model))
    with single.reserve() as reserved:
        assert_type(reserved.provider, str)
    reservation = limiter.acquire(Target("openai", "gpt-4"), Estimate(input_tokens=5), priority=Priority.HIGH)
    assert_type(reservation, Reservation)
    reservation.settle(Usage(input_tokens=5, cost=0.25))
    assert_type(reservation.usage, Usage | None)
    assert_type(reservation.cost, float | None)
    assert_type(reservation.waited, float)
    with reservation as same:
        assert_type(same, Reservation)
    single.acquire(input_tokens=5).cancel()

    limiter.reserve()  # type: ignore[call-arg]
    limiter.acquire("openai:gpt-4", 800)  # type: ignore[arg-type]
    limiter.acquire("openai:gpt-4", priority="high")  # type: ignore[arg-type]
    limiter.acquire("openai:gpt-4", input_tokens="800")  # type: ignore[arg-type]


async def call_async() -> None:
    async with limiter.reserve("openai:gpt-4", Estimate(max_output_tokens=5)) as reserved:
        assert_type(reserved, Reservation)
    assert_type(await limiter.acquire_async("openai:gpt-4", timeout=0.5), Reservation)
    assert_type(await single.acquire_async(), Reservation)
    assert_type(await coroutine("hi"), int)
    assert_type([item async for item in async_generator("hi")], list[str])


def try_now() -> str:
    result = limiter.try_acquire("openai:gpt-4", input_tokens=5)
    assert_type(result, Reservation | Decision)
    if not result:
        assert_type(result, Decision)  # a reservation is never falsy
        assert_type(result.retry_after, float | None)
        assert_type(result.limit, Limit | None)
        return result.reason
    if isinstance(result, Reservation):
        result.settle()
    return ""


def refused() -> None:
    try:
        single.acquire(timeout=1)
    except BudgetExceeded as error:
        assert_type(error.decision, Decision)
    except AcquireTimeout as error:
        late: TimeoutError = error
        assert_type(error.available_at, float | None)
        raise late from error
    except LimitExceeded as error:
        assert_type(error.retry_after, float | None)
    except AllTargetsFailed as error:
        assert_type(error.causes, dict[str, BaseException])


def scoped() -> None:
    with limiter.scope(agent="researcher", run=42, budget=2.00, priority=0):
        pass
    with limiter.scope(budget="2"):  # type: ignore[arg-type]
        pass
    with limiter as same:
        assert_type(same, MultiProviderLimiter)


# ---------------------------------------------------------------- decorated


@limiter.limit(provider="openai", model="gpt-4", priority=1)
def function(prompt: str, *, model: str = "") -> list[str]:
    return [prompt, model]


@limiter.limit(target="openai:gpt-4", input_tokens=800)
async def coroutine(prompt: str) -> int:
    return len(prompt)


@single.limit(estimate=lambda prompt: Estimate(input_tokens=len(prompt)))
def generator(prompt: str) -> Iterator[str]:
    yield prompt


@single.limit()
async def async_generator(prompt: str) -> AsyncIterator[str]:
    yield prompt


class Agent:
    @limiter.limit(target="openai:gpt-4")
    def ask(self, prompt: str) -> str:
        return prompt


assert_type(function("hi", model="x"), list[str])
assert_type(generator("hi"), Iterator[str])
assert_type(async_generator("hi"), AsyncIterator[str])
assert_type(Agent().ask("hi"), str)
asyncio.run(coroutine("hi"))
assert_type(run_virtual(coroutine("hi"), ManualClock()), int)
ask: Callable[[str], str] = single.limit()(Agent().ask)

function(5)  # type: ignore[arg-type]
limiter.limit("openai:gpt-4")  # type: ignore[call-arg]
single.limit(estimate=lambda: 5)  # type: ignore[arg-type,return-value]


# ---------------------------------------------------------------- wrapped and reported

assert_type(limiter.wrap(Client(), priority=1), Client)
assert_type(limiter.wrap(Client()).create(model="gpt-4"), dict[str, object])

assert_type(limiter.snapshot(), Snapshot)
assert_type(limiter.snapshot().limits, tuple[LimitStatus, ...])
assert_type(limiter.snapshot().to_dict(), dict[str, Any])
assert_type(limiter.explain("openai:gpt-4", input_tokens=5), Explanation)
assert_type(single.explain().decision, Decision)
assert_type(limiter.advice("openai:gpt-4", input_tokens=5), Advice)
assert_type(single.advice().wait, float | None)
with limiter.scope(budget=ScopeBudget(2.00, key="thread 42")):
    pass
assert_type(limiter.costs, CostTracker)
assert_type(limiter.costs.report(by=("agent", "model"), since=datetime(2026, 1, 1), until=0.0), CostReport)  # noqa: DTZ001
assert_type(limiter.costs.report().to_dicts(), list[dict[str, object]])
assert_type(limiter.costs.total, float)
with CostTracker("memory://", prices={"p:a": Price(1, 2)}, keep_rows=30) as costs:
    assert_type(costs.record("p:a", Usage(input_tokens=5), latency=0.5, agent="x", run=7), float)
    assert_type(costs.report(every="day", timezone="Europe/Berlin").to_csv(), str)
    assert_type(costs.rows(5), CostReport)
    costs.record("p:a")  # type: ignore[call-arg]
MultiProviderLimiter(ledger=costs, on_unknown_price="block")
MultiProviderLimiter(ledger="sqlite:///costs.db")
Price(3, 15, tiers={200_000: Price(6, 22.5)}, service_tiers={"batch": Price(1.5, 7.5)})


# ---------------------------------------------------------------- elsewhere, guarded, heard


def heard(event: Event) -> None:
    if isinstance(event, FellBack):
        assert_type(event.served_by, str)
    elif isinstance(event, Refused):
        assert_type(event.decision, Decision)


MultiProviderLimiter(
    fallbacks={"openai:gpt-4": ["openai:gpt-4o", Target("anthropic", "claude")]},
    policy="cheapest",
    fallback_after=0.5,
    max_queue={Priority.LOW: 20},
)
RateLimiter(rpm=5, max_queue=100)
RateLimiter(tpm=5, store="sqlite:///agents.db", lease_tokens=20_000)
assert_type(limiter.events.subscribe(heard, FellBack, Refused), Callable[[], None])
assert_type(limiter.acquire("openai:gpt-4", fallbacks=["anthropic:claude"]).target, Target)
with limiter.scope(run="42", max_calls=5, max_tokens=1_000, max_steps=3):
    limiter.step()
assert_type(limiter.explain("openai:gpt-4").holders, tuple[Holder, ...])


@limiter.limit(target="openai:gpt-4", fallbacks=["openai:gpt-4o"])
def rerouted(prompt: str, model: str = "") -> str:
    return prompt + model


assert_type(rerouted("x"), str)


# ---------------------------------------------------------------- the vocabulary

by_name = Limit("requests", 100, per="minute", thresholds=(0.5,))
limit = Limit(Resource.REQUESTS, 500, "minute", burst=5, scope=Scope(agent=EACH, run="42"))
assert_type(limit.per, float | str | None)
assert_type(replace(limit, amount=5), Limit)
assert_type(Limit.parse("1M tokens/day"), Limit)
assert_type(Target.parse("openai:gpt-4").model, str)
assert_type(Estimate(1, 800, 400, 400, 0.25).cost, float | None)
assert_type(Usage(exact=False).total_tokens, int)
Estimate(input_tokens=1.5)  # type: ignore[arg-type]
Usage(1, 2, 3, 4, 5, 6, 7, 8, 9, 0.5, True)  # type: ignore[call-arg]  # noqa: FBT003
limit.amount = 6  # type: ignore[misc]
