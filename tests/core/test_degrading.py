"""Cheaper targets that take over before a budget or a day is used up, and outages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent_rate_limiter import (
    AcquireTimeout,
    Admitted,
    Budget,
    ConfigError,
    Degraded,
    Event,
    FellBack,
    Refused,
    Retried,
    Settled,
    Target,
    Usage,
)
from agent_rate_limiter.providers import Failure, FailureKind
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.core.choosing import A, B, drain, limiter_estimate, limiter_of
from tests.core.virtual_provider import VirtualProvider

# ------------------------------------------------------------------ degrading


def degrading(clock: ManualClock, **options: Any) -> Any:
    models = {"a": {"rpm": 600, "cost_per_1k": 1, "degrade_to": {"target": "b:m", "at": 0.5}}}
    return limiter_of(clock, models=models, fallbacks=None, **options)


@pytest.mark.parametrize("action", ["block", "degrade"])
def test_a_cheaper_target_takes_over_and_gives_back(manual_clock: ManualClock, action: str) -> None:
    limiter = degrading(manual_clock, budgets=[Budget(10, "day", action=action)])
    heard: list[Event] = []
    limiter.events.subscribe(heard.append, Degraded)
    for expected in [A] * 5 + [B] * 3:
        call = limiter.acquire(A, max_output_tokens=1_000)
        assert str(call.target) == expected
        call.settle()
    assert len(heard) == 3
    assert isinstance(heard[0], Degraded)
    assert (heard[0].target, heard[0].served_by) == (A, B)
    assert heard[0].reason == "'budget $10.00/day' runs low"
    manual_clock.advance(86_400)
    assert str(limiter.acquire(A, max_output_tokens=1_000).target) == A


def test_a_day_s_quota_degrades_and_a_minute_s_does_not(manual_clock: ManualClock) -> None:
    entry = {"rpd": 10, "rpm": 4, "degrade_to": "b:m"}
    limiter = limiter_of(manual_clock, models={"a": entry}, fallbacks=None)
    seen = []
    for _ in range(10):
        call = limiter.acquire(A)
        call.settle()
        seen.append(str(call.target))
        manual_clock.advance(60)
    assert seen == [A] * 8 + [B] * 2


# ------------------------------------------------------------------ what is heard


def test_every_step_is_told(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, models={"a": {"rpm": 10}})
    heard: list[Event] = []
    limiter.events.subscribe(heard.append)
    drain(limiter, B, 1)
    with limiter.scope(agent="r"):
        attempts = limiter.attempts(Target("a", "m"), limiter_estimate(), serves=lambda _: True)
        first = attempts.acquire()
        assert attempts.failed(first, Failure(FailureKind.OVERLOADED, status=503, message="busy"))
        second = attempts.acquire()
        second.settle()
    kinds = [type(event) for event in heard]
    assert kinds == [Admitted, Settled, Admitted, Settled, Retried, Admitted, FellBack, Settled]
    retried, fell = heard[4], heard[6]
    assert isinstance(retried, Retried)
    assert (retried.attempt, retried.kind, retried.message, dict(retried.labels)) == (
        1,
        "overloaded",
        "busy",
        {"agent": "r"},
    )
    assert isinstance(fell, FellBack)
    assert (fell.target, fell.served_by, fell.reason) == (A, B, "HTTP 503: busy")
    drain(limiter, A, 9)
    heard.clear()
    with pytest.raises(AcquireTimeout):
        limiter._calls.acquire(Target("a", "m"), limiter_estimate(), None, 0.5)
    assert [type(event) for event in heard] == [Refused]  # it never waited


def test_listeners_never_break_a_call(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock)

    def broken(_: Event) -> None:
        raise RuntimeError("a listener's own")

    stop = limiter.events.subscribe(broken, Admitted)
    limiter.acquire(A).settle()
    assert limiter.events.failures == 1
    stop()
    limiter.acquire(A).settle()
    assert limiter.events.failures == 1
    assert repr(limiter.events) == "<Events: 0 listening>"
    with pytest.raises(ConfigError, match="listener is 3"):
        limiter.events.subscribe(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="kinds hold"):
        limiter.events.subscribe(broken, int)  # type: ignore[arg-type]


# ------------------------------------------------------------------ an outage


@pytest.mark.parametrize("failure", [FailureKind.TRANSIENT, FailureKind.OVERLOADED])
def test_an_outage_with_a_backup_loses_nobody(manual_clock: ManualClock, failure: FailureKind) -> None:
    """The primary is down for twenty seconds: no failed call, three lost there, and traffic is back in ten."""
    limiter = limiter_of(manual_clock, models={"a": {"rpm": 6_000}, "b": {"rpm": 6_000}})
    primary, backup = VirtualProvider(manual_clock, rpm=6_000), VirtualProvider(manual_clock, rpm=6_000)
    start = manual_clock.now()
    down, up = start + 5_000, start + 25_000
    primary.failing = lambda now: Failure(failure, status=503) if down <= now < up else None
    calls: list[tuple[int, str]] = []

    async def agent() -> None:
        while manual_clock.now() < start + 60_000:
            attempts = limiter.attempts(Target("a", "m"), limiter_estimate(), serves=lambda _: True)
            while True:
                call = await attempts.acquire_async()
                await asyncio.sleep(0.05)
                wrong, quotas = (primary if call.provider == "a" else backup).answer()
                call.observe(quotas)
                if wrong is None:
                    call.settle(Usage(1, 1, 1))
                    calls.append((manual_clock.now(), str(call.target)))
                    break
                assert attempts.failed(call, wrong)
            await asyncio.sleep(0.05)

    async def agents() -> None:
        await asyncio.gather(*(agent() for _ in range(3)))

    run_virtual(agents(), manual_clock)
    before_open = [at for at in primary.refused if at < down + 1_000]
    assert len(before_open) <= 3
    assert len(primary.refused) <= 3 + 5  # and one look each 2, 4, 8, … seconds
    back = [at for at, target in calls if target == A and at >= up]
    later = [target for at, target in calls if at >= up + 10_000]
    assert back[0] <= up + 10_000
    assert later.count(A) == len(later)
    assert len(calls) >= 3 * 60 * 9
