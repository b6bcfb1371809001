"""A provider on virtual time: an independent bucket that admits, refuses, and states what it likes to state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from agent_rate_limiter import Estimate, MultiProviderLimiter, Resource, Usage
from agent_rate_limiter.limits import Target
from agent_rate_limiter.providers import Failure, FailureKind, Quota
from agent_rate_limiter.testing import ManualClock


@dataclass
class Bucket:
    """Floating point, so that it shares nothing with ours."""

    capacity: float
    per_second: float
    level: float = field(init=False)
    at: int = 0

    def __post_init__(self) -> None:
        self.level = self.capacity

    def refill(self, now: int) -> None:
        if self.at:
            self.level = min(self.capacity, self.level + (now - self.at) * self.per_second / 1000)
        self.at = now


class VirtualProvider:
    """Requests per minute, held to a smaller burst, as providers do that enforce "60 RPM as 1 per second"."""

    def __init__(
        self,
        clock: ManualClock,
        *,
        rpm: int = 120,
        burst: int | None = None,
        headers: bool = True,
        told: bool = True,
        exact: bool = True,
        latency: float = 0.05,
        jitter: tuple[float, float] | None = None,
        stated_at_end: bool = False,
    ) -> None:
        self.clock = clock
        self.minute = Bucket(rpm, rpm / 60)
        self.burst = Bucket(burst or rpm, rpm / 60)
        self.headers, self.told, self.exact, self.latency = headers, told, exact, latency
        self.jitter, self.stated_at_end = jitter, stated_at_end
        self.random = Random(1)
        self.sent = 0
        self.admitted: list[int] = []
        self.refused: list[int] = []
        self.failing: Callable[[int], Failure | None] = lambda _: None

    def set_rpm(self, rpm: int) -> None:
        for bucket in (self.minute, self.burst):
            bucket.refill(self.clock.now())
            bucket.capacity = min(bucket.capacity, rpm)
            bucket.level = min(bucket.level, bucket.capacity)
            bucket.per_second = rpm / 60

    def answer(self) -> tuple[Failure | None, list[Quota]]:
        now = self.clock.now()
        failure = self.failing(now)
        if failure is not None:
            self.refused.append(now)
            return failure, []
        for bucket in (self.minute, self.burst):
            bucket.refill(now)
        level = min(self.minute.level, self.burst.level)
        if level >= 1:
            for bucket in (self.minute, self.burst):
                bucket.level -= 1
            self.admitted.append(now)
        else:
            self.refused.append(now)
            failure = self._refusal((1 - level) / self.minute.per_second)
        return failure, self.quotas()

    def quotas(self) -> list[Quota]:
        if not self.headers:
            return []
        self.minute.refill(self.clock.now())
        return [Quota(Resource.REQUESTS, "minute", int(self.minute.capacity), int(self.minute.level))]

    async def way(self) -> None:
        """To the provider or back; the first calls wait for their connections."""
        if self.jitter is None:
            await asyncio.sleep(self.latency / 2)
        else:
            self.sent += 1
            await asyncio.sleep(2.5 * self.jitter[1] if self.sent <= 50 else self.random.uniform(*self.jitter))

    async def work(self) -> None:
        """With jitter, it takes time to answer what was admitted."""
        if self.jitter is not None:
            await asyncio.sleep(self.random.uniform(0.5, 1.5) * self.latency)

    def _refusal(self, wait: float) -> Failure:
        if not self.exact:
            return Failure(FailureKind.WAIT, retry_after=wait if self.told else None, status=429)
        return Failure(FailureKind.WAIT, wait, Resource.REQUESTS, "minute", requested=1, status=429)

    async def call(self, limiter: MultiProviderLimiter, target: Target) -> bool:
        """One logical call, as an adapter makes it: True if it succeeded."""
        attempts = limiter.attempts(target, Estimate())
        while True:
            reservation = await attempts.acquire_async()
            await self.way()
            failure, quotas = self.answer()
            if failure is None:
                await self.work()
                quotas = self.quotas() if self.stated_at_end else quotas
            await self.way()
            reservation.observe(quotas)
            if failure is None:
                reservation.settle(Usage(1, 10, 10))
                return True
            if not attempts.failed(reservation, failure):
                return False
