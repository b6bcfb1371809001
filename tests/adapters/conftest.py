"""Fixtures for the adapters' tests."""

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
