"""Every way in which LangChain lets a chat model be called."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from langchain_core.messages import HumanMessage

if TYPE_CHECKING:
    from langchain_core.callbacks import BaseCallbackHandler

PROMPT = "Why do agents wait?"
Config = Any


def _invoke(model: Any, config: Config) -> int:
    assert model.invoke(PROMPT, config).content
    return 1


def _batch(model: Any, config: Config) -> int:
    assert len(model.batch([PROMPT] * 3, config)) == 3
    return 3


def _stream(model: Any, config: Config) -> int:
    assert "".join(chunk.text for chunk in model.stream(PROMPT, config))
    return 1


def _stream_v3(model: Any, config: Config) -> int:
    assert list(model.stream_events(PROMPT, config, version="v3"))
    return 1


def _generate(model: Any, config: Config) -> int:
    callbacks = (config or {}).get("callbacks")
    prompts = [[HumanMessage("a")], [HumanMessage("b")]]
    assert len(model.generate(prompts, callbacks=callbacks).generations) == 2
    return 2


async def _ainvoke(model: Any, config: Config) -> int:
    assert (await model.ainvoke(PROMPT, config)).content
    return 1


async def _abatch(model: Any, config: Config) -> int:
    assert len(await model.abatch([PROMPT] * 3, config)) == 3
    return 3


async def _abatch_as_completed(model: Any, config: Config) -> int:
    assert len([result async for result in model.abatch_as_completed([PROMPT] * 3, config)]) == 3
    return 3


async def _astream(model: Any, config: Config) -> int:
    assert "".join([chunk.text async for chunk in model.astream(PROMPT, config)])
    return 1


async def _events_v2(model: Any, config: Config) -> int:
    names = [event["event"] async for event in model.astream_events(PROMPT, config, version="v2")]
    assert names[-1] == "on_chat_model_end"
    return 1


async def _events_v3(model: Any, config: Config) -> int:
    stream = await model.astream_events(PROMPT, config, version="v3")
    assert [event async for event in stream]
    return 1


async def _in_parallel(model: Any, config: Config) -> int:
    await asyncio.gather(*(model.ainvoke(PROMPT, config) for _ in range(3)))
    return 3


SYNC: dict[str, Callable[[Any, Config], int]] = {
    "invoke": _invoke,
    "batch": _batch,
    "stream": _stream,
    "stream_events v3": _stream_v3,
    "generate": _generate,
}
ASYNC: dict[str, Callable[[Any, Config], Awaitable[int]]] = {
    "ainvoke": _ainvoke,
    "abatch": _abatch,
    "abatch_as_completed": _abatch_as_completed,
    "astream": _astream,
    "astream_events v2": _events_v2,
    "astream_events v3": _events_v3,
    "in parallel": _in_parallel,
}
WAYS = [*SYNC, *ASYNC]


async def call(way: str, chat: Any, config: Config = None) -> int:
    """Call a model; return how many calls that should have been. Sync ways run in a thread, as in a program."""
    if way in ASYNC:
        return await ASYNC[way](chat, config)
    return await asyncio.to_thread(SYNC[way], chat, config)


def calling(*handlers: BaseCallbackHandler) -> Any:
    """The configuration of a call."""
    return {"callbacks": list(handlers)}
