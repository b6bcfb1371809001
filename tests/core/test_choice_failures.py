"""Calls with fallbacks when things go wrong: deadlines, places in line, breakers, errors, secrets."""

from __future__ import annotations

import asyncio
import pickle
from contextlib import suppress
from typing import Any

import pytest

from agent_rate_limiter import (
    AcquireTimeout,
    AllTargetsFailed,
    ConfigError,
    Event,
    FellBack,
    Queued,
    QuotaExhausted,
    Refused,
    RetryStrategy,
    Target,
    Usage,
)
from agent_rate_limiter.providers import Failure, FailureKind
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.core.choosing import A, B, C, drain, limiter_estimate, limiter_of


def test_a_retry_still_has_its_deadline(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, models={"a": {"concurrency": 1}}, fallbacks=None)
    start = manual_clock.now()

    async def main() -> None:
        attempts = limiter.attempts(Target("a", "m"), limiter_estimate(), timeout=5)
        call = await attempts.acquire_async()
        assert attempts.failed(call, Failure(FailureKind.WAIT, status=429, retry_after=0.5))
        blocker = await limiter.acquire_async(A)
        with pytest.raises(AcquireTimeout):
            await attempts.acquire_async()
        blocker.settle()

    run_virtual(main(), manual_clock)
    assert 5_000 <= manual_clock.now() - start <= 5_600


def test_it_is_decided_anew_when_another_target_frees_sooner_than_told(manual_clock: ManualClock) -> None:
    hourly = {"limits": ["1 requests/hour"]}
    limiter = limiter_of(manual_clock, models={"a": hourly, "b": hourly}, fallbacks={A: [B]})
    drain(limiter, A, 1)
    held = limiter.acquire(B)

    async def main() -> str:
        asyncio.get_running_loop().call_later(10, held.cancel)
        call = await limiter.acquire_async(A)
        call.settle()
        return str(call.target)

    start = manual_clock.now()
    assert run_virtual(main(), manual_clock) == B
    assert manual_clock.now() - start <= 26_000


def test_whoever_looks_again_keeps_its_place(manual_clock: ManualClock) -> None:
    models: dict[str, Any] = {"a": {"rps": 1}, "b": {"limits": ["1 requests/day"]}}
    limiter = limiter_of(manual_clock, models=models, fallbacks={A: [B]}, fallback_after=0.5)
    drain(limiter, A, 1)
    drain(limiter, B, 1)
    served: list[str] = []

    async def call(name: str, *, plain: bool) -> None:
        target = Target("a", "m")
        made = (
            limiter._calls.acquire_async(target, limiter_estimate(), None, None) if plain else limiter.acquire_async(A)
        )
        (await made).settle()
        served.append(name)

    async def main() -> None:
        tasks = [asyncio.ensure_future(call("earlier", plain=True))]
        await asyncio.sleep(0)
        tasks.append(asyncio.ensure_future(call("with fallbacks", plain=False)))
        await asyncio.sleep(0.7)  # it has looked around by now
        tasks += [asyncio.ensure_future(call(f"later {n}", plain=True)) for n in range(3)]
        await asyncio.gather(*tasks)

    run_virtual(main(), manual_clock)
    assert served == ["earlier", "with fallbacks", "later 0", "later 1", "later 2"]


@pytest.mark.parametrize("timeout", [None, 5])
def test_full_queues_everywhere_refuse_at_once(manual_clock: ManualClock, timeout: float | None) -> None:
    limiter = limiter_of(manual_clock, models={name: {"rpm": 1} for name in "abc"}, max_queue=0)
    for target in (A, B, C):
        drain(limiter, target, 1)
    start = manual_clock.now()
    heard: list[Event] = []
    limiter.events.subscribe(heard.append)
    with pytest.raises(AllTargetsFailed):
        limiter.acquire(A, timeout=timeout)
    assert manual_clock.now() == start
    assert [type(event) for event in heard] in ([Queued, Refused], [Refused])


def test_a_guard_stays_what_it_is_with_fallbacks(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock)
    with limiter.scope(max_calls=1):
        limiter.acquire(A).settle()
        with pytest.raises(QuotaExhausted, match="max_calls 1"):
            limiter.acquire(A)

    ran: list[str] = []

    @limiter.limit(target=A)
    def step(target: str = "") -> None:
        ran.append(target)
        limiter.step()

    with limiter.scope(max_steps=1):
        step()
        with pytest.raises(QuotaExhausted, match="max_steps 1"):
            step()
    assert ran == [A, A]  # it is the user's own limit: nowhere else is it any better


def test_blocks_feed_the_breaker_too(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock)
    seen: list[str] = []
    for _ in range(6):
        with suppress(ConnectionRefusedError), limiter.reserve(A) as call:
            seen.append(str(call.target))
            if call.provider == "a":
                raise ConnectionRefusedError
            call.settle(Usage())
    assert seen == [A, A, A, B, B, B]


def test_time_outs_open_the_breaker_and_other_calls_do_not_close_it(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock)
    early = limiter.acquire(A)
    manual_clock.advance(1)
    for _ in range(3):
        limiter.acquire(A).fail(TimeoutError("the read timed out"))
    early.settle(Usage())  # sent before the outage
    assert str(limiter.acquire(A).target) == B


def test_a_look_is_only_taken_by_a_call_that_goes_there(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, fallbacks={A: [B], B: [A]})
    for _ in range(3):
        limiter.acquire(A).fail(ConnectionRefusedError())
    manual_clock.advance(8)
    for _ in range(5):
        limiter.acquire(B).settle(Usage())  # A is its last resort only
    assert str(limiter.acquire(A).target) == A


def test_secrets_are_not_repeated(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, fallbacks={A: [B]}, retry=RetryStrategy(max_attempts=1))
    heard: list[Event] = []
    limiter.events.subscribe(heard.append, FellBack)

    @limiter.limit(target=A)
    def ask(target: str = "") -> None:
        raise ConnectionError("https://x/?key=AIzaSyABCDEFGHIJKLMNOP Bearer sk-proj-abcdefghijkl")

    with pytest.raises(AllTargetsFailed) as failed:
        ask()
    shown = str(failed.value) + "".join(str(event) for event in heard)
    assert "AIza" not in shown
    assert "sk-proj" not in shown
    again = pickle.loads(pickle.dumps(failed.value))  # noqa: S301 - our own
    assert str(again) == str(failed.value)


def test_a_cheaper_target_alone_changes_no_error(manual_clock: ManualClock) -> None:
    entry = {"rpm": 60, "degrade_to": "b:m"}
    limiter = limiter_of(manual_clock, models={"a": entry}, fallbacks=None, retry=RetryStrategy(max_attempts=1))

    @limiter.limit(target=A)
    def ask(target: str = "") -> None:
        raise ConnectionResetError("down")

    with pytest.raises(ConnectionResetError):
        ask()


def test_a_cheaper_target_may_be_a_decorated_fallback(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, models={"a": {"rpd": 10, "degrade_to": "b:m"}}, fallbacks=None)

    @limiter.limit(target=A)
    def ask() -> str:
        return A

    @ask.fallback(B)
    def _() -> str:
        return B

    assert [ask() for _ in range(10)] == [A] * 8 + [B] * 2


def test_fallbacks_of_a_model_are_checked_when_they_are_written(manual_clock: ManualClock) -> None:
    for entry in ({"fallbacks": ["zz:m"]}, {"degrade_to": "zz:m"}):
        with pytest.raises(ConfigError, match="target is 'zz:m'"):
            limiter_of(manual_clock, models={"a": entry})


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_key_that_is_wrong_is_wrong_at_one_provider_only(manual_clock: ManualClock, status: int) -> None:
    limiter = limiter_of(manual_clock)
    attempts = limiter.attempts(Target("a", "m"), limiter_estimate(), serves=lambda _: True)
    assert attempts.failed(attempts.acquire(), Failure(FailureKind.FATAL, status=status))
    call = attempts.acquire()
    assert str(call.target) == B
    call.settle()


def test_attempts_are_counted_over_all_targets(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, retry=RetryStrategy(max_attempts=4))
    tried: list[str] = []

    async def main() -> None:
        attempts = limiter.attempts(Target("a", "m"), limiter_estimate(), serves=lambda _: True)
        while True:
            call = await attempts.acquire_async()
            tried.append(str(call.target))
            attempts.failed(call, Failure(FailureKind.TRANSIENT, status=500))

    with pytest.raises(AllTargetsFailed):
        run_virtual(main(), manual_clock)
    assert tried[:3] == [A, B, C]
    assert len(tried) <= 6


def test_a_block_is_entered_again_after_a_refusal(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, models={name: {"rpm": 1} for name in "abc"})
    for target in (A, B, C):
        drain(limiter, target, 1)
    pending = limiter.reserve(A, timeout=1)
    with pytest.raises(AllTargetsFailed), pending:
        pass
    manual_clock.advance(60)
    with pending as call:
        call.settle()


@pytest.mark.parametrize("timeout", [-1, float("nan"), "5"])
def test_a_bad_timeout_is_refused_with_fallbacks_too(manual_clock: ManualClock, timeout: Any) -> None:
    limiter = limiter_of(manual_clock)
    with pytest.raises(ConfigError, match="timeout is"):
        limiter.acquire(A, timeout=timeout)
    with pytest.raises(ConfigError, match="timeout is"):
        limiter.attempts(Target("a", "m"), limiter_estimate(), timeout=timeout)
    assert limiter.snapshot().in_flight == 0
