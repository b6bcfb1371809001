"""OpenAI's own SDK, whichever version is installed, limited, against the simulated provider over a real socket."""

from __future__ import annotations

import asyncio
import gc
import importlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI
from pydantic import BaseModel

from agent_rate_limiter import (
    AcquireTimeout,
    BudgetExceeded,
    ConfigError,
    LimiterClosed,
    MultiProviderLimiter,
    Price,
    Provider,
    RateLimiter,
    RateLimiterError,
    RequestTooLarge,
)
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from agent_rate_limiter_adapters.openai import adapter
from tests.adapters.support import MODEL, accounted, booked, finish, roomy, used

QUESTION: Any = [{"role": "user", "content": "Why is the sky blue?"}]
TOOLS: Any = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]
AZURE = {"api_version": "2026-01-01", "api_key": "key"}
SDK_LIBRARIES = ["httpx", "httpx2"] if int(openai.__version__.split(".")[0]) >= 3 else ["httpx"]
"""The HTTP libraries whose clients the installed SDK takes."""


class Colour(BaseModel):
    name: str
    wavelength: int


@pytest.fixture(scope="module")
def running() -> Iterator[SimulatedProvider]:
    with SimulatedProvider(default={"output_tokens": 40}, seed=5) as provider:
        yield provider


@pytest.fixture
def provider(running: SimulatedProvider) -> SimulatedProvider:
    running.reset()
    return running


_open: list[OpenAI] = []


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    """Close the sync clients of a test."""
    yield
    while _open:
        _open.pop().close()


def client_of(kind: Callable[..., Any], provider: SimulatedProvider, **options: Any) -> Any:
    client = kind(base_url=provider.openai_url, api_key="sk-test", **options)
    if isinstance(client, OpenAI):
        _open.append(client)
    return client


def ask(client: Any, **options: Any) -> Any:
    given = {"model": MODEL, "messages": QUESTION, "max_tokens": 60, **options}
    return client.chat.completions.create(**given)


def respond(client: Any, **options: Any) -> Any:
    return client.responses.create(model=MODEL, input="Why is the sky blue?", max_output_tokens=60, **options)


async def until(condition: Callable[[], bool]) -> None:
    """Let others go on until something is so, for at most five seconds."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


both = pytest.mark.parametrize("kind", [OpenAI, AsyncOpenAI])

CALLS: dict[str, Callable[[Any], Any]] = {
    "chat": ask,
    "chat with tools": lambda client: ask(client, tools=TOOLS),
    "chat, three choices": lambda client: ask(client, n=3),
    "chat parsed": lambda client: client.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=Colour),
    "chat streamed": lambda client: ask(client, stream=True),
    "chat streamed, usage asked for": lambda client: ask(client, stream=True, stream_options={"include_usage": True}),
    "chat stream helper": lambda client: client.chat.completions.stream(model=MODEL, messages=QUESTION),
    "chat raw": lambda client: client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION),
    "chat streaming response": lambda client: client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=QUESTION
    ),
    "responses": respond,
    "responses parsed": lambda client: client.responses.parse(model=MODEL, input="Red?", text_format=Colour),
    "responses streamed": lambda client: respond(client, stream=True),
    "responses stream helper": lambda client: client.responses.stream(model=MODEL, input="Why is the sky blue?"),
    "embeddings": lambda client: client.embeddings.create(model=MODEL, input=["one", "two"]),
    "embeddings raw": lambda client: client.embeddings.with_raw_response.create(model=MODEL, input="one"),
    "other options": lambda client: ask(client.with_options(timeout=10)),
    "copy of a copy": lambda client: ask(client.copy().with_options(max_retries=3)),
}


@both
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_every_kind_of_call_is_one_reservation_settled_with_what_the_provider_counted(
    provider: SimulatedProvider, kind: Callable[..., Any], call: Callable[[Any], Any]
) -> None:
    limiter = roomy()

    async def use() -> None:
        client = adapter(client_of(kind, provider), limiter)
        await finish(call(client))
        await finish(client.close())

    asyncio.run(use())
    assert booked(limiter) == accounted(provider)
    assert booked(limiter)[0] == 1
    assert used(limiter, "requests") == 1
    assert used(limiter, "tokens") == provider.report().input_tokens + provider.report().output_tokens > 0
    assert limiter.snapshot().in_flight == 0


def test_wrap_finds_the_adapter_by_itself(provider: SimulatedProvider) -> None:
    limiter = roomy()
    ask(limiter.wrap(client_of(OpenAI, provider)))
    assert booked(limiter) == accounted(provider)


def test_what_is_no_model_call_is_not_counted(provider: SimulatedProvider) -> None:
    limiter = roomy()
    adapter(client_of(OpenAI, provider), limiter).models.list()
    assert booked(limiter) == (0, 0, 0)


@both
def test_azure_is_told_by_its_client_and_its_deployments(provider: SimulatedProvider, kind: Any) -> None:
    limiter = MultiProviderLimiter([Provider("azure-openai", {MODEL: {"rpd": 100, "tpd": 100_000}})])
    azure = AzureOpenAI if kind is OpenAI else AsyncAzureOpenAI

    async def use() -> None:
        client = adapter(azure(azure_endpoint=provider.url, **AZURE), limiter)  # type: ignore[call-overload]
        await finish(ask(client))
        await finish(ask(client, stream=True))
        await finish(client.close())

    asyncio.run(use())
    assert booked(limiter) == accounted(provider)
    assert booked(limiter)[0] == 2


def test_a_limiter_of_one_model_takes_every_call(provider: SimulatedProvider) -> None:
    limiter = RateLimiter(rpd=100, tpd=100_000)
    ask(adapter(client_of(OpenAI, provider), limiter), model="whatever")
    assert booked(limiter) == accounted(provider)


# ------------------------------------------------------------------ streams that do not end well


def closed_early(stream: Any) -> None:
    next(iter(stream))
    stream.close()


def dropped(stream: Any) -> None:
    next(iter(stream))
    del stream
    gc.collect()


def dropped_unread(stream: Any) -> None:
    del stream
    gc.collect()


def read_through(stream: Any) -> None:
    with pytest.raises((openai.APIConnectionError, httpx.ReadError)):  # 2.x passes the latter on
        list(stream)


def read_to_the_end(stream: Any) -> None:
    list(stream)


def read_to_the_error(stream: Any) -> None:
    with pytest.raises(openai.APIError):
        list(stream)


@pytest.mark.parametrize(
    ("fault", "read"),
    [
        (None, closed_early),
        (None, dropped),
        (None, dropped_unread),
        ("reset_stream", read_through),
        ("truncated_stream", read_to_the_end),
        ("stream_error", read_to_the_error),
    ],
)
def test_a_stream_that_does_not_end_is_charged_its_estimate_at_least(
    provider: SimulatedProvider, fault: str | None, read: Callable[[Any], None]
) -> None:
    limiter = roomy()
    if fault is None:  # slowly, so that the end has not come yet
        provider.inject(Fault("slow_stream", seconds=0.01))
    else:
        provider.inject(Fault(fault, after_pieces=2))
    client = adapter(client_of(OpenAI, provider), limiter)
    with limiter.reserve(f"openai:{MODEL}", input_tokens=20, max_output_tokens=60) as call:
        stream = ask(client, stream=True)
        assert limiter.snapshot().in_flight == 1
        read(stream)
        del stream
        gc.collect()
    assert call.usage is not None
    assert not call.usage.exact
    assert call.usage.input_tokens > 0
    assert used(limiter, "tokens") >= 80
    assert limiter.snapshot().in_flight == 0


@pytest.mark.parametrize("ending", ["close", "break", "cancel"])
def test_an_async_stream_that_is_left_early_is_settled(provider: SimulatedProvider, ending: str) -> None:
    limiter = roomy()
    provider.inject(Fault("slow_stream", seconds=0.02))

    async def use() -> None:
        client = adapter(client_of(AsyncOpenAI, provider), limiter)

        async def read() -> None:
            stream: Any = await ask(client, stream=True)
            async for _ in stream:
                if ending == "close":
                    await stream.close()
                if ending != "cancel":
                    break

        task = asyncio.create_task(read())
        if ending == "cancel":
            await until(lambda: limiter.snapshot().in_flight == 1)
            await asyncio.sleep(0.03)
            task.cancel()
        await asyncio.wait([task])
        gc.collect()
        await until(lambda: limiter.snapshot().in_flight == 0)  # a dropped generator is closed by the loop
        await client.close()

    asyncio.run(use())
    assert booked(limiter)[0] == 1
    assert used(limiter, "tokens") >= 60


def test_a_refusal_inside_a_200_counts_as_a_request_without_tokens(provider: SimulatedProvider) -> None:
    limiter = roomy()
    client = adapter(client_of(OpenAI, provider), limiter)
    provider.inject(Fault("azure_failed_first", after_pieces=0))
    with pytest.raises(openai.APIError):
        list(respond(client, stream=True))
    provider.inject(Fault("stream_error", after_pieces=0))
    assert "error" in [event.type for event in list(respond(client, stream=True))]
    assert booked(limiter) == (2, 0, 0)
    assert used(limiter, "tokens") == 0


def test_a_refusal_inside_a_200_closes_the_target_as_long_as_it_says(provider: SimulatedProvider) -> None:
    limiter = roomy()
    error = {"type": "too_many_requests", "code": "rate_limit_exceeded", "message": "Too many."}
    refusal = Fault("azure_failed_first", after_pieces=0, error=error, headers={"retry-after": "30"})
    provider.inject(refusal)
    with pytest.raises(openai.APIError):
        list(respond(adapter(client_of(OpenAI, provider), limiter), stream=True))
    decision = limiter.explain(f"openai:{MODEL}").decision
    assert not decision.admitted
    assert decision.retry_after == pytest.approx(30, abs=2)


def test_streams_state_their_usage_unless_told_otherwise(provider: SimulatedProvider) -> None:
    limiter = roomy()
    plain = list(ask(client_of(OpenAI, provider), stream=True))
    asked = list(ask(adapter(client_of(OpenAI, provider), limiter), stream=True))
    assert [chunk.choices for chunk in asked[len(plain) :]] == [[]]
    unasked = list(ask(adapter(client_of(OpenAI, provider), limiter, include_usage=False), stream=True))
    assert len(unasked) == len(plain)
    decided = ask(adapter(client_of(OpenAI, provider), limiter), stream=True, stream_options={"include_usage": False})
    assert len(list(decided)) == len(plain)
    assert booked(limiter)[0] == 3


def test_a_stream_that_the_garbage_collector_finds_cannot_hang_the_limiter(provider: SimulatedProvider) -> None:
    """It may do so anywhere, also where the limiter holds its lock, and in any order."""
    limiter = roomy()
    provider.inject(Fault("slow_stream", seconds=0.01), times=2)
    client = adapter(client_of(OpenAI, provider), limiter)
    closed, found = ask(client, stream=True), ask(client, stream=True)
    gc.disable()
    try:
        for stream in (closed, found):
            next(iter(stream))
        del stream, found

        def collect(_: int) -> None:
            closed.close()
            gc.collect()

        busy = threading.Thread(target=limiter._calls.engine.read, args=(collect,), daemon=True)
        busy.start()
        busy.join(5)
        assert not busy.is_alive()
    finally:
        gc.enable()
    assert limiter.snapshot().in_flight == 0
    assert booked(limiter)[0] == 2


# ------------------------------------------------------------------ errors


@both
@pytest.mark.parametrize("options", [{}, {"max_retries": 5}])
def test_a_429_is_one_attempt_and_one_request_without_tokens(
    provider: SimulatedProvider, kind: Any, options: dict[str, Any]
) -> None:
    limiter = roomy()
    provider.inject(Fault("rate_limit", retry_after=0.01), times=5)

    async def use() -> None:
        client = adapter(client_of(kind, provider), limiter).with_options(**options)
        with pytest.raises(openai.RateLimitError, match="Rate limit reached"):
            await finish(ask(client))
        with pytest.raises(openai.RateLimitError):
            await finish(ask(client, stream=True))
        await finish(client.close())

    asyncio.run(use())
    assert provider.report().received == 2
    assert booked(limiter) == (2, 0, 0)
    assert used(limiter, "requests") == 2
    assert used(limiter, "tokens") == 0
    assert limiter.snapshot().in_flight == 0


@both
def test_a_call_that_cannot_connect_costs_nothing(kind: Any) -> None:
    limiter = roomy()
    with socket.socket() as taken:  # bound, not listening: refuses
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"

        async def use() -> None:
            client = adapter(kind(base_url=url, api_key="k"), limiter)
            with pytest.raises(openai.APIConnectionError):
                await finish(ask(client))
            await finish(client.close())

        asyncio.run(use())
    assert booked(limiter) == (0, 0, 0)
    assert used(limiter, "requests") == 0
    assert limiter.snapshot().in_flight == 0


@both
def test_a_connection_lost_after_sending_keeps_the_estimate(provider: SimulatedProvider, kind: Any) -> None:
    limiter = roomy()
    provider.inject("reset")

    async def use() -> None:
        client = adapter(client_of(kind, provider), limiter)
        with pytest.raises(openai.APIConnectionError):
            await finish(ask(client))
        await finish(client.close())

    asyncio.run(use())
    assert used(limiter, "requests") == 1
    assert used(limiter, "tokens") >= 60
    assert limiter.snapshot().in_flight == 0


def busy_limiter() -> MultiProviderLimiter:
    limiter = roomy(concurrency=1)
    limiter.held = limiter.acquire(f"openai:{MODEL}")  # type: ignore[attr-defined]
    return limiter


def closed_limiter() -> MultiProviderLimiter:
    limiter = roomy()
    limiter.close()
    return limiter


def spent_limiter() -> MultiProviderLimiter:
    model = {"output_per_1m": 1_000_000.0, "input_per_1m": 0.0}
    return MultiProviderLimiter([Provider("openai", {MODEL: model})], budget_limit=1.0)


REFUSALS: dict[type[RateLimiterError], Callable[[], MultiProviderLimiter]] = {
    RequestTooLarge: lambda: MultiProviderLimiter([Provider("openai", {MODEL: {"tpm": 10}})]),
    AcquireTimeout: busy_limiter,
    BudgetExceeded: spent_limiter,
    LimiterClosed: closed_limiter,
    ConfigError: lambda: MultiProviderLimiter([Provider("openai", {"gpt-3": {}})]),
}


@both
@pytest.mark.parametrize(("error", "make"), REFUSALS.items(), ids=[error.__name__ for error in REFUSALS])
def test_the_limiters_errors_come_as_they_are_once(
    provider: SimulatedProvider, kind: Any, error: type[RateLimiterError], make: Callable[[], MultiProviderLimiter]
) -> None:
    limiter = make()
    acquired: list[object] = []

    async def use() -> BaseException:
        client = adapter(client_of(kind, provider, max_retries=4), limiter, timeout=0.02)
        client = client.with_options(max_retries=4)
        name = "acquire" if kind is OpenAI else "acquire_async"
        acquire = getattr(limiter._calls, name)

        def counting(*args: Any, **rest: Any) -> Any:
            acquired.append(args)
            return acquire(*args, **rest)

        setattr(limiter._calls, name, counting)
        with pytest.raises(RateLimiterError) as caught:
            await finish(ask(client))
        await finish(client.close())
        return caught.value

    raised = asyncio.run(use())
    assert type(raised) is error
    assert raised.__cause__ is None
    assert raised.__context__ is None or raised.__suppress_context__
    assert len(acquired) == (0 if error is ConfigError else 1)
    assert provider.report().received == 0


def test_no_provider_for_the_client_is_told_when_it_is_wrapped(provider: SimulatedProvider) -> None:
    limiter = MultiProviderLimiter([Provider("anthropic", {"claude-opus-4": {}})])
    with pytest.raises(ConfigError, match=r"No provider is configured for http://127.*provider="):
        adapter(client_of(OpenAI, provider), limiter)


@pytest.mark.parametrize("thing", [object(), openai.OpenAI, "gpt-4"])
def test_only_clients_are_wrapped(thing: object) -> None:
    with pytest.raises(ConfigError, match="give an OpenAI, AsyncOpenAI, AzureOpenAI or AsyncAzureOpenAI"):
        adapter(thing, roomy())


# ------------------------------------------------------------------ one call is counted once


@both
def test_a_decorated_function_and_its_wrapped_client_count_once(provider: SimulatedProvider, kind: Any) -> None:
    limiter = roomy()
    client = adapter(client_of(kind, provider), limiter)

    @limiter.limit(provider="openai", model=MODEL, max_output_tokens=60)
    def once() -> Any:
        return ask(client)

    @limiter.limit(provider="openai", model=MODEL, max_output_tokens=60)
    async def once_async() -> Any:
        return await ask(client)

    @limiter.limit(provider="openai", model=MODEL, max_output_tokens=60)
    async def twice() -> None:
        await finish(ask(client))
        await finish(ask(client))

    async def use() -> None:
        await finish(once() if kind is OpenAI else once_async())
        assert booked(limiter) == accounted(provider)
        await twice()
        await finish(client.close())

    asyncio.run(use())
    assert booked(limiter) == accounted(provider)
    assert used(limiter, "requests") == provider.report().received == 3
    assert limiter.snapshot().in_flight == 0


def test_wrapping_twice_counts_once_on_the_latest_terms(provider: SimulatedProvider) -> None:
    limiter = roomy(concurrency=1)
    twin = adapter(adapter(client_of(OpenAI, provider), limiter), limiter, timeout=0.02)
    ask(twin)
    assert booked(limiter) == accounted(provider)
    held = limiter.acquire(f"openai:{MODEL}")
    with pytest.raises(AcquireTimeout):
        ask(twin)
    held.cancel()


def test_two_limiters_both_count(provider: SimulatedProvider) -> None:
    inner, outer = roomy(), roomy()
    list(ask(adapter(adapter(client_of(OpenAI, provider), inner), outer), stream=True))
    assert booked(inner) == booked(outer) == accounted(provider)


# ------------------------------------------------------------------ the original, and the twin


@both
def test_the_original_stays_as_it_is(provider: SimulatedProvider, kind: Any) -> None:
    original = client_of(kind, provider, default_headers={"x-team": "blue"}, timeout=12.0)
    before = (original.max_retries, original._client, original._client._transport, dict(original._client._mounts))
    limiter = roomy()

    async def use() -> None:
        twin = adapter(original, limiter)
        twin._client.headers["x-twin"] = "yes"
        twin._client.event_hooks["request"].append(print)
        assert type(twin).__name__ == type(original).__name__
        assert isinstance(twin, kind)
        assert isinstance(twin.with_options(timeout=1), type(twin))
        assert (twin.max_retries, twin.timeout, twin.base_url) == (0, 12.0, original.base_url)
        await finish(ask(original))
        await finish(twin.close())
        await finish(ask(original))  # on new connections
        await finish(original.close())

    asyncio.run(use())
    after = (original.max_retries, original._client, original._client._transport, dict(original._client._mounts))
    assert after == before
    assert "x-twin" not in original._client.headers
    assert print not in original._client.event_hooks["request"]
    assert booked(limiter) == (0, 0, 0)


def test_a_dropped_twin_leaves_the_originals_calls_alone(provider: SimulatedProvider) -> None:
    original = client_of(OpenAI, provider)
    provider.inject(Fault("slow_stream", seconds=0.005))
    stream = iter(ask(original, stream=True))
    next(stream)
    adapter(original, roomy())
    gc.collect()
    assert list(stream)


def test_a_dropped_original_leaves_the_twins_calls_alone(provider: SimulatedProvider) -> None:
    original = OpenAI(base_url=provider.openai_url, api_key="sk-test")
    with adapter(original, roomy()) as twin:
        provider.inject(Fault("slow_stream", seconds=0.005))
        stream = iter(ask(twin, stream=True))
        next(stream)
        del original
        gc.collect()
        assert list(stream)


@pytest.mark.parametrize("library", SDK_LIBRARIES)
@both
def test_a_http_client_of_the_users_keeps_its_hooks_mounts_and_timeouts(
    provider: SimulatedProvider, kind: Any, library: str
) -> None:
    module = importlib.import_module(library)
    limiter = roomy()
    requests: list[Any] = []
    mounted: list[Any] = []

    def hook(request: Any) -> None:
        requests.append(request)

    async def hook_async(request: Any) -> None:
        requests.append(request)

    sync = kind is OpenAI
    base = module.HTTPTransport if sync else module.AsyncHTTPTransport

    class Mounted(base):  # type: ignore[misc, valid-type]
        def handle_request(self, request: Any) -> Any:
            mounted.append(request)
            return super().handle_request(request)

        def handle_async_request(self, request: Any) -> Any:
            mounted.append(request)
            return super().handle_async_request(request)

    async def use() -> None:
        http_client = (module.Client if sync else module.AsyncClient)(
            timeout=7.0,
            event_hooks={"request": [hook if sync else hook_async]},
            mounts={"http://127.0.0.1": Mounted(), "https://": None},
        )
        client = adapter(client_of(kind, provider, http_client=http_client), limiter)
        await finish(ask(client))
        await finish(ask(client, stream=True))
        assert client._client.timeout.read == 7.0
        await finish(client.close())

    asyncio.run(use())
    assert len(requests) == len(mounted) == 2
    assert booked(limiter) == accounted(provider)
    assert booked(limiter)[0] == 2


# ------------------------------------------------------------------ many at once


def test_fifty_threads_share_one_limit(provider: SimulatedProvider) -> None:
    limiter = roomy(concurrency=8)
    client = adapter(client_of(OpenAI, provider), limiter)
    provider.set_limits(MODEL, concurrency=8)

    def work(number: int) -> None:
        if number % 2:
            list(ask(client, stream=True))
        else:
            ask(client)

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(work, range(100)))
    assert booked(limiter) == accounted(provider)
    assert provider.report().completed == 100
    assert limiter.snapshot().in_flight == limiter.snapshot().waiting == 0


def test_two_hundred_tasks_share_one_limit(provider: SimulatedProvider) -> None:
    limiter = roomy(concurrency=20)
    provider.set_limits(MODEL, concurrency=20)

    async def use() -> None:
        async with adapter(client_of(AsyncOpenAI, provider), limiter) as client:
            await asyncio.gather(*(finish(ask(client, stream=number % 2 == 0)) for number in range(200)))

    asyncio.run(use())
    assert booked(limiter) == accounted(provider)
    assert provider.report().completed == 200
    assert limiter.snapshot().in_flight == limiter.snapshot().waiting == 0


def test_a_cancelled_wait_leaves_no_trace(provider: SimulatedProvider) -> None:
    limiter = roomy(concurrency=1)

    async def use() -> None:
        async with adapter(client_of(AsyncOpenAI, provider), limiter) as client:
            held = limiter.acquire(f"openai:{MODEL}")
            waiting = asyncio.create_task(ask(client))
            await until(lambda: limiter.snapshot().waiting == 1)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
            held.cancel()

    asyncio.run(use())
    assert provider.report().received == 0
    assert limiter.snapshot().in_flight == limiter.snapshot().waiting == 0


def test_priority_decides_who_goes_first(provider: SimulatedProvider) -> None:
    limiter = roomy(concurrency=1)
    original = client_of(AsyncOpenAI, provider)
    order: list[str] = []

    async def call(name: str, client: Any) -> None:
        await ask(client)
        order.append(name)

    async def use() -> None:
        patient, urgent = adapter(original, limiter, priority=10), adapter(original, limiter, priority=0)
        held = limiter.acquire(f"openai:{MODEL}")
        tasks = [asyncio.create_task(call("patient", patient)) for _ in range(3)]
        await until(lambda: limiter.snapshot().waiting == 3)
        tasks.append(asyncio.create_task(call("urgent", urgent)))
        await until(lambda: limiter.snapshot().waiting == 4)
        held.cancel()
        await asyncio.gather(*tasks)
        await original.close()

    asyncio.run(use())
    assert order[0] == "urgent"


def test_dollars_are_booked_from_real_usage(provider: SimulatedProvider) -> None:
    price = Price(input_per_1m=30, output_per_1m=60)
    limiter = RateLimiter(rpd=100, price=price, target=f"openai:{MODEL}")
    before = time.time()
    answer = ask(adapter(client_of(OpenAI, provider), limiter))
    expected = (answer.usage.prompt_tokens * 30 + answer.usage.completion_tokens * 60) / 1e6
    assert limiter.snapshot().spend == pytest.approx(expected)
    assert before <= limiter.snapshot().at
