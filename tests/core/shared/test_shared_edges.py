"""What happens at the edges: while the store is lost, behind a head that was just served, after a bug in a listener."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from agent_rate_limiter import AcquireTimeout, Limit, MultiProviderLimiter, Provider, RateLimiter
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.providers import Failure, FailureKind
from agent_rate_limiter.testing import ManualClock, run_virtual


def test_a_refusal_closes_the_gate_even_while_the_store_is_lost(
    stores: Callable[[], Any], manual_clock: ManualClock
) -> None:
    store = stores()
    provider = Provider("openai", {"gpt": {"rpm": 60}})
    limiter = MultiProviderLimiter([provider], store=store, clock=manual_clock, on_store_error="local")
    limiter.acquire("openai:gpt").settle()
    store.lost = True
    limiter.acquire("openai:gpt").settle()
    limiter.acquire("openai:gpt").fail(Failure(FailureKind.WAIT, retry_after=30))
    refusal = limiter.try_acquire("openai:gpt")
    assert not refusal
    assert "openai:gpt is closed: its provider refused calls" in refusal.reason
    assert refusal.retry_after == 30
    manual_clock.advance(30)
    assert limiter.try_acquire("openai:gpt")


def test_whoever_cannot_be_served_in_time_is_told_when_it_becomes_the_head(
    limiter: Callable[..., RateLimiter], manual_clock: ManualClock
) -> None:
    one = limiter(Limit(Resource.REQUESTS, 1, per=1))
    one.acquire().settle()

    async def main() -> float:
        start = manual_clock.now()
        first = asyncio.ensure_future(one.acquire_async())
        await asyncio.sleep(0.01)
        with pytest.raises(AcquireTimeout):
            await one.acquire_async(timeout=1.5)
        (await first).settle()
        return (manual_clock.now() - start) / 1000

    assert run_virtual(main(), manual_clock) <= 1.1, "not only when its timeout has passed"


def test_a_bug_in_a_listener_costs_nobody_else_an_answer(
    limiter: Callable[..., RateLimiter], caplog: pytest.LogCaptureFixture
) -> None:
    one = limiter(rpm=5)
    one.acquire().settle()
    engine = cast("Any", one._calls.engine)

    def bug(*_: object) -> None:
        raise ZeroDivisionError

    engine._outbox.read([], bug)
    assert one.try_acquire()
    assert "An answer of " in caplog.text
