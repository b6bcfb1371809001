"""What each entry costs that users really take, over the shortest one; and what a crowd of threads does to it."""

from __future__ import annotations

import base64
import json
import random
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import count, repeat
from statistics import median
from typing import Any

from agent_rate_limiter import Estimate, Limit, MultiProviderLimiter, Provider, Resource, Scope, Usage
from agent_rate_limiter.estimates import estimate_tokens
from tests.benchmarks import measure
from tests.benchmarks.measure import Contender, interleave, timed
from tests.benchmarks.report import Goal, Report, Table

ABOUT = "one call through each entry, in memory, nothing waits: what it takes, and in terms of acquire + settle"
TARGET = "openai:gpt-4"
SIZE: dict[str, Any] = {"input_tokens": 800, "max_output_tokens": 400}
USED = Usage(input_tokens=800, output_tokens=300)
SHORTEST, BLOCK, DECORATED = "acquire, settle", "with reserve(…)", "@limit(…)"
RESPONSE = "with reserve(…), settle(an SDK's response)"
BARE, WRAPPED = "OpenAI().chat…create", "wrap(OpenAI()).chat…create"
LONG = " with a prompt of 100 kB"
THREADS = 8
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "To be served in turn."}}
    ],
    "usage": {"prompt_tokens": 800, "completion_tokens": 300, "total_tokens": 1_100},
}
HEADERS = {
    "content-type": "application/json",
    "x-ratelimit-limit-requests": "1000000",
    "x-ratelimit-remaining-requests": "999999",
    "x-ratelimit-reset-requests": "1ms",
}


def run(*, quick: bool) -> Report:
    """Time everybody, in the same rounds."""
    own, sdk = _named(*_own(_limiter()), *_scoped(_limiter())), _named(*_sdk(_limiter()))
    entries = {**own, **sdk}
    rounds = 20 if quick else 100
    interleave(list(own.values()), rounds, 0.002)
    interleave(list(sdk.values()), rounds, 0.02)
    alone, crowded = _crowd(1, rounds // 10), _crowd(THREADS, rounds // 10)
    report = Report(
        "entries",
        ABOUT,
        [_table(entries), _estimates(), _threads(alone, crowded), _scopes(5_000 if quick else 50_000)],
    )
    report.notes += [
        f"{rounds} rounds, turns of 2 ms (the SDK's: 20 ms) taken in rotation; {measure.CLOCK_NOTE}.",
        "Threads: wall-clock time.",
        "OpenAI's SDK over a transport that answers at once; with a model: the decorator tells the function which.",
    ]
    report.goals += _goals(entries, alone, crowded)
    return report


# -- entries ---------------------------------------------------------------------------------------------------


def _limiter(**options: Any) -> MultiProviderLimiter:
    model = {"rpm": 1e12, "tpm": 1e15, "input_per_1m": 10, "output_per_1m": 30}
    return MultiProviderLimiter([Provider("openai", {"gpt-4": model}, **options)], budget_limit=1e9)


def _named(*entries: tuple[str, Callable[[], object]]) -> dict[str, Contender]:
    return {name: Contender(name, timed(_calls(call))) for name, call in entries}


def _calls(call: Callable[[], object]) -> Callable[[int], None]:
    def run_calls(calls: int) -> None:
        for _ in repeat(None, calls):
            call()

    return run_calls


def _own(limiter: MultiProviderLimiter) -> Iterator[tuple[str, Callable[[], object]]]:
    from openai.types.chat import ChatCompletion

    response = ChatCompletion.model_validate(ANSWER)

    def block(used: object) -> None:
        with limiter.reserve(TARGET, **SIZE) as call:
            call.settle(used)

    @limiter.limit(target=TARGET, **SIZE)
    def decorated() -> Usage:
        return USED

    @limiter.limit(target=TARGET, **SIZE)
    def told(prompt: str, model: str = "") -> Usage:
        return USED

    yield SHORTEST, lambda: limiter.acquire(TARGET, Estimate(**SIZE)).settle(USED)
    yield "acquire(input_tokens=…), settle", lambda: limiter.acquire(TARGET, **SIZE).settle(USED)
    yield BLOCK, lambda: block(USED)
    yield RESPONSE, lambda: block(response)
    yield DECORATED, decorated
    yield "@limit(…), with a model", lambda: told("Why?")


def _scoped(limiter: MultiProviderLimiter) -> Iterator[tuple[str, Callable[[], object]]]:
    number = count()

    def within(**scope: Any) -> None:
        with limiter.scope(**scope):
            limiter.acquire(TARGET, Estimate(**SIZE)).settle(USED)

    yield "scope(agent=…, run=…) around it", lambda: within(agent="a", run="1")
    yield "a new run each", lambda: within(agent="a", run=next(number))
    yield "scope(budget=…) around it", lambda: within(budget=2.0)


def _sdk(limiter: MultiProviderLimiter) -> Iterator[tuple[str, Callable[[], object]]]:
    plain, twin = _client(), limiter.wrap(_client())

    def ask(client: Any, words: int) -> Callable[[], object]:
        question = [{"role": "user", "content": "Why do agents wait? " * words}]
        return lambda: client.chat.completions.create(model="gpt-4", max_tokens=400, messages=question)

    for more, words in (("", 10), (LONG, 5_000)):
        yield BARE + more, ask(plain, words)
        yield WRAPPED + more, ask(twin, words)


def _client() -> Any:
    import httpx2
    import openai

    body = json.dumps(ANSWER).encode()
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=HEADERS, content=body))
    return openai.OpenAI(api_key="any", http_client=httpx2.Client(transport=transport))


def _table(entries: dict[str, Contender]) -> Table:
    shortest = entries[SHORTEST]
    rows: list[list[str | float | None]] = [
        [it.name, it.median * 1e6, f"±{it.spread:.0%}", it.times_in_median(shortest)] for it in entries.values()
    ]
    return Table("what each entry costs", {"entry": "", "µs": ".1f", "spread": "", "x acquire, settle": ".1f"}, rows)


# -- estimates, threads, scopes --------------------------------------------------------------------------------


def _estimates() -> Table:
    texts = {
        "prose": "Why do agents wait for limits? " * 3_300,
        "code": "def f(x):\n    return {'a': [x + 1, 2.5]}  # no\n" * 2_300,
        "Chinese": "代理人为什么要等待" * 3_700,
        "base64": base64.b64encode(random.Random(1).randbytes(75_000)).decode(),
    }
    rows: list[list[str | float | None]] = []
    for kind, text in texts.items():
        turn = timed(_calls(lambda text=text: estimate_tokens(text)))  # type: ignore[misc]
        rows.append([kind, min(turn(10) for _ in range(10)) * 1e5 / (len(text.encode()) / 1000)])
    return Table("estimating the tokens of 100 kB", {"text": "", "µs a kB": ".2f"}, rows)


def _crowd(threads: int, rounds: int) -> float:
    """Seconds of a call while so many threads make nothing but calls, of the wall clock."""
    limiter = _limiter()
    calls = 10_000 // threads

    def work() -> None:
        for _ in repeat(None, calls):
            limiter.acquire(TARGET, Estimate(**SIZE)).settle(USED)

    def turn() -> float:
        crowd = [threading.Thread(target=work) for _ in range(threads)]
        start = time.perf_counter()
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        return (time.perf_counter() - start) / (threads * calls)

    return median(turn() for _ in range(max(3, rounds)))


def _threads(alone: float, crowded: float) -> Table:
    rows: list[list[str | float | None]] = [["1", alone * 1e6, 1.0], [str(THREADS), crowded * 1e6, crowded / alone]]
    return Table("threads that make nothing but calls", {"threads": "", "µs a call": ".1f", "x one": ".1f"}, rows)


def _scopes(scopes: int) -> Table:
    """What a scope leaves behind, with a total of its own: that is never forgotten."""
    limiter = _limiter(limits=[Limit(Resource.REQUESTS, 100, scope=Scope(agent="each"))])
    rows: list[list[str | float | None]] = []
    tracemalloc.start()
    for half in (1, 2):
        before = tracemalloc.get_traced_memory()[0]
        for number in range(scopes):
            with limiter.scope(agent=f"{half}-{number}"):
                limiter.acquire(TARGET, Estimate(**SIZE)).settle(USED)
        rows.append([f"{half * scopes:,}", (tracemalloc.get_traced_memory()[0] - before) / scopes])
    tracemalloc.stop()
    return Table("agents with a total each", {"agents": "", "bytes each": ".0f"}, rows)


def _goals(entries: dict[str, Contender], alone: float, crowded: float) -> Iterator[Goal]:
    shortest = entries[SHORTEST]
    yield Goal(f"{BLOCK} beside {SHORTEST}", entries[BLOCK].times(shortest), 1.5)
    yield Goal(f"{DECORATED} beside {SHORTEST}", entries[DECORATED].times(shortest), 2)
    for more in ("", LONG):
        yield Goal(f"{WRAPPED}{more} beside {BARE}", entries[WRAPPED + more].times(entries[BARE + more]), 1.7)
    yield Goal(f"{THREADS} threads beside one, per call", crowded / alone, 2)
