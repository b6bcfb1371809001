"""A call that failed and raised nothing: it returned a response with an error's status, or an awaitable."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
import requests

from agent_rate_limiter import (
    AllTargetsFailed,
    Estimate,
    Event,
    MultiProviderLimiter,
    Paused,
    Provider,
    RateLimiter,
    Usage,
)
from agent_rate_limiter.providers import FailureKind, read_refusal
from agent_rate_limiter.testing import ManualClock, SimulatedProvider, run_virtual

A, B = "openai:gpt-4", "openai:gpt-4o-mini"
USED = {"usage": {"prompt_tokens": 30, "completion_tokens": 20}}
SLOW_DOWN = {"error": {"message": "Rate limit reached. Please try again in 20s.", "code": "rate_limit_exceeded"}}
SIZE = Estimate(input_tokens=60, max_output_tokens=40)


def limiter_of(clock: ManualClock | None, **options: Any) -> MultiProviderLimiter:
    models: Any = {"gpt-4": {"rpm": 100, "tpm": 1_000}, "gpt-4o-mini": {"rpm": 100}}
    return MultiProviderLimiter([Provider("openai", models)], clock=clock, **options)


def refusal(status: int, told: float | None = 20, **body: Any) -> httpx.Response:
    headers = {} if told is None else {"retry-after": str(told)}
    return httpx.Response(status, headers=headers, json=body or {"error": {"message": "no"}})


def left(limiter: MultiProviderLimiter) -> dict[str, float]:
    return {limit.name: limit.available for limit in limiter.snapshot().limits if limit.owner == A}


# ---------------------------------------------------------------- what says so


@pytest.mark.parametrize(
    ("result", "kind", "wait"),
    [
        (refusal(429), FailureKind.WAIT, 20),
        (httpx2.Response(529, json={"type": "error"}), FailureKind.OVERLOADED, None),
        (refusal(503, None), FailureKind.OVERLOADED, None),
        (refusal(500, None), FailureKind.TRANSIENT, None),
        (refusal(400, None), FailureKind.FATAL, None),
        (refusal(429, error={"code": "insufficient_quota", "message": ""}), FailureKind.NO_CREDIT, 20),
        (SLOW_DOWN, FailureKind.WAIT, 20),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            FailureKind.OVERLOADED,
            None,
        ),
        ({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota"}}, FailureKind.WAIT, None),
    ],
)
def test_a_response_that_failed_is_known(result: object, kind: FailureKind, wait: float | None) -> None:
    failure = read_refusal(result, 0.0)
    assert failure is not None
    assert (failure.kind, failure.retry_after) == (kind, wait)


@pytest.mark.parametrize(
    "result",
    [
        httpx.Response(200, json=SLOW_DOWN),  # whoever sends that means it
        httpx.Response(302),
        {"error": None, "status": "completed"},
        {"error": "no such city"},
        {"error": {"message": "no such city"}},  # a tool's own
        {"error": {"type": "invalid_request_error", "message": "no"}},
        {"status_code": 429},
        429,
        [SLOW_DOWN],
        Usage(),
    ],
)
def test_what_is_no_failure(result: object) -> None:
    assert read_refusal(result, 0.0) is None


def test_a_user_s_own_class_is_no_response() -> None:
    class Reply:
        status_code = 429

    assert read_refusal(Reply(), 0.0) is None


def test_the_target_s_provider_tells_the_dialect_where_the_url_does_not() -> None:
    told = {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low"}}
    request = httpx.Request("POST", "https://gateway.example/v1/messages")
    response = httpx.Response(400, json=told, request=request)
    for likely, kind in (("anthropic", FailureKind.NO_CREDIT), ("generic", FailureKind.FATAL)):
        failure = read_refusal(response, 0.0, likely=likely)
        assert failure is not None
        assert failure.kind is kind


# ---------------------------------------------------------------- the decorator


def kinds(limit: Callable[[Any], Any], results: list[object]) -> dict[str, Callable[[], Any]]:
    @limit
    def function() -> object:
        return results.pop(0)

    @limit
    async def coroutine() -> object:
        await asyncio.sleep(0)
        return results.pop(0)

    @limit
    def awaitable() -> Any:
        async def later() -> object:
            await asyncio.sleep(0)
            return results.pop(0)

        return later()

    return {"function": function, "coroutine": coroutine, "awaitable": awaitable}


KINDS = ["function", "coroutine", "awaitable"]


def call(function: Callable[[], Any], kind: str, clock: ManualClock) -> Any:
    """On virtual time, where it is awaited; else no wait is long."""

    async def main() -> Any:
        return await function()

    return function() if kind == "function" else run_virtual(main(), clock)


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_that_is_returned_closes_the_target_and_is_tried_again(kind: str, manual_clock: ManualClock) -> None:
    real = kind == "function"  # it blocks the thread, which would have to move the clock
    told = 0.02 if real else 20
    limiter = limiter_of(None if real else manual_clock, retry={"base": 0})
    results: list[object] = [refusal(429, told), refusal(503, told), USED]
    function = kinds(limiter.limit(target=A, estimate=SIZE), results)[kind]
    begun = manual_clock.now()
    paused: list[Event] = []
    limiter.events.subscribe(paused.append, Paused)
    assert call(function, kind, manual_clock) is USED
    assert real or manual_clock.now() - begun == 40_000
    assert len(paused) == 2
    assert left(limiter)["1,000 tokens/minute"] >= 950


@pytest.mark.parametrize("kind", KINDS)
def test_when_it_may_not_be_tried_again_the_response_is_returned(kind: str, manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, retry={"max_attempts": 1})
    for response in (refusal(400, None), refusal(429)):
        function = kinds(limiter.limit(target=A, estimate=SIZE), [response])[kind]
        assert call(function, kind, manual_clock) is response
    assert left(limiter)["1,000 tokens/minute"] == 1_000  # nothing was produced
    decision = limiter.try_acquire(A)
    assert not decision  # the gate is closed
    assert decision.retry_after == 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_that_is_returned_falls_back(kind: str, manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock)
    function: Any = kinds(limiter.limit(target=A), [refusal(429)])[kind]
    elsewhere: list[object] = [USED]
    function.fallback(B)({**kinds(lambda made: made, elsewhere)}[kind])
    assert call(function, kind, manual_clock) is USED
    assert not elsewhere


def test_refused_everywhere(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, retry={"max_attempts": 1})

    @limiter.limit(target=A)
    def ask() -> object:
        return refusal(429)

    @ask.fallback(B)
    def _() -> object:
        return refusal(529, None)

    with pytest.raises(AllTargetsFailed) as failed:
        ask()
    assert list(failed.value.causes) == [A, B]
    assert "HTTP 429: no" in str(failed.value)


def test_a_refusal_inside_a_block_closes_the_target(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock)
    with limiter.reserve(A, SIZE) as call:
        call.settle(refusal(429))
    assert (call.usage, call.cost) == (Usage(), 0)
    assert left(limiter)["1,000 tokens/minute"] == 1_000  # nothing was produced
    assert limiter.explain(A).decision.retry_after == 20


# ---------------------------------------------------------------- awaitables of plain functions


def test_an_awaitable_of_a_plain_function_is_retried_and_falls_back(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock, retry={"base": 0, "max_attempts": 2})
    tried: list[str] = []

    async def fails(where: str) -> str:
        tried.append(where)
        await asyncio.sleep(0)
        raise ConnectionRefusedError

    @limiter.limit(target=A)
    def ask() -> Any:
        return fails(A)

    @ask.fallback(B)
    def _() -> Any:
        tried.append(B)
        return USED  # need not be one

    async def main() -> object:
        return await ask()

    assert run_virtual(main(), manual_clock) is USED
    assert tried == [A, B]
    assert limiter.snapshot().in_flight == 0


def test_a_cancelled_awaitable_of_a_plain_function_gives_its_slot_back(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(concurrency=1, clock=manual_clock)

    @limiter.limit()
    def ask() -> Any:
        return asyncio.sleep(3_600)

    async def main() -> None:
        task = asyncio.ensure_future(ask())
        await asyncio.sleep(1)
        assert limiter.snapshot().in_flight == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run_virtual(main(), manual_clock)
    assert limiter.snapshot().in_flight == 0


# ---------------------------------------------------------------- a stream that is dropped, at any moment


def test_a_stream_may_be_collected_while_the_limiter_is_at_work(manual_clock: ManualClock) -> None:
    """The garbage collector closes it wherever it likes: also where the engine's lock is held already."""
    limiter = RateLimiter(concurrency=2, clock=manual_clock)

    @limiter.limit()
    def items() -> Iterator[int]:
        yield 1
        yield 2

    started = [items()]
    next(started[0])
    engine = limiter._calls.engine

    def look(_: int) -> int:
        started.clear()  # the last reference
        gc.collect()
        return engine.in_flight

    engine.read(look)
    assert limiter.snapshot().in_flight == 0


# ---------------------------------------------------------------- real libraries, a real provider


def test_every_http_library_s_response_is_understood() -> None:
    body = {"model": "gpt-4", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 5}
    with SimulatedProvider({"gpt-4": {"rpm": 1}}) as provider:
        url = f"{provider.openai_url}/chat/completions"

        async def by_aiohttp() -> Any:
            async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
                return response  # its body unread

        def by(library: Any) -> Callable[[], Any]:
            return lambda: library.post(url, json=body)

        assert by(httpx)().status_code == 200
        for ask in (by(httpx), by(httpx2), by(requests), lambda: asyncio.run(by_aiohttp())):
            limiter = limiter_of(ManualClock(), retry={"max_attempts": 1})
            limiter.limit(target=A)(ask)()
            waits = limiter.explain(A).decision.retry_after
            assert waits is not None
            assert 50 < waits <= 60
