"""How long the event loop is kept from others: `python -m tests.adapters.langchain.bench_loop`.

200 calls at once, as LangChain makes them, and limited to 20 in flight. A ticker notes how late it is called: all calls
begin in one turn of the loop, so what LangChain and the SDK do before they first wait is in every line, the bare one
too. `ours` is the longest that one call keeps the loop for what we do before it may wait, or to settle it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from agent_rate_limiter.engine.engine import Engine
from agent_rate_limiter.testing.simulated import SimulatedProvider
from agent_rate_limiter_adapters.langchain import RateLimitCallbackHandler, callbacks, chat, rate_limited
from tests.adapters.langchain.calls import PROMPT
from tests.adapters.langchain.models import MODEL, SIMULATED, limiter_of, openai_at

CALLS = 200
ours: list[float] = []


def _timed(function: Any) -> Any:
    def timed(*args: Any, **options: Any) -> Any:
        begun = time.perf_counter()
        try:
            return function(*args, **options)
        finally:
            ours.append(time.perf_counter() - begun)

    return timed


TICK = 0.001


async def _tick(late: list[float]) -> None:
    while True:
        begun = time.perf_counter()
        await asyncio.sleep(TICK)
        late.append(time.perf_counter() - begun - TICK)


async def _measure(name: str, model: Any, config: Any) -> None:
    late: list[float] = []
    ours.clear()
    ticker = asyncio.create_task(_tick(late))
    begun = time.perf_counter()
    await model.abatch([PROMPT] * CALLS, config)
    took = time.perf_counter() - begun
    ticker.cancel()
    late.sort()
    worst, usual = 1000 * late[-1], 1000 * late[len(late) * 99 // 100]
    own = f"{1000 * max(ours):8.2f} ms ours" if ours else ""
    sys.stdout.write(f"{name:<10} {took:6.2f} s {worst:8.1f} ms at worst {usual:8.1f} ms in 99 of 100 {own}\n")


async def main() -> None:
    """Measure each, after a warm-up."""
    chat.Terms.maker = _timed(chat.Terms.maker)  # type: ignore[method-assign]
    callbacks._Limits.call_of = _timed(callbacks._Limits.call_of)  # type: ignore[method-assign]
    Engine.reserve = _timed(Engine.reserve)  # type: ignore[method-assign]
    Engine.settle = _timed(Engine.settle)  # type: ignore[method-assign]
    with SimulatedProvider({MODEL: {**SIMULATED, "latency": 0.02}}) as provider:
        model = openai_at(provider, max_retries=0)
        await model.abatch([PROMPT] * 20)
        limiter = limiter_of(concurrency=20)
        await _measure("bare", model, None)
        await _measure("wrapper", rate_limited(model, limiter), None)
        await _measure("callback", model, {"callbacks": [RateLimitCallbackHandler(limiter)]})


if __name__ == "__main__":
    asyncio.run(main())
