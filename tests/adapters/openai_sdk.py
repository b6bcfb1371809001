"""OpenAI's own SDK, whichever version is installed: its clients, and calls to make with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from agent_rate_limiter.testing.simulated import SimulatedProvider
from tests.adapters.support import MODEL

QUESTION: Any = [{"role": "user", "content": "Why is the sky blue?"}]
SDK_LIBRARIES = ["httpx", "httpx2"] if int(openai.__version__.split(".")[0]) >= 3 else ["httpx"]
"""The HTTP libraries whose clients the installed SDK takes."""


opened: list[Any] = []
"""The sync clients of a test, to be closed after it."""


def client_of(kind: Callable[..., Any], provider: SimulatedProvider, **options: Any) -> Any:
    client = kind(base_url=provider.openai_url, api_key="sk-test", **options)
    if isinstance(client, OpenAI):
        opened.append(client)
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
