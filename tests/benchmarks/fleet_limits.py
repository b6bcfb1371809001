"""How each library lets a process share requests and tokens with others, and a worker that calls by it.

`python -m tests.benchmarks.fleet_limits JSON` is one process of a fleet: threads that call a simulated provider through
the OpenAI SDK for a while, and a line of JSON on what came of it. Every library is used as its documentation says for
several processes: the state in Redis, waiting for room.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from openai import OpenAI, RateLimitError

from agent_rate_limiter import Limit, RateLimiter

MODEL = "gpt-4"
REQUESTS, TOKENS = 600, 300_000
"""A minute."""
THREADS = 4
_TEXT = 'Agents wait; limits (requests, tokens, dollars) tell "when", "how long" - and why. '
"""What the simulated provider, which counts four characters as a token, counts as our estimates do. Others are told."""
Admitted = Callable[[int], Any]
"""Waits until a call of so many tokens may be sent; what it returns is a context for the call."""


@dataclass
class Member:
    """One process.

    Args:
        library: a name in `LIBRARIES`.
        redis: the port of the server that holds the limits.
        provider: the simulated OpenAI's address.
        number: of the process, from 0.
        seconds: for how long.
        go: a file to wait for, so that all begin together.
    """

    library: str
    redis: int
    provider: str
    number: int
    seconds: float
    go: str

    def work(self) -> dict[str, int]:
        """Return how many calls were answered, and how many failed."""
        plain = OpenAI(base_url=self.provider, api_key="any", timeout=60)
        client, admitted = LIBRARIES[self.library](self.redis, plain)
        Path(f"{self.go}.{self.number}").touch()
        while not Path(self.go).exists():
            time.sleep(0.01)
        end = time.monotonic() + self.seconds
        with ThreadPoolExecutor(THREADS) as threads:
            found = [
                threads.submit(self._call_until, end, client, admitted, random.Random(THREADS * self.number + thread))
                for thread in range(THREADS)
            ]
        done, failed = (sum(counts) for counts in zip(*(future.result() for future in found), strict=True))
        return {"done": done, "failed": failed}

    def _call_until(self, end: float, client: Any, admitted: Admitted, sizes: random.Random) -> tuple[int, int]:
        done = failed = 0
        while time.monotonic() < end:
            text, most = _TEXT * sizes.choice((3, 10, 30, 90)), sizes.choice((20, 60, 200))
            question = [{"role": "user", "content": text}]
            try:
                with admitted(max(len(text) // 4, most)):  # as OpenAI counts
                    client.chat.completions.create(model=MODEL, messages=question, max_tokens=most)
                done += 1
            except RateLimitError:
                failed += 1
        return done, failed


def ours(port: int, plain: OpenAI) -> tuple[Any, Admitted]:
    """Wrap the client; the limits stand in Redis."""
    limits = [Limit("requests", REQUESTS, per="minute"), Limit("tokens", TOKENS, per="minute", counts="max_tokens")]
    limiter = RateLimiter(limits, target=f"openai:{MODEL}", store=f"redis://127.0.0.1:{port}/0")
    return limiter.wrap(plain), lambda _: nullcontext()


def the_sdk_alone(_: int, plain: OpenAI) -> tuple[Any, Admitted]:
    """Nobody waits: the SDK retries twice."""
    return plain, lambda _: nullcontext()


def with_limits(port: int, plain: OpenAI) -> tuple[Any, Admitted]:
    """Use limits' sliding counter; it says when to come back, and leaves the waiting to its user."""
    limits: Any = import_module("limits")
    storage = import_module("limits.storage").RedisStorage(f"redis://127.0.0.1:{port}/1")
    window = import_module("limits.strategies").SlidingWindowCounterRateLimiter(storage)
    requests = limits.RateLimitItemPerMinute(REQUESTS)
    tokens = limits.RateLimitItemPerMinute(TOKENS, namespace="tokens")

    def admitted(needed: int) -> Any:
        for item, cost in ((requests, 1), (tokens, needed)):
            while not window.hit(item, MODEL, cost=cost):
                time.sleep(max(0.005, window.get_window_stats(item, MODEL).reset_time - time.time()))
        return nullcontext()

    return plain, admitted


def with_throttled(port: int, plain: OpenAI) -> tuple[Any, Admitted]:
    """Use throttled-py's default, the token bucket, which waits up to a timeout."""
    throttled: Any = import_module("throttled")
    store = throttled.RedisStore(server=f"redis://127.0.0.1:{port}/2")
    per_min = throttled.rate_limiter.per_min
    requests = throttled.Throttled(key="requests", quota=per_min(REQUESTS), store=store, timeout=60)
    tokens = throttled.Throttled(key="tokens", quota=per_min(TOKENS), store=store, timeout=60)

    def admitted(needed: int) -> Any:
        requests.limit()
        tokens.limit(cost=needed)
        return nullcontext()

    return plain, admitted


def with_pyrate(port: int, plain: OpenAI) -> tuple[Any, Admitted]:
    """Use pyrate-limiter's token bucket for both, which waits."""
    pyrate: Any = import_module("pyrate_limiter")
    stores: Any = import_module("pyrate_limiter.buckets.redis_state")
    client = import_module("redis").Redis(port=port, db=3)

    def limiter(name: str, most: int) -> Any:
        bucket = pyrate.StateBucket(
            [pyrate.Rate(most, pyrate.Duration.MINUTE)],
            algorithm=pyrate.TokenBucket(),
            store=stores.RedisStateStore(client, name),
        )
        return pyrate.Limiter(bucket)

    requests, tokens = limiter("requests", REQUESTS), limiter("tokens", TOKENS)

    def admitted(needed: int) -> Any:
        requests.try_acquire(MODEL)
        tokens.try_acquire(MODEL, needed)
        return nullcontext()

    return plain, admitted


def with_token_throttle(port: int, plain: OpenAI) -> tuple[Any, Admitted]:
    """Use token-throttle, which takes both at once, and waits."""
    throttle: Any = import_module("token_throttle")
    client = import_module("redis").Redis(port=port, db=4)
    rates = {"requests": REQUESTS, "tokens": TOKENS}
    quotas = [throttle.Quota(metric=metric, limit=limit) for metric, limit in rates.items()]
    config = throttle.PerModelConfig(quotas=throttle.UsageQuotas(quotas))
    limiter = throttle.SyncRateLimiter(config, backend=throttle.SyncRedisBackendBuilder(client, key_prefix="fleet"))

    @contextmanager
    def admitted(needed: int) -> Iterator[None]:
        usage = {"requests": 1, "tokens": needed}
        reservation = limiter.acquire_capacity(usage, MODEL)
        yield
        limiter.refund_capacity(usage, reservation)

    return plain, admitted


LIBRARIES: dict[str, Callable[[int, OpenAI], tuple[Any, Admitted]]] = {
    "ours": ours,
    "the SDK's own retries": the_sdk_alone,
    "limits": with_limits,
    "throttled-py": with_throttled,
    "pyrate-limiter": with_pyrate,
    "token-throttle": with_token_throttle,
}

if __name__ == "__main__":
    print(json.dumps(Member(**json.loads(sys.argv[1])).work()))
