"""`@fn.fallback(target)` for functions of all four kinds."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from agent_rate_limiter import (
    AcquireTimeout,
    AllTargetsFailed,
    ConfigError,
    MultiProviderLimiter,
    Provider,
    RequestTooLarge,
    RetryStrategy,
)
from agent_rate_limiter.providers import FailureKind
from agent_rate_limiter.testing import ManualClock


class Down(Exception):
    """What a provider's client raises."""


class Bug(Exception):
    """What the user's own code raises."""


@pytest.fixture
def limiter(manual_clock: ManualClock) -> MultiProviderLimiter:
    retry = RetryStrategy(1, classify=lambda error: FailureKind.OVERLOADED if isinstance(error, Down) else None)
    providers = [Provider(name, {"m": {"rpm": 5, "tpm": 1_000}}) for name in "abc"]
    return MultiProviderLimiter(providers, clock=manual_clock, retry=retry)


def outcome(decorated: Callable[..., Any], *args: Any) -> Any:
    """Call a function of any kind to its end."""
    result = decorated(*args)
    if hasattr(result, "__anext__"):

        async def read() -> list[Any]:
            return [item async for item in result]

        return asyncio.run(read())
    if inspect.iscoroutine(result):
        return asyncio.run(result)
    return list(result) if hasattr(result, "__next__") else result


def functions(answer: Callable[[str], Any]) -> list[Callable[..., Any]]:
    """The same call as a function, a coroutine, a generator and an async generator."""

    def plain(prompt: str, target: str = "") -> Any:
        return answer(target)

    async def coroutine(prompt: str, target: str = "") -> Any:
        return answer(target)

    def generator(prompt: str, target: str = "") -> Iterator[Any]:
        yield answer(target)

    async def async_generator(prompt: str, target: str = "") -> AsyncIterator[Any]:
        yield answer(target)

    return [plain, coroutine, generator, async_generator]


KINDS = pytest.mark.parametrize("kind", range(4), ids=["function", "coroutine", "generator", "async generator"])


def failing(*down: str) -> Callable[[str], str]:
    def answer(target: str) -> str:
        if target in down:
            raise Down(target)
        return target

    return answer


def of(result: Any) -> Any:
    return result[0] if isinstance(result, list) else result


@KINDS
@pytest.mark.parametrize(
    ("down", "served"), [((), "a:m"), (("a:m",), "b:m"), (("a:m", "b:m"), "c:m")], ids=["none", "one", "two"]
)
def test_the_first_that_can_serves(
    limiter: MultiProviderLimiter, kind: int, down: tuple[str, ...], served: str
) -> None:
    function = functions(failing(*down))[kind]
    decorated = limiter.limit(target="a:m")(function)
    for target in ("b:m", "c:m"):
        decorated.fallback(target)(function)
    assert of(outcome(decorated, "hello")) == served
    assert limiter.snapshot().in_flight == 0


@KINDS
def test_a_limit_that_refuses_falls_back(limiter: MultiProviderLimiter, kind: int) -> None:
    function = functions(failing())[kind]
    decorated = limiter.limit(target="a:m", input_tokens=1_001)(function)
    with pytest.raises(RequestTooLarge):
        outcome(decorated, "hello")
    patient = limiter.limit(target="a:m", timeout=0)(function)
    patient.fallback("b:m")(function)
    for _ in range(5):
        assert of(outcome(patient, "hello")) == "a:m"
    assert of(outcome(patient, "hello")) == "b:m"


@KINDS
def test_when_all_fail_each_cause_is_told(limiter: MultiProviderLimiter, kind: int) -> None:
    function = functions(failing("a:m", "b:m"))[kind]
    decorated = limiter.limit(target="a:m", timeout=0)(function)
    decorated.fallback("b:m")(function)
    with pytest.raises(AllTargetsFailed, match=r"No target could serve the call\. a:m: a:m; b:m: b:m") as failed:
        outcome(decorated, "hello")
    assert [type(cause) for cause in failed.value.causes.values()] == [Down, Down]
    for _ in range(2):  # three overloads in a row open both circuits
        with pytest.raises(AllTargetsFailed):
            outcome(decorated, "hello")
    with pytest.raises(AllTargetsFailed) as failed:
        outcome(decorated, "hello")
    assert [type(cause) for cause in failed.value.causes.values()] == [AcquireTimeout, AcquireTimeout]


@KINDS
def test_a_bug_is_a_bug_everywhere(limiter: MultiProviderLimiter, kind: int) -> None:
    tried: list[str] = []

    def answer(target: str) -> None:
        tried.append(target)
        raise Bug

    function = functions(answer)[kind]
    decorated = limiter.limit(target="a:m")(function)
    decorated.fallback("b:m")(function)
    with pytest.raises(Bug):
        outcome(decorated, "hello")
    assert tried == ["a:m"]


@KINDS
def test_without_a_fallback_the_error_is_the_call_s_own(limiter: MultiProviderLimiter, kind: int) -> None:
    with pytest.raises(Down):
        outcome(limiter.limit(target="a:m")(functions(failing("a:m"))[kind]), "hello")


def test_a_stream_falls_back_only_before_its_first_chunk(limiter: MultiProviderLimiter) -> None:
    def half(prompt: str) -> Iterator[str]:
        yield "half"
        raise Down

    async def half_async(prompt: str) -> AsyncIterator[str]:
        yield "half"
        raise Down

    for function in (half, half_async):
        decorated = limiter.limit(target="a:m")(function)
        decorated.fallback("b:m")(functions(failing())[2 if function is half else 3])
        with pytest.raises(Down):
            outcome(decorated, "hello")


def test_a_generator_keeps_its_return_value(limiter: MultiProviderLimiter) -> None:
    def stream() -> Any:
        yield 1
        return 2

    items = limiter.limit(target="a:m")(stream)()
    assert next(items) == 1
    with pytest.raises(StopIteration) as end:
        next(items)
    assert end.value.value == 2


def test_methods_bind(limiter: MultiProviderLimiter) -> None:
    class Agent:
        name = "x"

        @limiter.limit(target="a:m")
        def ask(self, prompt: str) -> str:
            raise Down

        @ask.fallback("b:m")
        def _elsewhere(self, prompt: str) -> str:
            return self.name + prompt

    assert Agent().ask("y") == "xy"


def test_a_fallback_that_is_not_configured_is_refused_at_once(limiter: MultiProviderLimiter) -> None:
    decorated = limiter.limit(target="a:m")(functions(failing())[0])
    with pytest.raises(ConfigError, match="target is 'd:m'"):
        decorated.fallback("d:m")(functions(failing())[0])


# ---------------------------------------------------------------- what cannot be decorated, or misbehaves


def test_a_builtin_tells_no_parameters_and_works(manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter([Provider("p", {"m": {"rpm": 100}})], clock=manual_clock)
    assert limiter.limit(target="p:m")(int)("5") == 5


@pytest.mark.parametrize(
    ("decorate", "message"),
    [
        (lambda limiter: limiter.limit(target="p:m")(5), "5 is decorated: decorate a function"),
        (lambda limiter: limiter.limit(target="p:m")(len).fallback("p:m")(len), "The fallback of p:m is p:m itself"),
        (lambda limiter: limiter.limit(target="p:m")(len).fallback("p:n")(5), "5 is decorated: decorate a function"),
        (lambda limiter: limiter.limit(target="p:m", input_token=5), "input_token: no such count; did you mean 'inp"),
        (lambda limiter: limiter.acquire("p:m", words=5), "words: no such count; it is one of requests, input_tokens"),
    ],
)
def test_what_makes_no_sense_is_refused(
    manual_clock: ManualClock, decorate: Callable[[Any], object], message: str
) -> None:
    limiter = MultiProviderLimiter([Provider("p", {"m": {"rpm": 100}, "n": {}})], clock=manual_clock)
    with pytest.raises(ConfigError) as refused:
        decorate(limiter)
    assert message in str(refused.value)
