"""Calls that stand in line on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from agent_rate_limiter import RateLimiter
from agent_rate_limiter.testing import ManualClock, run_virtual


class Line:
    """Calls that note when they were served."""

    def __init__(self, limiter: RateLimiter, clock: ManualClock) -> None:
        self.limiter = limiter
        self.clock = clock
        self.start = clock.now()
        self.served: list[str] = []
        self.at: dict[str, float] = {}

    async def call(self, name: str, *, after: float = 0, agent: str = "", hold: float = 0, **options: Any) -> None:
        await asyncio.sleep(after)
        labels: dict[str, Any] = {"agent": agent} if agent else {}
        with self.limiter.scope(**labels):
            async with self.limiter.reserve(**options):
                self.served.append(name)
                self.at[name] = (self.clock.now() - self.start) / 1000
                await asyncio.sleep(hold)

    def run(self, *calls: Coroutine[Any, Any, None]) -> list[str]:
        async def main() -> None:
            await asyncio.gather(*calls)

        run_virtual(main(), self.clock)
        return self.served
