"""One logical call, made by an adapter: admitted, sent, tried again, settled, whichever way it is called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from agent_rate_limiter import (
    AcquireTimeout,
    Attempts,
    Estimate,
    LimitExceeded,
    RateLimiter,
    Reservation,
    RetryStrategy,
    Usage,
)
from agent_rate_limiter.sending import send, send_async, stream, stream_async
from agent_rate_limiter.testing import ManualClock

Attempt = Callable[[], Any]
ESTIMATE = Estimate(input_tokens=100)


class Count:
    """A meter for streams of numbers, each so many tokens."""

    final = False

    def __init__(self) -> None:
        self.tokens = 0

    def feed(self, item: int) -> None:
        self.tokens += item

    def usage(self, *, whole: bool) -> Usage | None:
        return Usage(output_tokens=self.tokens, exact=whole) if self.tokens else None


def usage_of(result: int) -> Usage:
    return Usage(input_tokens=result)


class Provider:
    """Makes a call in each of the four ways: fails as often as told, then brings 20 tokens in two pieces.

    Args:
        failures: what the first attempts raise.
        after: pieces of a stream that come before it fails.
    """

    def __init__(self, *failures: BaseException, after: int = 0) -> None:
        self.failures = list(failures)
        self.after = after
        self.limiter = RateLimiter(
            tpm=1_000, clock=ManualClock(), retry=RetryStrategy(max_attempts=3, base=0), concurrency=1
        )

    def attempts(self) -> Attempts:
        return self.limiter.attempts(self.limiter.target, ESTIMATE)

    def make(self, call: Reservation) -> int:
        if self.failures:
            raise self.failures.pop(0)
        return 20

    async def make_async(self, call: Reservation) -> int:
        return self.make(call)

    def items(self, call: Reservation) -> Iterator[int]:
        for number in range(2):
            if number == self.after:
                self.make(call)
            yield 10

    async def items_async(self, call: Reservation) -> AsyncIterator[int]:
        for item in self.items(call):
            yield item

    def run(self, way: str) -> int:
        if way == "send":
            return send(self.attempts(), self.make, usage_of)
        if way == "stream":
            return sum(stream(self.attempts(), self.items, Count))
        return asyncio.run(self._async(way))

    async def _async(self, way: str) -> int:
        if way == "send_async":
            return await send_async(self.attempts(), self.make_async, usage_of)
        return sum([item async for item in stream_async(self.attempts(), self.items_async, Count)])

    @property
    def charged(self) -> float:
        """Tokens of the minute that are taken; nothing may be in flight."""
        snapshot = self.limiter.snapshot()
        assert snapshot.in_flight == 0
        return next(limit.amount - limit.available for limit in snapshot.limits if limit.resource == "tokens")

    @property
    def requests(self) -> int:
        return sum(int(str(row["requests"])) for row in self.limiter.costs.report().to_dicts())


every_way = pytest.mark.parametrize("way", ["send", "send_async", "stream", "stream_async"])
streams = pytest.mark.parametrize("way", ["stream", "stream_async"])


@every_way
def test_a_call_is_settled_with_what_it_used(way: str) -> None:
    provider = Provider()
    assert provider.run(way) == 20
    assert provider.charged == 20
    assert provider.requests == 1


@every_way
def test_it_is_tried_again(way: str) -> None:
    provider = Provider(ConnectionRefusedError(), ConnectionRefusedError())
    assert provider.run(way) == 20
    assert provider.requests == 1  # the two never reached anybody


@every_way
def test_what_fails_for_good_is_raised_and_charged(way: str) -> None:
    provider = Provider(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        provider.run(way)
    assert (provider.charged, provider.requests) == (100, 1)


@streams
def test_a_stream_that_breaks_off_is_not_sent_again(way: str) -> None:
    provider = Provider(ConnectionResetError(), after=1)
    with pytest.raises(ConnectionResetError):
        provider.run(way)
    assert (provider.charged, provider.requests) == (110, 1)  # what went in, and what was seen


def test_a_stream_that_is_left_is_charged_what_was_seen_and_the_estimate_at_least() -> None:
    for many, charged in ((1, 110), (13, 230)):
        provider = Provider()
        items = stream(provider.attempts(), lambda _: iter([10] * 20), Count)
        for _ in range(many):
            next(items)
        del items
        assert provider.charged == charged


def test_a_stream_is_settled_as_soon_as_all_is_known() -> None:
    class Told(Count):
        @property
        def final(self) -> bool:  # type: ignore[override]
            return self.tokens >= 20

    provider = Provider()
    items = stream(provider.attempts(), lambda _: iter([10] * 5), Told)
    next(items)
    assert provider.limiter.snapshot().in_flight == 1
    next(items)
    assert provider.charged == 20
    assert len(list(items)) == 3
    assert (provider.charged, provider.requests) == (20, 1)


def test_an_async_stream_that_is_closed_is_charged_too() -> None:
    provider = Provider()

    async def main() -> None:
        items: Any = stream_async(provider.attempts(), provider.items_async, Count)
        await anext(items)
        await items.aclose()
        items = stream_async(provider.attempts(), lambda _: _Endless(), Count)
        await anext(items)
        await items.aclose()  # an iterator that has no aclose of its own

    asyncio.run(main())
    assert (provider.charged, provider.requests) == (220, 2)


class _Endless:
    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        return 10


def test_layers_inside_find_the_call_while_it_is_made_and_not_while_it_is_suspended() -> None:
    limiter = RateLimiter(rpm=10, clock=ManualClock())
    attempts = limiter.attempts(limiter.target, ESTIMATE)

    def items(call: Reservation) -> Iterator[int]:
        yield 1
        inner = limiter.claim(limiter.target)
        assert inner is not None
        yield 2
        inner.settle(Usage(input_tokens=7))

    numbers = stream(attempts, items, Count)
    assert next(numbers) == 1
    assert limiter.claim(limiter.target) is None
    assert list(numbers) == [2]
    (row,) = limiter.costs.report().to_dicts()
    assert (row["requests"], row["input_tokens"]) == (1, 7)


@every_way
def test_it_takes_over_the_call_of_an_outer_layer(way: str) -> None:
    provider = Provider()
    with provider.limiter.reserve(ESTIMATE) as outer:
        assert provider.run(way) == 20
    assert outer.claimed
    assert provider.requests == 1


@every_way
def test_what_is_refused_is_never_sent(way: str) -> None:
    provider = Provider(AssertionError("it was sent"))
    held = provider.limiter.acquire()
    provider.attempts = lambda: provider.limiter.attempts(provider.limiter.target, ESTIMATE, timeout=0)  # type: ignore[method-assign]
    with pytest.raises(AcquireTimeout):
        provider.run(way)
    held.cancel()
    assert (provider.charged, provider.requests) == (0, 0)


# ---------------------------------------------------------------- calls that are made anyway


def test_a_tracked_call_is_never_refused_and_is_charged_when_it_ends(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(tpm=100, concurrency=1, clock=manual_clock)
    with limiter.reserve(input_tokens=100):
        call = limiter.track(limiter.target, Estimate(input_tokens=500))
        assert limiter.snapshot().in_flight == 2
        call.settle(Usage(input_tokens=60))
    assert {limit.resource: limit.available for limit in limiter.snapshot().limits}["tokens"] == -60
    with pytest.raises(LimitExceeded):
        limiter.acquire(input_tokens=1, timeout=0)


def test_a_tracked_call_steps_back_for_a_layer_that_makes_it(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(tpm=100, clock=manual_clock)
    call = limiter.track(limiter.target, ESTIMATE)
    with call.offered():
        assert limiter.claim(limiter.target) is None  # so it makes its own, under the limits
        assert call.done
        assert limiter.claim(limiter.target) is None
    assert limiter.costs.report().to_dicts() == []
