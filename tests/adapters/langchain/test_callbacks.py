"""Callbacks: they wait where that is safe, refuse elsewhere, and give back what LangChain forgets."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_openai import OpenAI

from agent_rate_limiter import AcquireTimeout, ConfigError, LimitExceeded, MultiProviderLimiter, Provider, RateLimiter
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from agent_rate_limiter_adapters.langchain import (
    AsyncRateLimitCallbackHandler,
    RateLimitCallbackHandler,
    get_rate_limit_callback,
    rate_limited,
)
from tests.adapters.langchain.calls import ASYNC, PROMPT, SYNC, call
from tests.adapters.langchain.models import MODEL, accounts, books, limiter_of, openai_at
from tests.adapters.openai_sdk import until

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestWarning"),  # the module's mark, on tests that are not async
]
HANDLERS = pytest.mark.parametrize("kind", [RateLimitCallbackHandler, AsyncRateLimitCallbackHandler])


def calling(*handlers: BaseCallbackHandler) -> Any:
    """The configuration of a call."""
    return {"callbacks": list(handlers)}


def charged(limiter: MultiProviderLimiter) -> tuple[int, int]:
    """Requests in the books, and calls in flight."""
    return sum(int(str(row["requests"])) for row in limiter.costs.report().to_dicts()), limiter.snapshot().in_flight


# ---------------------------------------------------------------- refusing and waiting


@HANDLERS
@pytest.mark.parametrize("way", [*SYNC, *ASYNC])
async def test_what_never_fits_is_refused_in_every_way_and_nothing_is_sent(
    provider: SimulatedProvider, kind: Any, way: str
) -> None:
    limiter = limiter_of(tpm=1)
    with pytest.raises(LimitExceeded, match="1 token"):
        await call(way, openai_at(provider, streaming=False), calling(kind(limiter)))
    assert provider.report().received == 0
    assert charged(limiter) == (0, 0)


@HANDLERS
async def test_many_tasks_wait_for_one_slot_and_no_thread_does(provider: SimulatedProvider, kind: Any) -> None:
    limiter = limiter_of(concurrency=1)
    model, config = openai_at(provider), calling(kind(limiter))
    threads: set[threading.Thread] = set()
    attempts = limiter.attempts

    def noting(*args: Any, **options: Any) -> Any:
        threads.add(threading.current_thread())
        return attempts(*args, **options)

    limiter.attempts = noting  # type: ignore[method-assign]
    answers = await asyncio.wait_for(asyncio.gather(*(model.ainvoke(PROMPT, config) for _ in range(60))), 30)
    assert len(answers) == 60
    assert threads == {threading.main_thread()}
    assert books(limiter) == accounts(provider)


def test_threads_wait(provider: SimulatedProvider) -> None:
    limiter = limiter_of(concurrency=1)
    config: Any = {**calling(RateLimitCallbackHandler(limiter)), "max_concurrency": 5}
    assert len(openai_at(provider).batch([PROMPT] * 10, config)) == 10
    assert books(limiter) == accounts(provider)


async def test_a_synchronous_call_on_the_event_loops_thread_is_refused_rather_than_blocking_it(
    provider: SimulatedProvider,
) -> None:
    limiter = limiter_of(concurrency=1)
    model, config = openai_at(provider), calling(RateLimitCallbackHandler(limiter))
    assert model.invoke(PROMPT, config).content  # a free slot needs no waiting
    held = limiter.acquire(f"openai:{MODEL}")
    with pytest.raises(AcquireTimeout):
        model.invoke(PROMPT, config)
    waiting = asyncio.create_task(model.ainvoke(PROMPT, config))
    await until(lambda: limiter.snapshot().waiting == 1)
    held.cancel()
    assert (await waiting).content
    assert books(limiter) == accounts(provider)


async def test_a_wait_has_a_timeout(provider: SimulatedProvider) -> None:
    limiter = limiter_of(concurrency=1)
    config = calling(RateLimitCallbackHandler(limiter, timeout=0.01))
    held = limiter.acquire(f"openai:{MODEL}")
    for way in ("invoke", "ainvoke"):
        with pytest.raises(AcquireTimeout):
            await call(way, openai_at(provider), config)
    held.cancel()
    assert provider.report().received == 0


async def test_tracking_neither_waits_nor_refuses(provider: SimulatedProvider) -> None:
    limiter = limiter_of(rpm=1, tpm=1)
    config = calling(RateLimitCallbackHandler(limiter, mode="track"))
    for _ in range(3):
        assert (await openai_at(provider).ainvoke(PROMPT, config)).content
    assert books(limiter) == accounts(provider)


async def test_tracking_leaves_alone_what_is_not_configured(
    provider: SimulatedProvider, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = MultiProviderLimiter([Provider("anthropic", {"m": {"rpm": 1}})])
    track, enforce = (RateLimitCallbackHandler(limiter, mode=mode) for mode in ("track", "enforce"))
    assert openai_at(provider).invoke(PROMPT, calling(track)).content
    assert "a model call is not tracked: No provider is configured for" in caplog.text
    with pytest.raises(ConfigError, match=r"No provider is configured for http://127\.0\.0\.1"):
        openai_at(provider).invoke(PROMPT, calling(enforce))


# ---------------------------------------------------------------- where LangChain calls neither end nor error


class Raising(BaseCallbackHandler):
    """Another handler, which breaks a run off after ours has begun it."""

    raise_error = True
    run_inline = True

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        raise ValueError("no")


class Refusing(BaseRateLimiter):
    def acquire(self, *, blocking: bool = True) -> bool:
        raise ValueError("no")

    async def aacquire(self, *, blocking: bool = True) -> bool:
        raise ValueError("no")


@pytest.mark.parametrize("held", [True, False])
async def test_a_cancelled_call_gives_its_slot_back(provider: SimulatedProvider, held: bool) -> None:
    limiter = limiter_of(concurrency=1)
    provider.inject(Fault("hang", seconds=5))
    config = calling(RateLimitCallbackHandler(limiter))
    task = asyncio.create_task(openai_at(provider, max_retries=0).ainvoke(PROMPT, config))
    await until(lambda: limiter.snapshot().in_flight == 1)
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.wait([task])
    if not held:
        del task
    assert charged(limiter) == (1, 0)  # it may have been sent


async def test_a_call_that_times_out_gives_its_slot_back(provider: SimulatedProvider) -> None:
    limiter = limiter_of(concurrency=1)
    provider.inject(Fault("hang", seconds=5))
    config = calling(RateLimitCallbackHandler(limiter))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(openai_at(provider, max_retries=0).ainvoke(PROMPT, config), 0.05)
    await until(lambda: limiter.snapshot().in_flight == 0)
    assert charged(limiter) == (1, 0)


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
async def test_what_breaks_a_run_off_before_it_is_sent(provider: SimulatedProvider, way: str) -> None:
    limiter = limiter_of(concurrency=2)
    ours = RateLimitCallbackHandler(limiter)
    with pytest.raises(ValueError, match="no"):
        await call(way, openai_at(provider), calling(ours, Raising()))
    with pytest.raises(ValueError, match="no"):
        await call(way, openai_at(provider, rate_limiter=Refusing()), calling(ours))
    await asyncio.to_thread(gc.collect)  # a worker thread keeps what was raised in it until its next job
    assert limiter.snapshot().in_flight == 0
    assert provider.report().received == 0


def test_the_others_of_a_generate_that_fails(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    provider.inject(Fault("server_error"), times=1)
    model = openai_at(provider, max_retries=0)
    with pytest.raises(Exception, match="server"):
        model.generate([[HumanMessage("a")], [HumanMessage("b")]], callbacks=[RateLimitCallbackHandler(limiter)])
    gc.collect()
    assert limiter.snapshot().in_flight == 0
    assert provider.report().received == 1


@pytest.mark.parametrize("version", ["v1", "v3"])
def test_streams_that_are_left(provider: SimulatedProvider, version: str) -> None:
    limiter = limiter_of(concurrency=1)
    provider.inject(Fault("slow_stream", seconds=0.005))
    config: Any = calling(RateLimitCallbackHandler(limiter))
    model = openai_at(provider)
    stream = iter(
        model.stream(PROMPT, config) if version == "v1" else model.stream_events(PROMPT, config, version="v3")
    )
    next(stream)
    del stream
    gc.collect()
    assert charged(limiter) == (1, 0)


async def test_a_stream_whose_chunks_are_awaited_by_different_tasks_is_one_call(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    stream = openai_at(provider, stream_usage=True).astream(PROMPT, calling(RateLimitCallbackHandler(limiter)))
    while True:
        try:
            await asyncio.wait_for(stream.__anext__(), 5)  # a task each, before 3.12
        except StopAsyncIteration:
            break
    assert books(limiter) == accounts(provider)


async def test_what_a_streams_consumer_calls_is_another_call(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    config = calling(RateLimitCallbackHandler(limiter))
    limited = rate_limited(openai_at(provider), limiter)
    async for _ in openai_at(provider, stream_usage=True).astream(PROMPT, config):
        if provider.report().received == 1:
            await limited.ainvoke(PROMPT)
    assert provider.report().received == 2
    assert books(limiter) == accounts(provider)


# ---------------------------------------------------------------- what it sees


async def test_answers_from_a_cache_are_free(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    model = openai_at(provider, cache=InMemoryCache())
    for way in ("invoke", "ainvoke", "invoke"):
        await call(way, model, calling(RateLimitCallbackHandler(limiter)))
    assert provider.report().received == 1
    assert books(limiter) == accounts(provider)


async def test_each_attempt_of_with_retry_counts(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    provider.inject(Fault("server_error"), times=2)
    model = openai_at(provider, max_retries=0).with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
    assert (await model.ainvoke(PROMPT, calling(RateLimitCallbackHandler(limiter)))).content
    assert provider.report().received == 3
    assert books(limiter) == accounts(provider)


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
@pytest.mark.parametrize("mode", ["enforce", "track"])
async def test_a_call_that_fails_fails_with_its_own_error(provider: SimulatedProvider, mode: str, way: str) -> None:
    limiter = limiter_of(attempts=1)
    provider.inject(Fault("server_error"), times=2)
    for model in (openai_at(provider, max_retries=0), rate_limited(openai_at(provider), limiter)):
        with pytest.raises(Exception, match="server"):
            await call(way, model, calling(RateLimitCallbackHandler(limiter, mode=mode)))
    assert provider.report().received == 2
    assert books(limiter) == accounts(provider)


async def test_a_stream_that_is_closed_is_charged_at_once(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    stream: Any = openai_at(provider).stream(PROMPT, calling(RateLimitCallbackHandler(limiter)))
    next(stream)
    stream.close()
    assert charged(limiter) == (1, 0)


async def test_a_refusal_closes_the_target_for_everybody(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    provider.inject(Fault("rate_limit", retry_after=30))
    with pytest.raises(Exception, match="Rate limit reached"):
        await openai_at(provider, max_retries=0).ainvoke(PROMPT, calling(RateLimitCallbackHandler(limiter)))
    explanation = limiter.explain(f"openai:{MODEL}")
    assert not explanation.decision
    assert explanation.decision.retry_after == pytest.approx(30, abs=2)


def test_completions(provider: SimulatedProvider) -> None:
    """The simulated provider has no completions of the old kind, so this one answers from a cache."""
    limiter = limiter_of()
    llm = OpenAI(model=MODEL, base_url=provider.openai_url, api_key="sk-test", max_retries=0, cache=False)  # type: ignore[arg-type]
    with pytest.raises(Exception, match=r"404|[Nn]ot"):
        llm.invoke(PROMPT, calling(RateLimitCallbackHandler(limiter)))
    assert charged(limiter)[1] == 0
    too_small = limiter_of(tpm=1)
    with pytest.raises(LimitExceeded):
        llm.invoke(PROMPT, calling(RateLimitCallbackHandler(too_small)))


async def test_a_graph_with_parallel_branches(provider: SimulatedProvider) -> None:
    limiter = limiter_of(concurrency=2)
    model = openai_at(provider)
    branches: Any = RunnableParallel(a=model, b=model | RunnableLambda(lambda message: message.text), c=model)
    config: Any = calling(RateLimitCallbackHandler(limiter))
    assert set(branches.invoke(PROMPT)) == set(await branches.ainvoke(PROMPT)) == {"a", "b", "c"}
    provider.reset()
    await asyncio.to_thread(branches.invoke, PROMPT, config)
    await branches.ainvoke(PROMPT, config)
    assert provider.report().received == 6
    assert books(limiter) == accounts(provider)


# ---------------------------------------------------------------- without handing a handler to anyone


async def test_a_block_limits_everything_in_it(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    chain = RunnableLambda(lambda text: text) | openai_at(provider)
    with get_rate_limit_callback(limiter) as handler:
        assert isinstance(handler, RateLimitCallbackHandler)
        await chain.ainvoke(PROMPT)
        await asyncio.to_thread(chain.invoke, PROMPT)
    assert books(limiter) == accounts(provider)
    await chain.ainvoke(PROMPT)
    assert books(limiter)[0] == 2
    assert provider.report().received == 3


async def test_everywhere_reaches_threads_that_know_nothing_of_it(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    model = openai_at(provider)
    with get_rate_limit_callback(limiter, everywhere=True, mode="track"):
        thread = threading.Thread(target=model.invoke, args=(PROMPT,))
        thread.start()
        await asyncio.to_thread(thread.join)
    model.invoke(PROMPT)
    assert books(limiter)[0] == 1
    assert provider.report().received == 2


def test_it_can_be_given_to_a_model(provider: SimulatedProvider) -> None:
    limiter = RateLimiter(rpm=100)
    model = openai_at(provider, callbacks=[RateLimitCallbackHandler(limiter)])
    model.bind(stop=["."]).invoke(PROMPT)
    (row,) = limiter.costs.report().to_dicts()
    assert row["requests"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "watch"}, "mode is 'watch': it is one of enforce, track"),
        ({"provider": "google"}, "provider is 'google': the limiter has no such provider"),
        ({"target": "openai:other"}, "target is 'openai:other': "),
    ],
)
def test_arguments_that_make_no_sense(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RateLimitCallbackHandler(limiter_of(), **options)
    with pytest.raises(ConfigError, match="limiter is 7: give a RateLimiter"):
        RateLimitCallbackHandler(7)  # type: ignore[arg-type]


def test_nothing_is_kept_of_runs_that_have_ended(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    handler = RateLimitCallbackHandler(limiter)
    for _ in range(3):
        openai_at(provider).invoke(PROMPT, calling(handler))
    assert not handler._runs._open
