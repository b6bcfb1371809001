"""Whether, and after what backoff, a failed call is tried again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from agent_rate_limiter import ConfigError, Estimate, RateLimiter, RetryBudget, RetryStrategy, Usage
from agent_rate_limiter.providers import Failure, FailureKind
from agent_rate_limiter.testing import ManualClock, run_virtual

WAIT, PARKED, OVERLOADED = FailureKind.WAIT, FailureKind.PARKED, FailureKind.OVERLOADED
TRANSIENT, FATAL, NO_CREDIT = FailureKind.TRANSIENT, FailureKind.FATAL, FailureKind.NO_CREDIT
BROKEN = Failure(TRANSIENT, status=500)


def after(strategy: RetryStrategy, failure: Failure = BROKEN, attempt: int = 1, elapsed: float = 0) -> float | None:
    return strategy.after(failure, attempt, elapsed, None)


@pytest.mark.parametrize(
    ("kind", "backoff"),
    [(WAIT, 0), (PARKED, 0), (OVERLOADED, 1), (TRANSIENT, 1), (FATAL, None), (NO_CREDIT, None)],
)
def test_a_rate_limit_waits_at_the_gate_and_the_rest_backs_off_or_fails(kind: FailureKind, backoff: float) -> None:
    assert after(RetryStrategy(backoff="fixed", base=1, jitter="none"), Failure(kind)) == backoff


@pytest.mark.parametrize(
    ("backoff", "expected"),
    [("exponential", [0.5, 1, 2, 4, 5]), ("linear", [0.5, 1, 1.5, 2, 2.5]), ("fixed", [0.5] * 5)],
)
def test_backoffs_without_jitter(backoff: str, expected: list[float]) -> None:
    strategy = RetryStrategy(backoff=backoff, base=0.5, cap=5, jitter="none")
    assert [after(strategy, attempt=number) for number in range(1, 6)] == expected


@given(st.sampled_from(["exponential", "linear", "fixed"]), st.integers(1, 7), st.floats(0, 10), st.floats(0, 20))
def test_full_jitter_stays_below_its_bound(backoff: str, attempt: int, base: float, cap: float) -> None:
    bound = {"exponential": base * 2 ** (attempt - 1), "linear": base * attempt, "fixed": base}[backoff]
    drawn = after(RetryStrategy(backoff=backoff, base=base, cap=cap), attempt=attempt)
    assert drawn is not None
    assert 0 <= drawn <= (min(bound, cap) if backoff != "fixed" else bound) + 1e-9


def test_what_the_provider_told_is_the_least() -> None:
    strategy = RetryStrategy(backoff="fixed", base=1, jitter="none")
    assert after(strategy, Failure(OVERLOADED, retry_after=30)) == 30


def test_it_stops() -> None:
    assert after(RetryStrategy(3), attempt=2) is not None
    assert after(RetryStrategy(3), attempt=3) is None
    assert after(RetryStrategy(1)) is None
    assert after(RetryStrategy(max_time=10), elapsed=9.9) is not None
    assert after(RetryStrategy(max_time=10), elapsed=10) is None


def test_tenacitys_own_objects_are_taken() -> None:
    strategy = RetryStrategy(wait=tenacity.wait_fixed(3), stop=tenacity.stop_after_delay(10))
    assert after(strategy, elapsed=9) == 3
    assert after(strategy, elapsed=11) is None
    doubtful = RetryStrategy(stop=tenacity.stop_after_attempt(2))
    assert after(doubtful, Failure(WAIT), attempt=1) == 0
    assert after(doubtful, Failure(WAIT), attempt=2) is None


def test_the_budget_is_a_share_of_the_calls() -> None:
    budget = RetryBudget(ratio=0.5, minimum=2)
    assert [budget.allows(10_000, 0) for _ in range(3)] == [True, True, False]
    assert [budget.allows(11_000, 4) for _ in range(3)] == [True, True, False]
    assert [budget.allows(21_000, 4) for _ in range(3)] == [True, True, False]  # ten seconds later


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_attempts": 0}, "max_attempts is 0: give a whole number of at least 1."),
        ({"max_attempts": 1.5}, "max_attempts is 1.5: give a whole number of at least 1."),
        ({"max_time": -1}, "max_time is -1: give a finite number of at least 0."),
        ({"base": float("nan")}, "base is nan: give a finite number of at least 0."),
        ({"cap": "1"}, "cap is '1': give a finite number of at least 0."),
        ({"backoff": "random"}, "backoff is 'random': it is one of exponential, linear, fixed."),
        ({"jitter": "some"}, "jitter is 'some': it is one of full, none."),
        (
            {"tries": 3},
            "retry.tries: unknown key; it is one of max_attempts, max_time, backoff, base, cap, jitter, budget.",
        ),
        ({"budget": {"ratio": -1}}, "ratio is -1: give a finite number of at least 0."),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        RetryStrategy.of(options)
    assert str(refused.value) == message


def test_a_file_says_it_too() -> None:
    strategy = RetryStrategy.of({"max_attempts": 3, "max_time": 60, "budget": {"ratio": 0.1, "minimum": 1}})
    assert repr(strategy) == "RetryStrategy(max_attempts=3, max_time=60, backoff='exponential', base=0.5)"
    assert repr(strategy.budget) == "RetryBudget(ratio=0.1, minimum=1)"
    assert RetryStrategy.of(strategy) is strategy
    assert repr(RetryStrategy.of(None)) == "RetryStrategy(max_attempts=8, backoff='exponential', base=0.5)"


def test_a_retry_keeps_its_place_and_its_backoff_holds_nothing(manual_clock: ManualClock) -> None:
    retry = RetryStrategy(3, backoff="fixed", base=2, jitter="none")
    limiter = RateLimiter(rpm=60, retry=retry, clock=manual_clock)
    for _ in range(58):
        limiter.acquire().settle()
    attempts = limiter.attempts(limiter.target, Estimate(), timeout=60)
    order: list[str] = []

    async def fails_once() -> None:
        call = await attempts.acquire_async()
        assert attempts.failed(call, BROKEN)
        call = await attempts.acquire_async()
        order.append("retry")
        call.settle(Usage())

    async def other(name: str) -> None:
        (await limiter.acquire_async()).settle()
        order.append(name)

    async def main() -> None:
        await asyncio.gather(fails_once(), *(other(str(number)) for number in range(6)))

    run_virtual(main(), manual_clock)
    assert order.index("retry") <= 4  # after two seconds' backoff it goes before those who came later
    assert attempts.number == 2
    assert limiter.snapshot().in_flight == 0


def test_a_deadline_counts_over_all_attempts(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(rpm=60, retry=RetryStrategy(backoff="fixed", base=5, jitter="none"), clock=manual_clock)
    attempts = limiter.attempts(limiter.target, Estimate(), timeout=3)

    assert not attempts.failed(attempts.acquire(), BROKEN)  # the backoff alone would take longer
    patient = limiter.attempts(limiter.target, Estimate(), timeout=8)

    async def main() -> None:
        assert patient.failed(await patient.acquire_async(), BROKEN)
        assert not patient.failed(await patient.acquire_async(), BROKEN)  # five of its eight seconds are gone

    run_virtual(main(), manual_clock)
    assert (attempts.number, patient.number) == (1, 2)


def test_the_users_word_goes_first(manual_clock: ManualClock) -> None:
    classify = lambda error: WAIT if isinstance(error, KeyError) else None  # noqa: E731
    limiter = RateLimiter(rpm=60, retry=RetryStrategy(classify=classify), clock=manual_clock)
    attempts = limiter.attempts(limiter.target, Estimate())
    assert attempts.failed(attempts.acquire(), KeyError("busy"))
    other = limiter.attempts(limiter.target, Estimate())
    manual_clock.advance(10)
    assert not other.failed(other.acquire(), ValueError("a bug"))


def test_storms_of_retries_end_with_the_budget(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(rpm=6_000, retry=RetryStrategy(budget=RetryBudget(0, 3)), clock=manual_clock)
    tries = [limiter.attempts(limiter.target, Estimate()) for _ in range(5)]
    assert [one.failed(one.acquire(), BROKEN) for one in tries] == [True, True, True, False, False]


def _broken(*_: object) -> Any:
    message = "a bug"
    raise RuntimeError(message)


@pytest.mark.parametrize(
    ("options", "tries", "told"),
    [
        ({"classify": _broken}, 3, "classify failed at a ConnectionRefusedError"),
        ({"classify": lambda _: "no kind"}, 3, "classify failed at a ConnectionRefusedError"),
        ({"classify": lambda _: "fatal"}, 1, ""),
        ({"stop": _broken}, 1, "stop or wait failed"),
        ({"wait": _broken}, 1, "stop or wait failed"),
        ({"wait": lambda _: float("inf")}, 1, "stop or wait failed"),
        ({"wait": lambda _: "soon"}, 1, "stop or wait failed"),
        ({"wait": lambda _: -5}, 3, ""),
    ],
)
def test_a_users_part_that_fails_hides_no_error_and_holds_no_slot(
    options: Any, tries: int, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = RateLimiter(concurrency=1, retry=RetryStrategy(**{"base": 0, "max_attempts": 3, **options}))
    tried: list[int] = []

    @limiter.limit()
    def ask() -> None:
        tried.append(1)
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        ask()
    assert len(tried) == tries
    assert limiter.snapshot().in_flight == 0
    assert told in "".join(caplog.messages)
    assert bool(told) == bool(caplog.messages)


async def _later(_: object) -> None: ...


@pytest.mark.parametrize("field", ["classify", "wait", "stop"])
def test_a_coroutine_function_is_no_part_of_a_strategy(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} is .*: give a plain function"):
        RetryStrategy(**{field: _later})  # type: ignore[arg-type]
