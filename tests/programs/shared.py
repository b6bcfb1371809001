"""Many processes draw on one limit; run as `python -m tests.programs.shared` it is one of them.

Each worker makes calls as fast as it is let, for a while, and writes down when each was admitted.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from agent_rate_limiter import Estimate, Limit, LimitExceeded, RateLimiter, StoreUnavailable, Usage

_KEY = {"Authorization": "Bearer sk-test"}


@dataclass
class Worker:
    """One process.

    Args:
        uri: the store.
        log: where it writes a line for each call: "+ seconds" at its admission, "- seconds" at its end.
        limit: `Limit`'s arguments, or several limits'.
        seconds: for how long.
        tasks: how many callers.
        holding: seconds that each call lasts.
        options: the limiter's.
        provider: where each call is sent, if anywhere: a simulated OpenAI's address.
        go: a file to wait for, so that all begin together.
        cost: dollars that each call reserves; "$ dollars" says what it spent, before it is settled, and "=" follows
            when its settlement is acknowledged.
        saving: each second call spends a quarter of what it reserved.
    """

    uri: str
    log: str
    limit: dict[str, Any] | list[dict[str, Any]]
    seconds: float = 2.0
    tasks: int = 4
    holding: float = 0.0
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    provider: str = ""
    go: str = ""
    cost: float = 0.0
    saving: bool = False

    def start(self) -> subprocess.Popen[bytes]:
        """Start it."""
        return subprocess.Popen([sys.executable, "-m", "tests.programs.shared", json.dumps(vars(self))])

    def start_and_kill(self, after: int) -> None:
        """Start it, and kill it once so many of its calls were admitted."""
        process = self.start()
        patience = time.monotonic() + 20
        while len(admitted(self.log)) < after:
            assert time.monotonic() < patience
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def work(self) -> None:
        """Make calls until time is up."""
        several = self.limit if isinstance(self.limit, list) else [self.limit]
        limits = [Limit(**limit) for limit in several]
        limiter = RateLimiter(limits, target="openai:gpt-4", store=self.uri, **self.options)
        if self.provider:
            import httpx

            limiter.wrap(httpx.AsyncClient())  # all of it is loaded before anybody begins
        with Path(self.log).open("a", encoding="utf-8", buffering=1) as log:
            log.write("ready\n")
            while self.go and not Path(self.go).exists():
                time.sleep(0.01)
            asyncio.run(self._calls(limiter, log))

    async def _calls(self, limiter: RateLimiter, log: Any) -> None:
        end = time.time() + self.seconds
        if self.provider:
            await self._send(limiter, log)
        else:
            await asyncio.gather(*(self._call(limiter, log, end) for _ in range(self.tasks)))

    async def _send(self, limiter: RateLimiter, log: Any) -> None:
        """Call the provider through a wrapped client, as users do: what it says is heard."""
        import httpx

        body = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}

        async def caller(client: httpx.AsyncClient) -> None:
            while time.time() < end:
                answer = await client.post(f"{self.provider}/chat/completions", json=body, headers=_KEY)
                log.write(f"+ {time.time():.3f} {answer.status_code}\n")

        async with limiter.wrap(httpx.AsyncClient(timeout=60)) as client:
            end = time.time() + self.seconds
            await asyncio.gather(*(caller(client) for _ in range(self.tasks)))

    async def _call(self, limiter: RateLimiter, log: Any, end: float) -> None:
        shares = cycle((0.25, 1.0) if self.saving else (1.0,))
        while (left := end - time.time()) > 0:
            try:
                async with limiter.reserve(Estimate(cost=self.cost), timeout=left) as call:
                    log.write(f"+ {call._hold.taken_at / 1000:.3f} {os.getpid()}\n")  # by the clock that counts
                    if self.holding:
                        await asyncio.sleep(self.holding)
                    log.write(f"- {time.time() // 0.001 / 1000:.3f} {os.getpid()}\n")  # before its slot comes back
                    spent = self.cost * next(shares)
                    log.write(f"$ {spent:.4f} {os.getpid()}\n")
                    call.settle(Usage(cost=spent))
                log.write(f"= {time.time():.3f} {os.getpid()}\n")
            except LimitExceeded:
                return
            except StoreUnavailable:
                log.write(f"! {time.time():.4f} {os.getpid()}\n")
                await asyncio.sleep(0.05)


def run(workers: Sequence[Worker], patience: float = 60) -> list[float]:
    """Run workers together, from when all are there; return when each call was admitted, in order."""
    go = Path(f"{workers[0].log}.go")
    for worker in workers:
        worker.go = str(go)
    running = [worker.start() for worker in workers]
    try:
        deadline = time.monotonic() + patience
        while not all(_ready(worker.log) for worker in workers):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        go.touch()
        for process in running:
            assert process.wait(timeout=patience) == 0
    finally:
        for process in running:
            process.kill()
    return sorted(moment for worker in workers for moment in admitted(worker.log))


def _ready(log: str) -> bool:
    path = Path(log)
    return path.exists() and path.stat().st_size > 0


def admitted(log: str, mark: str = "+") -> list[float]:
    """Return the moments in a log."""
    path = Path(log)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [float(line.split()[1]) for line in lines if line.startswith(f"{mark} ")]


def most_at_once(logs: Sequence[str]) -> int:
    """Return how many calls were in flight together, at most."""
    events = [(m, 1) for log in logs for m in admitted(log)] + [(m, -1) for log in logs for m in admitted(log, "-")]
    most = now = 0
    for _, change in sorted(events):
        now += change
        most = max(most, now)
    return most


def worst_excess(moments: Sequence[float], burst: int, per_second: float) -> float:
    """Return by how many calls any window holds more than burst + refill; at most 0 if the limit was kept.

    Args:
        moments: of admission, as the processes noted them, in order.
        burst: calls that may come at once.
        per_second: calls that may follow each second.
    """
    worst = float("-inf")
    debt = 0.0
    last = moments[0] if moments else 0.0
    for moment in moments:
        debt = max(0.0, debt - (moment - last) * per_second) + 1
        last = moment
        worst = max(worst, debt - burst)
    return worst


def slowest_share(logs: Sequence[str]) -> tuple[int, int]:
    """Return the fewest and the most calls of any process."""
    counts = [len(admitted(log)) for log in logs]
    return min(counts), max(counts)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    Worker(**json.loads(sys.argv[1])).work()
