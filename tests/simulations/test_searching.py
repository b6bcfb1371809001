"""Providers on virtual time that limit calls: how many they refuse, and how much of the limit is used."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent_rate_limiter import MultiProviderLimiter, Provider, RequestTooLarge, Reservation, Resource
from agent_rate_limiter.limits import Target
from agent_rate_limiter.providers import Failure, FailureKind
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.core.virtual_provider import VirtualProvider

GPT = Target("openai", "gpt-4")


def unknown(clock: ManualClock, **options: Any) -> MultiProviderLimiter:
    return MultiProviderLimiter(clock=clock, **options)


def known(clock: ManualClock, **limits: Any) -> MultiProviderLimiter:
    return MultiProviderLimiter([Provider("openai", {"gpt-4": limits})], clock=clock)


def storm(provider: VirtualProvider, limiter: MultiProviderLimiter, calls: int) -> float:
    async def main() -> list[bool]:
        return await asyncio.gather(*(provider.call(limiter, GPT) for _ in range(calls)))

    start = provider.clock.now()
    assert all(run_virtual(main(), provider.clock))
    return (provider.clock.now() - start) / 1000


# ---------------------------------------------------------------- nobody configured anything


@pytest.mark.parametrize("latency", [0.05, 0.2])
@pytest.mark.parametrize("exact", [True, False])
def test_a_storm_against_unknown_limits(manual_clock: ManualClock, latency: float, exact: bool) -> None:
    """100 tasks at once, a burst of 20 and 2 per second: ideally 40 s. Other clients collect thousands of 429s."""
    provider = VirtualProvider(manual_clock, rpm=120, burst=20, exact=exact, latency=latency)
    took = storm(provider, unknown(manual_clock), 100)
    assert len(provider.refused) <= 5
    assert took <= 44


@pytest.mark.parametrize("told", [True, False])
def test_a_storm_without_headers(manual_clock: ManualClock, told: bool) -> None:
    """The pace is learned from refusals alone; then little more than one call in ten is refused."""
    provider = VirtualProvider(manual_clock, rpm=120, burst=20, headers=False, exact=False, told=told)
    took = storm(provider, unknown(manual_clock), 100)
    assert len(provider.refused) <= 15
    assert took <= 44


def test_an_unlimited_provider_is_soon_used_in_full(manual_clock: ManualClock) -> None:
    provider = VirtualProvider(manual_clock, rpm=10**9, headers=False, latency=1.0)
    took = storm(provider, unknown(manual_clock), 1_000)
    assert not provider.refused
    assert took <= 30  # 8 s with three at once, then doubling


# ---------------------------------------------------------------- limits that are configured exactly


def busy(provider: VirtualProvider, limiter: MultiProviderLimiter, agents: int, seconds: float) -> None:
    """Agents call without a pause; every call must succeed in the end."""
    end = provider.clock.now() + seconds * 1000

    async def agent() -> None:
        while provider.clock.now() < end:
            assert await provider.call(limiter, GPT)

    async def main() -> None:
        await asyncio.gather(*(agent() for _ in range(agents)))

    run_virtual(main(), provider.clock)
    provider.admitted = [at for at in provider.admitted if at < end]


@pytest.mark.parametrize("headers", ["none", "at admission", "at the end"])
@pytest.mark.parametrize(("rpm", "agents"), [(3_000, 400), (600, 100), (60, 100), (20, 30)])
def test_out_of_phase_a_client_is_hardly_refused_and_uses_the_limit(
    manual_clock: ManualClock, rpm: int, agents: int, headers: str
) -> None:
    """First calls take longer to arrive than later ones, so that the client's bucket is ahead of the provider's."""
    options: dict[str, Any] = {"headers": headers != "none", "stated_at_end": headers == "at the end"}
    provider = VirtualProvider(manual_clock, rpm=rpm, latency=1.0, jitter=(0.01, 0.06), **options)
    busy(provider, known(manual_clock, rpm=rpm), agents, seconds=120)
    assert len(provider.refused) <= 1
    assert len(provider.admitted) >= 0.95 * (rpm + 2 * rpm)


def test_a_client_that_pauses_is_hardly_refused(manual_clock: ManualClock) -> None:
    provider = VirtualProvider(manual_clock, rpm=600, latency=0.1, jitter=(0.01, 0.3))
    limiter = known(manual_clock, rpm=600)
    for _ in range(8):
        busy(provider, limiter, agents=100, seconds=60)
        manual_clock.advance(120)
    assert len(provider.refused) <= 8  # once each time at most


# ---------------------------------------------------------------- limits that nobody tells


@pytest.mark.parametrize(("exact", "told"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize(("rpm", "agents"), [(600, 50), (60, 30), (20, 30)])
def test_refusals_alone_teach_the_rate(
    manual_clock: ManualClock, rpm: int, agents: int, exact: bool, told: bool
) -> None:
    options: dict[str, Any] = {"headers": False, "exact": exact, "told": told, "jitter": (0.01, 0.06)}
    provider = VirtualProvider(manual_clock, rpm=rpm, latency=1.0, **options)
    busy(provider, unknown(manual_clock), agents, seconds=600)
    assert len(provider.refused) <= 0.02 * len(provider.admitted) + 10
    assert len(provider.admitted) >= 0.95 * (rpm + 10 * rpm)


# ---------------------------------------------------------------- limits that change


@pytest.mark.parametrize("headers", [True, False])
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("configured", [True, False])
def test_a_limit_halved_midway_without_notice(
    manual_clock: ManualClock, configured: bool, told: bool, headers: bool
) -> None:
    provider = VirtualProvider(manual_clock, rpm=600, headers=headers, exact=told, told=told)
    limiter = known(manual_clock, rpm=600) if configured else unknown(manual_clock)
    halved = manual_clock.now() + 60_000

    async def halve() -> None:
        await asyncio.sleep(60)
        provider.set_rpm(300)

    async def agent() -> None:
        while manual_clock.now() < halved + 120_000:
            assert await provider.call(limiter, GPT)

    async def main() -> None:
        await asyncio.gather(halve(), *(agent() for _ in range(50)))

    run_virtual(main(), manual_clock)
    after = sum(halved <= at < halved + 120_000 for at in provider.admitted)
    refused = sum(at >= halved for at in provider.refused)  # what went before was another search, where there are none
    assert (len(provider.refused) if headers else refused) <= 0.02 * len(provider.admitted)
    assert after >= 0.9 * 2 * 300


def test_a_configured_limit_that_was_lowered_is_tried_again(manual_clock: ManualClock) -> None:
    """Without headers, refusals lower it; when they stop, it grows to what is configured, and is that again."""
    provider = VirtualProvider(manual_clock, rpm=300, headers=False, exact=False)
    limiter = known(manual_clock, rpm=600)
    busy(provider, limiter, agents=50, seconds=120)
    (limit,) = limiter.snapshot().limits
    assert limit.name.endswith("requests/minute (lowered from 600)")
    assert 250 <= limit.amount <= 340
    provider.set_rpm(100_000)
    with limiter.scope(agent="new"):  # who was not known when the search began
        busy(provider, limiter, agents=50, seconds=600)
    assert [limit.name for limit in limiter.snapshot().limits] == ["600 requests/minute"]
    assert len(provider.refused) <= 0.05 * len(provider.admitted)


# ---------------------------------------------------------------- waits that are told too short


@pytest.mark.parametrize("models", [{}, {"gpt-4": {"rpm": 6_000, "tpm": 1_000_000}}], ids=["unknown", "known"])
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("told", [0, 0.012, 0.5])
@pytest.mark.parametrize("calls", [1, 50])
def test_refused_again_and_again_for_ten_seconds_nobody_dies(
    manual_clock: ManualClock, told: float, exact: bool, models: Any, calls: int
) -> None:
    """`Retry-After: 0`, or the share of others who take what is free: eight attempts must not be over in a moment."""
    provider = VirtualProvider(manual_clock, rpm=10**6, headers=False)
    until = manual_clock.now() + 10_000
    requested = {"resource": Resource.TOKENS, "period": "minute", "requested": 20} if exact else {}
    refusal = Failure(FailureKind.WAIT, told, status=429, **requested)  # type: ignore[arg-type]
    provider.failing = lambda now: refusal if now < until else None
    limiter = MultiProviderLimiter([Provider("openai", models)] if models else [], clock=manual_clock)
    assert storm(provider, limiter, calls) <= 20
    assert len(provider.refused) <= 7 * (1 if calls == 1 else 20)


def test_a_guess_makes_no_call_too_large(manual_clock: ManualClock) -> None:
    """A rate that is searched for falls with every wave of refusals; how much fits at once is no part of the guess."""
    limiter = known(manual_clock, tpm=1_000)
    for _ in range(30):
        while not isinstance(call := limiter.try_acquire(GPT, input_tokens=20), Reservation):
            manual_clock.advance(1)
        call.fail(Failure(FailureKind.WAIT, 0.01, Resource.TOKENS, "minute", status=429))
    (limit,) = [limit for limit in limiter.snapshot().limits if limit.resource == "tokens"]
    assert limit.amount < 500
    assert limiter.explain(GPT, input_tokens=900).decision.retry_after is not None
    with pytest.raises(RequestTooLarge):  # that is the user's own limit
        limiter.acquire(GPT, input_tokens=1_001)


def refused(limiter: MultiProviderLimiter, clock: ManualClock, times: int) -> dict[str, float]:
    """Let a provider refuse calls by its minute's limit, one after the other; return what is left of each limit."""
    for _ in range(times):
        clock.advance(2)
        for _ in range(5):
            limiter.acquire(GPT).settle()
        failure = Failure(FailureKind.WAIT, retry_after=0.01, resource=Resource.REQUESTS, period="minute")
        limiter.acquire(GPT).fail(failure)
    return {limit.name: limit.available for limit in limiter.snapshot().limits}


def test_a_minutes_limit_that_refuses_is_the_one_that_was_configured_by_the_second(manual_clock: ManualClock) -> None:
    left = refused(known(manual_clock, rps=100), manual_clock, 1)
    assert set(left) == {"gate", "100 requests/second"}, "no rate is searched for"
    assert left["100 requests/second"] <= 1, "but its burst is used up"


def test_a_days_limit_is_not_the_minutes_that_refuses(manual_clock: ManualClock) -> None:
    left = refused(known(manual_clock, rpd=1_000), manual_clock, 2)
    assert left["1,000 requests/day"] >= 985
