"""A thousand calls at once against one dollar: `python spend_budget.py STORE threads|tasks CALLS SEED`.

Says "ready", waits for a line, and prints what was really spent, in nano-dollars and counted by the program itself, as
JSON. Several of these processes may share one store.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from agent_rate_limiter import Budget, BudgetExceeded, MultiProviderLimiter, Provider, Reservation, Usage

BUDGET = 1.00
SENT, MOST = 200, 1_000
"""Tokens of each call: input, and `max_tokens`."""
IN, OUT = 2, 8
"""Dollars per million tokens."""


@dataclass
class Count:
    """What happened."""

    spent_nano: int = 0
    served: int = 0
    refused: int = 0
    booked: float = 0.0
    free: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def end(self, call: Reservation, produced: int) -> None:
        """Settle a call with what it really used."""
        call.settle(Usage(1, SENT, produced))
        with self.lock:
            self.served += 1
            self.spent_nano += (SENT * IN + produced * OUT) * 1_000

    def refuse(self) -> None:
        with self.lock:
            self.refused += 1

    def as_json(self) -> str:
        """Everything but the lock."""
        return json.dumps({name: value for name, value in self.__dict__.items() if name != "lock"})


def make_limiter(**options: Any) -> MultiProviderLimiter:
    """One dollar in total, or `budgets`; `options` are the limiter's."""
    model = {"input_per_1m": IN, "output_per_1m": OUT, "rpm": 10**9}
    return MultiProviderLimiter([Provider("p", {"m": model})], **{"budgets": [Budget(BUDGET, "total")], **options})


def plans(calls: int, seed: int) -> list[tuple[int, float]]:
    """Make output tokens and seconds of each call."""
    dice = random.Random(seed)
    return [(dice.randint(0, MOST), dice.uniform(0.001, 0.02)) for _ in range(calls)]


async def call_in_task(limiter: MultiProviderLimiter, count: Count, produced: int, lasts: float) -> None:
    try:
        call = await limiter.acquire_async("p:m", input_tokens=SENT, max_output_tokens=MOST)
    except BudgetExceeded:
        count.refuse()
        return
    await asyncio.sleep(lasts)
    count.end(call, produced)


def call_in_thread(
    limiter: MultiProviderLimiter, count: Count, produced: int, lasts: float, together: threading.Barrier
) -> None:
    together.wait()
    try:
        call = limiter.acquire("p:m", input_tokens=SENT, max_output_tokens=MOST)
    except BudgetExceeded:
        count.refuse()
        return
    time.sleep(lasts)
    count.end(call, produced)


def in_tasks(limiter: MultiProviderLimiter, count: Count, calls: int, seed: int) -> Coroutine[Any, Any, Any]:
    """All calls as tasks of one loop."""

    async def main() -> None:
        await asyncio.gather(*(call_in_task(limiter, count, *plan) for plan in plans(calls, seed)))

    return main()


def in_threads(limiter: MultiProviderLimiter, count: Count, calls: int, seed: int) -> None:
    """Each call in a thread of its own, all of them started before the first calls."""
    together = threading.Barrier(calls)
    threads = [
        threading.Thread(target=call_in_thread, args=(limiter, count, *plan, together)) for plan in plans(calls, seed)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(store: str, kind: str, calls: int, seed: int) -> None:
    """Run, and say what happened."""
    limiter = make_limiter(store=store)
    count = Count()
    print("ready", flush=True)  # noqa: T201 - for whoever starts several
    sys.stdin.readline()
    if kind == "tasks":
        asyncio.run(in_tasks(limiter, count, calls, seed))
    else:
        in_threads(limiter, count, calls, seed)
    count.booked = limiter.costs.total
    count.free = next(limit.available for limit in limiter.snapshot().limits if limit.owner == "budget")
    print(count.as_json())  # noqa: T201 - its answer


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
