"""What a store remembers of a model is recalled before its first call, and no event loop waits for that."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from agent_rate_limiter import Estimate, MultiProviderLimiter, Provider, StoreUnavailable, Target, Usage
from agent_rate_limiter.engine.port import SharedStore
from agent_rate_limiter.learning.sizes import Learned
from agent_rate_limiter.stores import open_store
from tests.contract import servers

MANY = 10**9
GPT = Target("openai", "gpt-4")
MINI = Target("openai", "gpt-4-mini")
ASKED = Estimate(input_tokens=10, max_output_tokens=1_000)


class Slow:
    """A store whose texts take long."""

    def __init__(self, store: SharedStore) -> None:
        self.store = store
        self.go = threading.Event()
        self.askers: list[threading.Thread] = []

    def recall(self, key: str) -> str | None:
        self.askers.append(threading.current_thread())
        assert self.go.wait(10)
        return self.store.recall(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def limiter_of(store: object) -> MultiProviderLimiter:
    model = {"itpm": MANY, "otpm": MANY}
    models = {"gpt-4": model, "gpt-4-mini": model}
    return MultiProviderLimiter([Provider("openai", models)], store=cast("Any", store), ledger="memory://")


@pytest.fixture
def slow(tmp_path: Path) -> Slow:
    """A store in which it is known that answers of both models have 100 tokens."""
    uri = f"sqlite:///{tmp_path / 'limits.db'}"
    with limiter_of(uri) as before:
        for target in (GPT, MINI):
            for _ in range(20):
                before.acquire(target, ASKED).settle(Usage(1, 10, 100))
    store = cast("SharedStore", open_store(uri))
    servers.until(lambda: all(store.recall(f"learned|{target}") for target in (GPT, MINI)))  # written in a moment
    return Slow(store)


def usual(limiter: MultiProviderLimiter) -> int:
    """The output that a call is taken to have."""
    return limiter._calls.route(GPT).expects(ASKED)[1]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what it looks at has no event
        await asyncio.sleep(0.001)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 10))


def test_the_first_calls_of_a_loop_wait_for_it_and_the_loop_does_not(slow: Slow) -> None:
    limiter = limiter_of(slow)

    async def main() -> None:
        calls = [asyncio.ensure_future(limiter.acquire_async(GPT, ASKED)) for _ in range(20)]
        await until(lambda: bool(slow.askers))
        assert not any(call.done() for call in calls)
        slow.go.set()
        for call in await asyncio.gather(*calls):
            call.cancel()

    run(main())
    assert 100 <= usual(limiter) <= 112
    assert [asker.name for asker in slow.askers] == ["agent-rate-limiter"]  # once


def test_whoever_cannot_await_it_begins_without(slow: Slow) -> None:
    limiter = limiter_of(slow)

    async def main() -> None:
        with limiter.scope(agent="researcher"):
            call = limiter.track(GPT, ASKED)
            assert usual(limiter) == 1_000
            slow.go.set()
            await until(lambda: usual(limiter) < 1_000)
            call.settle(Usage(1, 10, 100))
        assert 100 <= usual(limiter) <= 112

    run(main())
    assert threading.main_thread() not in slow.askers
    assert {estimate.calls for estimate in limiter.snapshot().estimates} == {1, 21}


@pytest.mark.parametrize(("made", "expected"), [(1, 100), (7, 100), (30, 500)])
def test_calls_that_were_made_before_it_was_heard_count_if_they_are_more(made: int, expected: int) -> None:
    texts: dict[str, str] = {}
    before = Learned(texts.get, texts.__setitem__)
    for _ in range(20):
        before.learn(before.caller(GPT, ""), ASKED, Usage(1, 10, 100), 0)
    before.save()
    learned = Learned(texts.get, texts.__setitem__)
    model, agent = learned.caller(GPT, ""), learned.caller(GPT, "researcher")
    for _ in range(made):
        learned.learn(model, Estimate(input_tokens=10, exact=False), Usage(1, 20, 500), 0)
    learned.load(GPT)
    assert expected <= model.usual <= 1.125 * expected
    assert agent.usual == model.usual
    assert model.input.ratio == (None if made < 8 else 2.0)
    assert learned.caller(GPT, "") is model


def test_a_lost_store_is_asked_when_it_is_back(slow: Slow) -> None:
    asked: list[str] = []
    recall, step = slow.recall, slow.store.run
    lost = True

    def ask(key: str) -> str | None:
        asked.append(key)
        return cast("str | None", use(recall, key))

    def use(what: Callable[..., Any], *arguments: Any) -> Any:
        if lost:
            message = "It is gone."
            raise StoreUnavailable(message)
        return what(*arguments)

    slow.recall, slow.run = ask, partial(use, step)  # type: ignore[method-assign, attr-defined]
    slow.go.set()
    limiter = limiter_of(slow)
    for target in (GPT, MINI):
        with pytest.raises(StoreUnavailable, match="gone"):
            limiter.acquire(target, ASKED)
    assert asked == [f"learned|{GPT}"], "a store that is known to be lost is not asked"
    assert usual(limiter) == 1_000
    lost = False
    deadline = time.monotonic() + 10
    while limiter._calls.engine.loss.since is not None:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    limiter.acquire(GPT, ASKED).cancel()
    assert 100 <= usual(limiter) <= 112
