"""`@limiter.limit(...)` on the four kinds of function, and one call counted once."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from agent_rate_limiter import Estimate, MultiProviderLimiter, Provider, RateLimiter, Usage
from agent_rate_limiter.testing import ManualClock, run_virtual

USED = Usage(input_tokens=30, output_tokens=20)
RESPONSE = {"usage": {"prompt_tokens": 30, "completion_tokens": 20}}
SIZE = Estimate(input_tokens=60, max_output_tokens=40)


@pytest.fixture
def limiter(manual_clock: ManualClock) -> RateLimiter:
    return RateLimiter(rpm=100, tpm=1_000, concurrency=1, clock=manual_clock, retry={"max_attempts": 1})


def left(limiter: RateLimiter) -> tuple[float, float, float]:
    """Requests, tokens and slots that are free."""
    free = {status.resource: status.available for status in limiter.snapshot().limits if status.name != "gate"}
    return (free["requests"], free["tokens"], free["concurrency"])


# ---------------------------------------------------------------- settlement


def make_kinds(limiter: RateLimiter) -> dict[str, Callable[[object], object]]:
    """Each kind of function, called to its end with what it is to return, yield last, or raise."""
    limit = limiter.limit(estimate=SIZE)

    def outcome(value: object) -> object:
        value = value.pop(0) if isinstance(value, list) else value
        if isinstance(value, BaseException):
            raise value
        return value

    @limit
    def function(value: object) -> object:
        return outcome(value)

    @limit
    async def coroutine(value: object) -> object:
        await asyncio.sleep(0)
        return outcome(value)

    @limit
    def generator(value: object) -> Iterator[object]:
        result = outcome(value)
        yield "first"
        yield result

    @limit
    async def async_generator(value: object) -> AsyncIterator[object]:
        result = outcome(value)
        yield "first"
        await asyncio.sleep(0)
        yield result

    async def last(value: object) -> object:
        return [item async for item in async_generator(value)][-1]

    return {
        "def": function,
        "async def": lambda value: asyncio.run(coroutine(value)),
        "generator": lambda value: list(generator(value))[-1],
        "async generator": lambda value: asyncio.run(last(value)),
    }


KINDS = ["def", "async def", "generator", "async generator"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (USED, (99, 950, 1)),
        (RESPONSE, (99, 950, 1)),
        ({"no": "usage"}, (99, 900, 1)),
        ("text", (99, 900, 1)),
        (None, (99, 900, 1)),
    ],
    ids=["Usage", "response", "other object", "text", "None"],
)
def test_a_result_settles_the_call(
    limiter: RateLimiter, kind: str, result: object, expected: tuple[float, float, float]
) -> None:
    assert make_kinds(limiter)[kind](result) is result
    assert left(limiter) == expected
    assert limiter.snapshot().in_flight == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("error", "expected"),
    [(ValueError("a bug"), (99, 900, 1)), (ConnectionRefusedError("never sent"), (100, 1_000, 1))],
    ids=["unknown", "never sent"],
)
def test_an_error_is_classified_and_passed_on(
    limiter: RateLimiter, kind: str, error: Exception, expected: tuple[float, float, float]
) -> None:
    with pytest.raises(type(error)) as raised:
        make_kinds(limiter)[kind](error)
    assert raised.value is error
    assert left(limiter) == expected


def test_the_kind_the_name_and_the_signature_stay(limiter: RateLimiter) -> None:
    def function(prompt: str, model: str = "") -> str:
        """Say something."""
        return prompt + model

    async def coroutine(prompt: str) -> str:
        return prompt

    def generator(prompt: str) -> Iterator[str]:
        yield prompt

    async def async_generator(prompt: str) -> AsyncIterator[str]:
        yield prompt

    for original in (function, coroutine, generator, async_generator):
        wrapped = limiter.limit()(original)
        for is_kind in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
            assert is_kind(wrapped) == is_kind(original)
        assert (wrapped.__name__, wrapped.__doc__) == (original.__name__, original.__doc__)
        assert inspect.signature(wrapped) == inspect.signature(original)


# ---------------------------------------------------------------- generators


def test_a_generator_is_admitted_when_it_is_first_asked(limiter: RateLimiter) -> None:
    @limiter.limit(estimate=SIZE)
    def stream() -> Iterator[int]:
        yield 1

    items = stream()
    assert limiter.snapshot().in_flight == 0
    next(items)
    assert left(limiter) == (99, 900, 0)
    items.close()  # type: ignore[attr-defined]
    assert left(limiter) == (99, 900, 1)


def test_an_abandoned_generator_charges_the_estimate(limiter: RateLimiter) -> None:
    @limiter.limit(estimate=SIZE)
    def stream() -> Iterator[object]:
        yield from (USED, RESPONSE)

    for _ in stream():
        break
    gc.collect()
    assert left(limiter) == (99, 900, 1)


def test_an_abandoned_async_generator_charges_the_estimate(limiter: RateLimiter, manual_clock: ManualClock) -> None:
    @limiter.limit(estimate=SIZE)
    async def stream() -> AsyncIterator[object]:
        yield USED
        yield RESPONSE

    async def main() -> None:
        async for _ in stream():
            break
        gc.collect()
        await asyncio.sleep(1)
        assert left(limiter)[2] == 1

    run_virtual(main(), manual_clock)


def test_a_cancelled_task_gives_its_slot_back(limiter: RateLimiter, manual_clock: ManualClock) -> None:
    @limiter.limit(estimate=SIZE)
    async def ask() -> None:
        await asyncio.sleep(3_600)

    async def main() -> None:
        task = asyncio.create_task(ask())
        await asyncio.sleep(1)
        assert left(limiter)[2] == 0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run_virtual(main(), manual_clock)
    assert limiter.snapshot().in_flight == 0


def test_closing_a_generator_closes_the_users_before_the_call_is_settled(limiter: RateLimiter) -> None:
    """So that a stream inside, which knows what was really used, can say so."""
    seen: list[int] = []

    @limiter.limit(estimate=SIZE)
    def stream() -> Iterator[int]:
        try:
            yield 1
        finally:
            seen.append(limiter.snapshot().in_flight)

    items = stream()
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert seen == [1]


def test_closing_an_async_generator_closes_the_users(limiter: RateLimiter) -> None:
    seen: list[int] = []

    @limiter.limit(estimate=SIZE)
    async def stream() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            seen.append(limiter.snapshot().in_flight)

    async def main() -> None:
        items = stream()
        await anext(items)
        await items.aclose()  # type: ignore[attr-defined]
        assert seen == [1]  # now, and not when the garbage is collected

    asyncio.run(main())


def test_a_generator_keeps_its_return_value(limiter: RateLimiter) -> None:
    @limiter.limit(estimate=SIZE)
    def stream() -> Any:
        yield 1
        return USED

    def outer() -> Iterator[object]:
        yield (yield from stream())

    assert list(outer()) == [1, USED]
    assert left(limiter) == (99, 950, 1)


def test_a_suspended_generator_lends_its_call_to_nobody(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(concurrency=2, clock=manual_clock)

    @limiter.limit()
    def stream() -> Iterator[bool]:
        while True:
            yield limiter.claim(limiter.target) is not None

    items = stream()
    assert next(items)  # inside, it is this call
    assert limiter.claim(limiter.target) is None
    assert not next(items)  # claimed once


# ---------------------------------------------------------------- parameters


@pytest.fixture
def many(manual_clock: ManualClock) -> MultiProviderLimiter:
    return MultiProviderLimiter([Provider("p", {"m": {"rpm": 100}})], clock=manual_clock)


def test_target_model_and_provider_are_given(many: MultiProviderLimiter) -> None:
    @many.limit(target="p:m")
    def ask(prompt: str, model: str = "?", *, target: str = "?", provider: str = "?") -> tuple[str, ...]:
        return (prompt, model, target, provider)

    @many.limit(target="p:m")
    async def ask_async(model: str, prompt: str = "hi") -> tuple[str, ...]:
        return (prompt, model)

    @many.limit(target="p:m")
    def stream(model: str, /, prompt: str = "hi") -> Iterator[str]:
        yield from (prompt, model)

    assert ask("hi") == ask("hi", "x") == ask(prompt="hi", model="x", target="y") == ("hi", "m", "p:m", "p")
    assert asyncio.run(ask_async("x")) == asyncio.run(ask_async(model="x")) == ("hi", "m")
    assert asyncio.run(ask_async(prompt="hi")) == ("hi", "m")  # type: ignore[call-arg]
    assert list(stream("x")) == list(stream("x", prompt="hi")) == ["hi", "m"]


def test_methods(many: MultiProviderLimiter) -> None:
    class Agent:
        @many.limit(provider="p", model="m")
        def ask(self, prompt: str, model: str = "?") -> tuple[str, str]:
            return (prompt, model)

        @classmethod
        @many.limit(target="p:m")
        def of_class(cls, model: str = "?") -> str:
            return cls.__name__ + model

    assert (Agent().ask("hi"), Agent.of_class()) == (("hi", "m"), "Agentm")


# ---------------------------------------------------------------- retries


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_was_never_sent_is_made_again(kind: str, manual_clock: ManualClock) -> None:
    limiter = RateLimiter(rpm=100, tpm=1_000, concurrency=1, clock=manual_clock, retry={"base": 0, "max_attempts": 3})
    function = make_kinds(limiter)[kind]
    refusals: list[object] = [ConnectionRefusedError() for _ in range(5)]
    assert function([*refusals[:2], USED]) is USED
    assert left(limiter) == (99, 950, 1)
    with pytest.raises(ConnectionRefusedError):
        function(refusals)
    assert len(refusals) == 2  # three were tried
    assert left(limiter) == (99, 950, 1)


def test_a_stream_is_not_made_again_once_something_was_passed_on(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(clock=manual_clock, retry={"base": 0})
    begun: list[int] = []

    @limiter.limit()
    def stream() -> Iterator[int]:
        begun.append(1)
        yield 1
        raise ConnectionRefusedError

    items = stream()
    next(items)
    with pytest.raises(ConnectionRefusedError):
        next(items)
    assert begun == [1]


def test_between_attempts_it_backs_off(manual_clock: ManualClock) -> None:
    backoff = {"backoff": "fixed", "base": 5, "jitter": "none"}
    refusals = [ConnectionRefusedError()] * 3

    def function() -> None:
        if refusals:
            raise refusals.pop()

    async def coroutine() -> None:
        function()

    start = manual_clock.now()
    run_virtual(RateLimiter(clock=manual_clock, retry=backoff).limit(timeout=60)(coroutine)(), manual_clock)
    assert manual_clock.now() - start == 15_000
    refusals += [ConnectionRefusedError()] * 2
    RateLimiter(retry={**backoff, "base": 0.002}).limit()(function)()  # two milliseconds of real time, twice
    assert not refusals
