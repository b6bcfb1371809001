"""How long LangChain, LlamaIndex and CrewAI hold an event loop, limited and not, and how much of that is ours.

`make bench-frameworks`: it needs the frameworks, which have an environment of their own.
"""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any, NamedTuple

import httpx

import tests.adapters.crewai.conftest
import tests.adapters.llamaindex.conftest  # noqa: F401 - before LlamaIndex: NLTK's files
from agent_rate_limiter import MultiProviderLimiter, Provider
from agent_rate_limiter.testing.simulated import SimulatedProvider
from tests.benchmarks.held_loop import Held, held
from tests.benchmarks.measure import CLOCK_NOTE, progress
from tests.benchmarks.report import Goal, Report, Table

ABOUT = f"how long they hold an event loop, limited and not, and how much of it is ours ({CLOCK_NOTE})"
MODEL, EMBEDDING = "gpt-4o-mini", "text-embedding-3-small"
MOST = 20.0
"""Milliseconds."""
QUESTION = "Why do agents wait?"
HISTORY = [(role, f"{QUESTION} {turn} " * 20) for turn in range(150) for role in ("user", "assistant")] + [
    ("user", "?")
]
Run = Callable[[], Awaitable[object]]


class Contender(NamedTuple):
    """One way of doing some work.

    Args:
        name: which way.
        ready: makes all that is needed, outside of the loop; what it returns does the work, on a loop of its own.
    """

    name: str
    ready: Callable[[], Run]


def run(*, quick: bool) -> Report:
    """Let each do its work on an event loop: first to see what is ours, then to time it."""
    warnings.simplefilter("ignore")  # the frameworks' own
    report = Report("frameworks", ABOUT)
    with SimulatedProvider(default={"output_tokens": 40, "latency": 0.02}) as provider:
        for work, contenders in _works(provider, calls=50 if quick else 200).items():
            _measure(report, work, contenders, rounds=2 if quick else 5)
    report.notes += [
        "ours: by a profile hook that makes everything 2 to 4 times as slow, so at most that; the first call included.",
        "turn: all steps that are ready at once. Calls that begin together are in one, limited or not.",
    ]
    return report


def _measure(report: Report, work: str, contenders: list[Contender], rounds: int) -> None:
    progress(work)
    bare = contenders[0]
    _held(bare, whose=False)  # what frameworks load when they are first used
    whose = {it.name: _held(it, whose=True) for it in contenders}
    seen: dict[str, list[Held]] = {it.name: [] for it in contenders}
    for _ in range(rounds):
        for it in contenders:
            seen[it.name].append(_held(it, whose=False))
    rows: list[list[str | float | None]] = []
    for name, several in seen.items():
        times = [mine.total / theirs.total for mine, theirs in zip(several, seen[bare.name], strict=True)]
        step, turn = (median(max(held) for held in parts) for parts in _parts(several))
        ours = whose[name]
        rows.append(
            [name, *(1000 * part for part in (step, turn, max(ours.ours), max(ours.ours_in_turns))), median(times)]
        )
        if name != bare.name:
            report.goals.append(Goal(f"longest step of ours, {work}, {name}", 1000 * max(ours.ours), MOST, unit=" ms"))
    columns = {"": "", "longest step ms": ".1f", "turn ms": ".1f", "of it ours <=": ".1f", "in a turn <=": ".1f"}
    report.tables.append(Table(work, {**columns, "CPU x bare": ".2f"}, rows))


def _parts(several: list[Held]) -> tuple[list[list[float]], list[list[float]]]:
    return [seen.steps for seen in several], [seen.turns for seen in several]


def _held(contender: Contender, *, whose: bool) -> Held:
    run = contender.ready()
    gc.collect()
    gc.freeze()  # a collection would look through all that the frameworks have loaded, whoever's turn it is
    return held(run, whose=whose)


def _works(provider: SimulatedProvider, calls: int) -> dict[str, list[Contender]]:
    history = 5
    return {
        f"LangChain, {calls} at once": _langchain(
            provider, lambda model, config: model.abatch([QUESTION] * calls, config)
        ),
        f"LangChain, {len(HISTORY)} messages": _langchain(
            provider, lambda model, config: _langchain_history(model, config, history)
        ),
        f"LlamaIndex, {calls} at once": _llamaindex(provider, lambda llm: _together(llm.acomplete, calls)),
        f"LlamaIndex, {10 * calls} embeddings": _embeddings(provider, 10 * calls),
        f"CrewAI, {calls} at once": _crewai(provider, lambda llm: _together(llm.acall, calls)),
    }


async def _together(call: Callable[[str], Awaitable[object]], calls: int) -> None:
    await asyncio.gather(*(call(QUESTION) for _ in range(calls)))


async def _langchain_history(model: Any, config: Any, calls: int) -> None:
    for _ in range(calls):
        await model.ainvoke(HISTORY, config)


def _limiter() -> MultiProviderLimiter:
    return MultiProviderLimiter([Provider("openai", {"*": {"rpm": 1_000_000, "concurrency": 20}})])


def _client() -> httpx.AsyncClient:
    """A client that leaves no connection open, as its loop is gone with its run."""
    return httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0))


def _langchain(provider: SimulatedProvider, call: Callable[[Any, Any], Awaitable[object]]) -> list[Contender]:
    from langchain_openai import ChatOpenAI

    from agent_rate_limiter_adapters.langchain import RateLimitCallbackHandler

    def model() -> Any:
        named: Any = {"model": MODEL, "base_url": provider.openai_url, "api_key": "any", "max_retries": 0}
        return ChatOpenAI(**named, http_async_client=_client())

    def ready(limited: Any, config: Any = None) -> Run:
        return lambda: call(limited, config)

    return [
        Contender("bare", lambda: ready(model())),
        Contender("wrapped", lambda: ready(_limiter().wrap(model()))),
        Contender("callback", lambda: ready(model(), {"callbacks": [RateLimitCallbackHandler(_limiter())]})),
    ]


def _llamaindex(provider: SimulatedProvider, call: Callable[[Any], Awaitable[object]]) -> list[Contender]:
    from llama_index.llms.openai import OpenAI

    def model() -> Any:
        return OpenAI(model=MODEL, **_reached(provider))

    return _ways(model, call)


def _embeddings(provider: SimulatedProvider, texts: int) -> list[Contender]:
    from llama_index.embeddings.openai import OpenAIEmbedding  # type: ignore[import-untyped]

    def model() -> Any:
        return OpenAIEmbedding(model=EMBEDDING, **_reached(provider))

    return _ways(model, lambda embed: embed.aget_text_embedding_batch([QUESTION] * texts))


def _reached(provider: SimulatedProvider) -> dict[str, Any]:
    return {"api_base": provider.openai_url, "api_key": "any", "max_retries": 0, "async_http_client": _client()}


def _ways(model: Callable[[], Any], call: Callable[[Any], Awaitable[object]]) -> list[Contender]:
    from agent_rate_limiter_adapters.llamaindex import instrument, uninstrument

    def plain(made: Any) -> Run:
        uninstrument()
        return lambda: call(made)

    def instrumented() -> Run:
        instrument(_limiter())
        made = model()
        return lambda: call(made)

    return [
        Contender("bare", lambda: plain(model())),
        Contender("wrapped", lambda: plain(_limiter().wrap(model()))),
        Contender("instrumented", instrumented),
    ]


def _crewai(provider: SimulatedProvider, call: Callable[[Any], Awaitable[object]]) -> list[Contender]:
    from crewai import LLM

    def model() -> Any:
        return LLM(model=MODEL, base_url=provider.openai_url, api_key="any", max_retries=0)

    def ready(made: Any) -> Run:
        return lambda: call(made)

    return [Contender("bare", lambda: ready(model())), Contender("wrapped", lambda: ready(_limiter().wrap(model())))]
