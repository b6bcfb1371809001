"""Many providers and models in one limiter, as users write them, from one thread, many threads and event loops."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from agent_rate_limiter import (
    EACH,
    AcquireTimeout,
    ConfigError,
    Estimate,
    Limit,
    Model,
    MultiProviderLimiter,
    Priority,
    Provider,
    RateLimiter,
    RequestTooLarge,
    Reservation,
    Resource,
    Scope,
    Target,
    Usage,
)
from agent_rate_limiter.testing import ManualClock, run_virtual


def make_limiter(clock: ManualClock, **options: Any) -> MultiProviderLimiter:
    return MultiProviderLimiter(
        [
            Provider(
                "openai",
                {"gpt-4": {"rpm": 3, "cost_per_1k": 0.03}, "o5": {"concurrency": 1}},
                limits=["5 requests/hour"],
            ),
            Provider("local", {"llama": {"tpm": 10_000}, "*": {"rpm": 1}}),
        ],
        clock=clock,
        **options,
    )


@pytest.fixture
def limiter(manual_clock: ManualClock) -> MultiProviderLimiter:
    return make_limiter(manual_clock)


def admitted(limiter: MultiProviderLimiter, target: str | Target) -> int:
    """How many calls to a target pass at once."""
    count = 0
    while (call := limiter.try_acquire(target)) and isinstance(call, Reservation):
        call.settle()
        count += 1
    return count


# ---------------------------------------------------------------- what users write


def test_what_users_write(manual_clock: ManualClock) -> None:
    """The design's first code block, on virtual time and without a network."""
    limiter = MultiProviderLimiter(
        providers=[
            Provider(name="openai", models={"gpt-4": {"rpm": 500, "tpm": 10000, "cost_per_1k": 0.03}}),
            Provider(name="anthropic", models={"claude-opus-4": {"rpm": 50, "tpm": 40000, "cost_per_1k": 0.015}}),
        ],
        budget_limit=100.00,
        alert_threshold=0.8,
        clock=manual_clock,
    )

    @limiter.limit(provider="openai", model="gpt-4", priority=1)
    def generate_response(prompt: str) -> dict[str, object]:
        return {"usage": {"prompt_tokens": len(prompt), "completion_tokens": 500}}

    generate_response("x" * 500)

    with limiter.reserve("openai:gpt-4", input_tokens=800, max_output_tokens=400, priority=1, timeout=30) as call:
        assert call.model == "gpt-4"
        call.settle({"usage": {"prompt_tokens": 800, "completion_tokens": 200}})

    async def asynchronous() -> None:
        async with limiter.reserve("anthropic:claude-opus-4", input_tokens=100) as call:
            call.settle(Usage(input_tokens=100, output_tokens=900))
        (await limiter.acquire_async("openai:gpt-4", Estimate(), priority=Priority.HIGH, timeout=1)).cancel()

    asyncio.run(asynchronous())
    limiter.acquire("openai:gpt-4", Estimate(), priority=0, timeout=5).settle(Usage())
    reservation = limiter.try_acquire("openai:gpt-4")
    assert isinstance(reservation, Reservation)
    reservation.cancel()

    with limiter.scope(agent="researcher", run="42", budget=2.00, priority=0):
        limiter.acquire("openai:gpt-4").settle(Usage(input_tokens=1_000))

    assert limiter.snapshot().in_flight == 0
    assert str(limiter.explain("openai:gpt-4")).startswith("openai:gpt-4 admits such a call at once.")
    rows = limiter.costs.report(by=("agent", "model")).to_dicts()
    assert [list(row.values()) for row in rows] == [
        ["", "gpt-4", 3, 1_300, 700, 0, pytest.approx(0.06)],
        ["researcher", "gpt-4", 1, 1_000, 0, 0, pytest.approx(0.03)],
        ["", "claude-opus-4", 1, 100, 900, 0, pytest.approx(0.015)],
    ]


def test_configuration_makes_the_same_limiter(manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter.from_config(
        {
            "providers": {"openai": {"models": {"gpt-4": {"rpm": 3}}}},
            "budget_limit": 5,
            "budgets": [{"limit": 1, "per": "week", "scope": {"agent": "each"}}],
        },
        clock=manual_clock,
        budget_limit=7,
    )
    assert admitted(limiter, "openai:gpt-4") == 3
    assert [str(budget.as_limit()) for budget in limiter.budgets] == [
        "budget $7.00/day",
        "budget $1.00/week (agent=each)",
    ]


# ---------------------------------------------------------------- targets and their limits


@pytest.mark.parametrize("target", ["openai:gpt-4", Target("openai", "gpt-4")])
def test_a_target_is_text_or_an_object(limiter: MultiProviderLimiter, target: str | Target) -> None:
    assert limiter.acquire(target).target == Target("openai", "gpt-4")
    assert limiter.target_for("openai", "gpt-4") == Target("openai", "gpt-4")
    with pytest.raises(ConfigError, match="did you mean 'openai:gpt-4'"):
        limiter.target_for("openai", "gpt-4x")


def test_each_model_has_its_own_limits(limiter: MultiProviderLimiter) -> None:
    assert admitted(limiter, "openai:gpt-4") == 3
    assert admitted(limiter, "local:other") == 1
    assert limiter.try_acquire("local:llama", input_tokens=10_000)
    assert not limiter.try_acquire("local:llama", input_tokens=1)


def test_models_share_what_their_provider_limits(limiter: MultiProviderLimiter, manual_clock: ManualClock) -> None:
    assert admitted(limiter, "openai:gpt-4") == 3
    assert admitted(limiter, "openai:o5") == 2
    manual_clock.advance(60)
    refusal = limiter.try_acquire("openai:gpt-4")
    assert "'5 requests/hour'" in str(getattr(refusal, "reason", "admitted"))
    manual_clock.advance(11 * 60)
    assert admitted(limiter, "openai:gpt-4") == 1


def test_a_star_stands_for_every_other_model_each_with_limits_of_its_own(limiter: MultiProviderLimiter) -> None:
    assert admitted(limiter, "local:a") == 1
    assert admitted(limiter, "local:b") == 1
    assert admitted(limiter, "local:a") == 0
    assert limiter.target_for("local", "a:b") == Target("local", "a:b")


def test_limits_of_a_provider_for_each_model_or_for_one(manual_clock: ManualClock) -> None:
    per_model = Limit(Resource.REQUESTS, 2, "day", scope=Scope(model=EACH))
    one_model = Limit(Resource.REQUESTS, 1, "day", scope=Scope(model="b"))
    provider = Provider("p", {"a": None, "b": None, "c": None}, limits=[per_model, one_model])
    limiter = MultiProviderLimiter([provider], clock=manual_clock)
    assert [admitted(limiter, f"p:{model}") for model in "abc"] == [2, 1, 2]


def test_limits_for_a_provider_named_in_a_scope(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(
        Limit(Resource.REQUESTS, 1, "day", scope=Scope(provider="x")), target="a:m", clock=manual_clock
    )
    assert all(limiter.try_acquire() for _ in range(3))


def test_models_may_be_objects(manual_clock: ManualClock) -> None:
    model = Model("m", limits=(Limit(Resource.REQUESTS, 2, "day"),))
    assert admitted(MultiProviderLimiter([Provider("p", {"m": model})], clock=manual_clock), "p:m") == 2


def test_without_providers_every_target_is_allowed() -> None:
    limiter = MultiProviderLimiter()
    assert limiter.acquire("any:thing").target == Target("any", "thing")
    with pytest.raises(ConfigError):
        limiter.acquire("anything")


def test_one_path_takes_all_or_nothing(manual_clock: ManualClock) -> None:
    limiter = make_limiter(manual_clock, budget_limit=0.01)
    for _ in range(10):
        assert not limiter.try_acquire("openai:gpt-4", input_tokens=1_000)  # three cents
    assert all(status.used_share == 0 for status in limiter.snapshot().limits)
    assert admitted(limiter, "openai:gpt-4") == 3


def test_a_model_with_a_slash_keeps_its_name(manual_clock: ManualClock) -> None:
    """As at OpenRouter, Together, Hugging Face."""
    limiter = MultiProviderLimiter([Provider("openrouter", {"meta-llama/llama-3": {"rpm": 3}})], clock=manual_clock)
    limiter.acquire("openrouter:meta-llama/llama-3").settle()
    assert [status.owner for status in limiter.snapshot().limits] == ["openrouter:meta-llama/llama-3"]


@pytest.mark.parametrize(
    "limits",
    [
        ["2 concurrent", "2 concurrent"],
        [Limit(Resource.CONCURRENCY, 2), Limit(Resource.CONCURRENCY, 2, counts="max_tokens")],
    ],
    ids=["equal", "of one name"],
)
def test_a_limit_that_is_written_twice_counts_once(limits: list[Any], manual_clock: ManualClock) -> None:
    """Or is refused, as `Provider` refuses two that no message could tell apart."""
    try:
        limiter = RateLimiter(limits, clock=manual_clock)
    except ConfigError:
        return
    for call in [limiter.acquire(), limiter.acquire()]:
        call.settle()
    calls = [limiter.try_acquire() for _ in range(3)]
    assert [bool(call) for call in calls] == [True, True, False]


# ---------------------------------------------------------------- waiting


def in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Start a call that will wait; what comes of it lands in the list."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as error:  # noqa: BLE001 - looked at by the test
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def until_waiting(limiter: MultiProviderLimiter | RateLimiter, count: int) -> None:
    for _ in range(2_000):
        if limiter.snapshot().waiting == count:
            return
        time.sleep(0.001)
    pytest.fail(f"never were {count} waiting")


def test_a_thread_waits_and_is_told_how_long(limiter: MultiProviderLimiter, manual_clock: ManualClock) -> None:
    admitted(limiter, "openai:gpt-4")
    thread, outcome = in_thread(lambda: limiter.acquire("openai:gpt-4", timeout=30))
    until_waiting(limiter, 1)
    manual_clock.advance(19.999)
    assert not outcome
    manual_clock.advance(0.001)
    thread.join(5)
    assert outcome[0].waited == 20


def test_a_task_waits_and_is_told_how_long(limiter: MultiProviderLimiter, manual_clock: ManualClock) -> None:
    async def main() -> list[float]:
        calls = [await limiter.acquire_async("openai:gpt-4") for _ in range(5)]
        return [call.waited for call in calls]

    assert run_virtual(main(), manual_clock) == [0, 0, 0, 20, 20]


def test_threads_and_tasks_stand_in_one_queue(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(rps=1, clock=manual_clock)
    limiter.acquire().settle()
    order: list[str] = []

    def call(name: str, priority: int) -> None:
        limiter.acquire(priority=priority).settle()
        order.append(name)

    async def main() -> None:
        async def task() -> None:
            (await limiter.acquire_async()).settle()
            order.append("task")

        late, _ = in_thread(lambda: call("low", Priority.LOW))
        until_waiting(limiter, 1)
        waiting = asyncio.create_task(task())
        await asyncio.sleep(0)
        early, _ = in_thread(lambda: call("critical", Priority.CRITICAL))
        until_waiting(limiter, 3)
        for thread in (early, None, late):
            manual_clock.advance(1)
            if thread is None:
                await waiting
            else:
                thread.join(5)

    asyncio.run(main())
    assert order == ["critical", "task", "low"]


def test_a_wait_that_cannot_end_in_time_is_refused_at_once(limiter: MultiProviderLimiter) -> None:
    admitted(limiter, "openai:gpt-4")
    with pytest.raises(AcquireTimeout, match="It frees in 20 s") as refused:
        limiter.acquire("openai:gpt-4", timeout=19.9)
    assert isinstance(refused.value, TimeoutError)
    assert refused.value.retry_after == 20
    with pytest.raises(RequestTooLarge):
        limiter.acquire("local:llama", input_tokens=10_001, timeout=3_600)


def test_a_wait_of_unknown_length_ends_at_its_deadline(
    limiter: MultiProviderLimiter, manual_clock: ManualClock
) -> None:
    async def main() -> float:
        async with limiter.reserve("openai:o5"):
            with pytest.raises(AcquireTimeout, match="It frees when a call in flight ends: wait longer"):
                await asyncio.create_task(wait())
        return manual_clock.now() - start

    async def wait() -> None:
        from contextvars import Context  # a stranger, not a call within the other

        await asyncio.get_running_loop().create_task(limiter.acquire_async("openai:o5", timeout=7), context=Context())

    start = manual_clock.now()
    assert run_virtual(main(), manual_clock) == 7_000


def test_a_timeout_of_0_never_waits(limiter: MultiProviderLimiter) -> None:
    holder = limiter.acquire("openai:o5", timeout=0)
    thread, outcome = in_thread(lambda: limiter.acquire("openai:o5", timeout=0))
    thread.join(1)  # time stands still here: a wait would never end
    assert [type(error) for error in outcome] == [AcquireTimeout]
    holder.settle()


def test_a_cancelled_wait_leaves_no_trace(limiter: MultiProviderLimiter, manual_clock: ManualClock) -> None:
    async def main() -> None:
        admitted(limiter, "openai:gpt-4")
        before = limiter.snapshot()
        task = asyncio.create_task(limiter.acquire_async("openai:gpt-4"))
        await asyncio.sleep(0)
        assert limiter.snapshot().waiting == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert limiter.snapshot() == before

    run_virtual(main(), manual_clock)
