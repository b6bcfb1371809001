"""The least that could do the job, written for speed: what every contender is compared with.

The two share no code, as one call more would make the floor slower, and us look better.
"""

from __future__ import annotations

import asyncio
from threading import Lock
from time import monotonic


class TwoBuckets:
    """Requests and tokens per minute under one lock; what was reserved too much can be given back."""

    def __init__(self, rpm: float, tpm: float) -> None:
        self._lock = Lock()
        self._rpm, self._tpm = rpm, tpm
        self._requests_per_second, self._tokens_per_second = rpm / 60, tpm / 60
        self._requests, self._tokens = rpm, tpm
        self._at = monotonic()

    def acquire(self, tokens: int) -> bool:
        """Take one request and its tokens, if there is room."""
        with self._lock:
            now = monotonic()
            passed = now - self._at
            requests = self._requests + passed * self._requests_per_second
            if requests > self._rpm:  # noqa: PLR1730 - min() is slower
                requests = self._rpm
            left = self._tokens + passed * self._tokens_per_second
            if left > self._tpm:  # noqa: PLR1730
                left = self._tpm
            if requests < 1 or left < tokens:
                return False
            self._at = now
            self._requests = requests - 1
            self._tokens = left - tokens
            return True

    def settle(self, unused: int) -> None:
        """Give tokens back; the next call to come sees to it that they do not overflow."""
        with self._lock:
            self._tokens += unused


class AsyncTwoBuckets:
    """The same for tasks of one event loop."""

    def __init__(self, rpm: float, tpm: float) -> None:
        self._lock = asyncio.Lock()
        self._rpm, self._tpm = rpm, tpm
        self._requests_per_second, self._tokens_per_second = rpm / 60, tpm / 60
        self._requests, self._tokens = rpm, tpm
        self._at = monotonic()

    async def acquire(self, tokens: int) -> bool:
        """Take one request and its tokens, if there is room."""
        async with self._lock:
            now = monotonic()
            passed = now - self._at
            requests = self._requests + passed * self._requests_per_second
            if requests > self._rpm:  # noqa: PLR1730
                requests = self._rpm
            left = self._tokens + passed * self._tokens_per_second
            if left > self._tpm:  # noqa: PLR1730
                left = self._tpm
            if requests < 1 or left < tokens:
                return False
            self._at = now
            self._requests = requests - 1
            self._tokens = left - tokens
            return True

    async def settle(self, unused: int) -> None:
        """Give tokens back."""
        async with self._lock:
            self._tokens += unused
