"""What closes a target, how it opens again, and what a refusal says of its limits; all on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agent_rate_limiter import (
    AcquireTimeout,
    Estimate,
    Limit,
    MultiProviderLimiter,
    Provider,
    Resource,
    Usage,
)
from agent_rate_limiter.calls.reservation import Reservation
from agent_rate_limiter.limits import Target
from agent_rate_limiter.providers import Failure, FailureKind, Quota, dialect
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.core.learning import GPT, admitted, available, known, unknown

# ---------------------------------------------------------------- refusals


def refuse(limiter: MultiProviderLimiter, failure: Failure, target: Target = GPT) -> None:
    admitted(limiter.try_acquire(target)).fail(failure)


def opens_in(limiter: MultiProviderLimiter, target: Target = GPT) -> float | None:
    return limiter.explain(target).decision.retry_after


@pytest.mark.parametrize(
    ("failure", "seconds"),
    [
        (Failure(FailureKind.WAIT, retry_after=7.5, status=429), 7.5),
        (Failure(FailureKind.WAIT, retry_after=0, status=429), 0.001),
        (Failure(FailureKind.WAIT, status=429), 2.0),
        (Failure(FailureKind.PARKED, retry_after=414.72, status=429), 414.72),
        (Failure(FailureKind.PARKED, period="day", status=429), 86_400),
        (Failure(FailureKind.PARKED, period="month", status=429), 31 * 86_400),
        (Failure(FailureKind.OVERLOADED, retry_after=3, status=529), 3),
        (Failure(FailureKind.OVERLOADED, status=529), None),  # the first overload: not yet
        (Failure(FailureKind.NO_CREDIT, status=429), None),
        (Failure(FailureKind.FATAL, status=400), None),
        (Failure(FailureKind.TRANSIENT, status=500), None),
    ],
)
def test_a_refusal_closes_the_target_for_everybody(
    manual_clock: ManualClock, failure: Failure, seconds: float | None
) -> None:
    limiter = MultiProviderLimiter([Provider("openai", {"gpt-4": {"concurrency": 50}})], clock=manual_clock)
    refuse(limiter, failure)
    assert opens_in(limiter) == seconds


def test_the_gemini_day_ends_at_midnight_pacific_whatever_retry_delay_says(manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter([Provider("gemini", {"flash": {"concurrency": 50}})], clock=manual_clock)
    refuse(limiter, Failure(FailureKind.PARKED, 38.0, period="day", status=429), Target("gemini", "flash"))
    opens = limiter.explain("gemini:flash").decision.available_at
    assert opens is not None
    moment = datetime.fromtimestamp(opens, ZoneInfo("America/Los_Angeles"))
    assert (moment.hour, moment.minute, moment.second) == (0, 0, 0)


def test_a_parked_target_resumes_by_itself_and_the_wait_can_be_cancelled(manual_clock: ManualClock) -> None:
    limiter = known(manual_clock, concurrency=50)
    refuse(limiter, Failure(FailureKind.PARKED, period="day", status=429))
    start = manual_clock.now()

    async def main() -> None:
        patient = asyncio.ensure_future(limiter.acquire_async(GPT))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(limiter.acquire_async(GPT), 60)
        (await patient).settle(Usage())

    run_virtual(main(), manual_clock)
    assert (manual_clock.now() - start) / 1000 == 86_400
    assert limiter.snapshot().waiting == 0


def test_a_closed_gate_says_so(manual_clock: ManualClock) -> None:
    limiter = known(manual_clock, concurrency=50)
    refuse(limiter, Failure(FailureKind.WAIT, 90, status=429))
    with pytest.raises(AcquireTimeout) as refused:
        limiter.acquire(GPT, timeout=1)
    assert str(refused.value) == (
        "openai:gpt-4 is closed: its provider refused calls. It frees in 1 min 30 s, at 2026-01-01 00:01:30 UTC: "
        "wait that long (timeout), or use a fallback."
    )
    assert [limit.name for limit in limiter.snapshot().limits if limit.owner == "openai:gpt-4"][-1] == "gate"


def test_refusals_of_one_wave_are_one_strike(manual_clock: ManualClock) -> None:
    limiter = known(manual_clock, concurrency=50)
    for call in [admitted(limiter.try_acquire(GPT)) for _ in range(5)]:
        manual_clock.advance(0.01)
        call.fail(Failure(FailureKind.WAIT, retry_after=1, status=429))
    assert opens_in(limiter) == 1  # as the last one said
    manual_clock.advance(1)
    refuse(limiter, Failure(FailureKind.WAIT, status=429))
    assert opens_in(limiter) == 4  # the second in a row: twice two seconds


def test_a_success_of_a_call_sent_before_the_closing_does_not_open_the_gate_wider(manual_clock: ManualClock) -> None:
    limiter = known(manual_clock, concurrency=50)
    early = [admitted(limiter.try_acquire(GPT)) for _ in range(5)]
    manual_clock.advance(0.1)
    early.pop().fail(Failure(FailureKind.WAIT, retry_after=1, status=429))
    for call in early:
        call.settle(Usage())
    manual_clock.advance(1)
    probe = admitted(limiter.try_acquire(GPT))
    assert not limiter.try_acquire(GPT)  # one at first
    probe.settle(Usage())


def test_a_refused_call_makes_no_room_for_the_next_one_before_the_gate_is_closed(manual_clock: ManualClock) -> None:
    limiter = known(manual_clock, concurrency=1)

    async def main() -> float:
        first = await limiter.acquire_async(GPT)
        waiting = asyncio.ensure_future(limiter.acquire_async(GPT))
        await asyncio.sleep(1)
        first.fail(Failure(FailureKind.WAIT, retry_after=5, status=429))
        begun = manual_clock.now()
        (await waiting).settle(Usage())
        return (manual_clock.now() - begun) / 1000

    assert run_virtual(main(), manual_clock) == 5


def widths(limiter: MultiProviderLimiter, rounds: int) -> list[int]:
    """How many calls at once it lets through, round after round of successes."""
    found = []
    for _ in range(rounds):
        calls: list[Reservation] = []
        while isinstance(call := limiter.try_acquire(GPT), Reservation) and len(calls) < 20:
            calls.append(call)
        found.append(len(calls))
        for call in calls:
            call.settle(Usage())
    return found


def test_it_opens_gradually(manual_clock: ManualClock) -> None:
    limiter = known(manual_clock, concurrency=50)
    refuse(limiter, Failure(FailureKind.WAIT, 10, status=429))
    manual_clock.advance(10)
    found = widths(limiter, 9)
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1, 20)


def test_a_budget_is_no_rate_the_target_stays_unknown(manual_clock: ManualClock) -> None:
    """So it is searched for as if there were no budget, and not taken for known after a few successes."""
    found = []
    for options in ({}, {"budget_limit": 100}):
        limiter = unknown(manual_clock, on_unknown_price="zero", **options)
        refuse(limiter, Failure(FailureKind.WAIT, 1, status=429))
        manual_clock.advance(1)
        found.append(widths(limiter, 12))
    assert found[0] == found[1]
    assert found[0][-1] < 20


def test_overloads_in_a_row_open_the_circuit_and_one_probe_closes_it(manual_clock: ManualClock) -> None:
    limiter = known(manual_clock, concurrency=50)
    overload = Failure(FailureKind.OVERLOADED, status=529)
    for strikes in range(3):
        assert opens_in(limiter) is None, strikes
        refuse(limiter, overload)
    first = opens_in(limiter)
    assert first is not None
    manual_clock.advance(first)
    refuse(limiter, overload)  # the probe fails: closed for longer
    second = opens_in(limiter)
    assert second is not None
    assert second > first
    manual_clock.advance(second)
    admitted(limiter.try_acquire(GPT)).settle(Usage())
    assert opens_in(limiter) is None


def test_a_success_between_overloads_keeps_the_circuit_closed(manual_clock: ManualClock) -> None:
    limiter = known(manual_clock, concurrency=50)
    for _ in range(5):
        refuse(limiter, Failure(FailureKind.OVERLOADED, status=529))
        refuse(limiter, Failure(FailureKind.OVERLOADED, status=529))
        admitted(limiter.try_acquire(GPT)).settle(Usage())
    assert opens_in(limiter) is None


def test_an_exact_refusal_holds_large_calls_back_but_not_small_ones(manual_clock: ManualClock) -> None:
    """OpenAI says how much was asked and when it fits: then the bucket is known, and nobody else need wait."""
    limiter = known(manual_clock, tpm=60_000)
    call = admitted(limiter.try_acquire(GPT, input_tokens=10_000))
    call.fail(Failure(FailureKind.WAIT, 8.0, Resource.TOKENS, "minute", requested=10_000, status=429))
    assert limiter.explain(GPT, input_tokens=10_000).decision.retry_after == 8.0
    assert limiter.explain(GPT, input_tokens=1_000).decision.admitted


def test_a_refused_call_counts_as_a_request_and_uses_no_tokens(manual_clock: ManualClock) -> None:
    limiter = known(manual_clock, rpm=100, tpm=10_000, cost_per_1k=0.03)
    call = admitted(limiter.try_acquire(GPT, input_tokens=1_000))
    call.fail(Failure(FailureKind.FATAL, status=400))
    assert (available(limiter), available(limiter, "tokens")) == (99, 10_000)
    assert limiter.costs.report().to_dicts()[0]["requests"] == 1
    unsent = admitted(limiter.try_acquire(GPT, input_tokens=1_000))
    unsent.fail(Failure(FailureKind.TRANSIENT, sent=False))
    assert (available(limiter), available(limiter, "tokens")) == (99, 10_000)


def test_a_call_within_a_call_passes_a_narrow_gate(manual_clock: ManualClock) -> None:
    """The outer call stands in the gate and waits for the inner one: it must not be locked out by it."""
    limiter = known(manual_clock, concurrency=50)
    refuse(limiter, Failure(FailureKind.WAIT, 1, status=429))
    manual_clock.advance(1)

    async def main() -> None:
        async with limiter.reserve(GPT), limiter.reserve(GPT, Estimate(), timeout=5):
            pass

    run_virtual(main(), manual_clock)


def test_a_broken_promise_of_the_headers_is_remembered(manual_clock: ManualClock) -> None:
    """A refusal while the headers say that plenty is left: they know nothing of the burst; the bucket decides."""
    limiter = unknown(manual_clock)
    call = admitted(limiter.try_acquire(GPT))
    call.observe([Quota(Resource.REQUESTS, "minute", 120, 100)])
    call.fail(Failure(FailureKind.WAIT, 0.5, Resource.REQUESTS, "minute", requested=1, status=429))
    manual_clock.advance(0.5)
    other = admitted(limiter.try_acquire(GPT))
    other.observe([Quota(Resource.REQUESTS, "minute", 120, 99)])
    assert available(limiter) == 0


@pytest.mark.parametrize("resource", [Resource.TOKENS, Resource.INPUT_TOKENS])
def test_a_refusal_that_names_nothing_is_taken_for_requests_else_for_tokens(
    manual_clock: ManualClock, resource: Resource
) -> None:
    limiter = MultiProviderLimiter(
        [Provider("openai", {"gpt-4": {"limits": [Limit(resource, 6_000, "minute")]}})], clock=manual_clock
    )
    call = admitted(limiter.try_acquire(GPT, input_tokens=1_000))
    call.fail(Failure(FailureKind.WAIT, 5.0, status=429))
    manual_clock.advance(5)
    assert available(limiter, resource.value) == 1_000


@pytest.mark.parametrize("end", [lambda call: call.settle(Usage()), lambda call: call.cancel()])
def test_quotas_may_come_after_the_end(manual_clock: ManualClock, end: Callable[[Reservation], None]) -> None:
    limiter = known(manual_clock, rpm=100)
    call = admitted(limiter.try_acquire(GPT))
    end(call)
    call.observe([Quota(Resource.REQUESTS, "minute", 100, 7)])
    assert available(limiter) == 7


def test_a_provider_that_says_slow_down_is_obeyed_at_once_and_asked_less_often(manual_clock: ManualClock) -> None:
    """OpenAI's 503 is not the overload of others: three of them in a row are not waited for."""
    told = {"error": {"message": "Slow down. Your request rate has increased too quickly.", "code": "slow_down"}}
    failure = dialect("openai").failure(503, {}, told, 0.0)
    assert failure.kind is FailureKind.OVERLOADED
    limiter = known(manual_clock, rpm=600)
    refuse(limiter, failure)
    assert opens_in(limiter) == 2
    manual_clock.advance(2)
    refuse(limiter, failure)
    (limit,) = [limit for limit in limiter.snapshot().limits if limit.resource == "requests" and limit.name != "gate"]
    assert limit.amount == 480
    assert opens_in(limiter) == 4


@pytest.mark.parametrize("shared", [False, True])
def test_one_wave_that_meets_several_processes_is_one_strike(
    manual_clock: ManualClock, shared: bool, tmp_path: Path
) -> None:
    """Else as many as there are would multiply what a second refusal in a row has to wait."""
    store = f"sqlite:///{tmp_path}/limits.db" if shared else "memory://"
    limits = [Provider("openai", {"gpt-4": {"rpm": 6_000, "concurrency": 50}})]
    first = MultiProviderLimiter(limits, clock=manual_clock, store=store)
    limiters = [
        first,
        *(MultiProviderLimiter(limits, clock=manual_clock, store=store) if shared else first for _ in "abc"),
    ]
    exact = Failure(FailureKind.WAIT, 0.01, Resource.REQUESTS, "minute", requested=1, status=429)
    wave = [admitted(limiter.try_acquire(GPT)) for limiter in limiters]
    for call in wave:
        manual_clock.advance(0.001)
        call.fail(exact)
    manual_clock.advance(1)
    refuse(limiters[-1], Failure(FailureKind.WAIT, 0.01, status=429))
    assert opens_in(first) == 0.25
    for limiter in limiters:
        limiter.close()
