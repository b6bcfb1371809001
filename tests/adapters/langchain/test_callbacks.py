"""Callbacks: they wait where that is safe, refuse elsewhere, and give back what LangChain forgets."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
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
from tests.adapters.langchain.calls import ASYNC, PROMPT, SYNC, call, calling
from tests.adapters.langchain.models import MODEL, accounts, books, charged, limiter_of, openai_at
from tests.adapters.openai_sdk import until

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestWarning"),  # the module's mark, on tests that are not async
]
HANDLERS = pytest.mark.parametrize("kind", [RateLimitCallbackHandler, AsyncRateLimitCallbackHandler])


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


async def test_of_a_stream_that_states_no_usage_the_text_is_counted(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    chunks = openai_at(provider).stream(PROMPT, calling(RateLimitCallbackHandler(limiter)))
    text = "".join(chunk.text for chunk in chunks)
    requests, sent, received, _, cost = books(limiter)
    assert requests == 1
    assert sent > 0
    assert received >= len(text) / 6
    assert cost == pytest.approx((3 * sent + 15 * received) / 1e6)


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

    def text(message: Any) -> Any:
        return message.text

    branches: Any = RunnableParallel(a=model, b=model | RunnableLambda(text), c=model)
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
