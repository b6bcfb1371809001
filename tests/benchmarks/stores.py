"""Acquire and settle on Redis and SQLite, beside bare scripts and other libraries on the same server and file."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import redis
import redis.asyncio as redis_async

from agent_rate_limiter import Limit, RateLimiter, Resource, Scope
from agent_rate_limiter.stores.redis import store as ours
from tests.benchmarks.ledger import bare_of_both, books_on_one_file
from tests.benchmarks.measure import progress
from tests.benchmarks.peers import token_throttle_limits
from tests.benchmarks.report import Goal, Report, Table
from tests.contract.opened import server

ABOUT = "acquire + settle on one server: one at a time, and with 100 tasks in flight; wall-clock time, in turns"
BOTH, BARE_OF_BOTH = "limits, a budget and books on one SQLite file", "two bare transactions of the same rows"
RPM, TPM, TOKENS = 10**7, 10**9, 1_200
TASKS = 100
LEASE = 400_000
"""Tokens of 333 calls."""
BARE = """
local debt, last = unpack(cmsgpack.unpack(redis.call('GET', KEYS[1]) or cmsgpack.pack({ 0, 0 })))
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
debt = math.max(0, debt - (now - last) * ARGV[2]) + ARGV[1]
if debt > 1e15 then return -1 end
redis.call('SET', KEYS[1], cmsgpack.pack({ debt, now }), 'PX', 60000)
return debt
"""
"""The least that a token bucket in a script can be: one limit, no queue, no lease, nothing to settle."""


def run(*, quick: bool) -> Report:
    """Measure everything in turns."""
    report = Report("stores", ABOUT)
    rounds, calls = (5, 150) if quick else (15, 500)
    one_by_one(report, rounds, calls)
    asyncio.run(in_flight(report, rounds, 20 if quick else 60))
    scopes(report, 20_000 if quick else 1_000_000)
    report.notes += [
        "the same script: two EVALSHAs of what our own batches send, from a bare redis-py; a bare bucket: two of a",
        "script of six lines that keeps one bucket. Ours keeps a gate, two limits, order among processes and leases.",
        "token-throttle (which needs Python 3.12) is left out where it is not installed.",
        "One at a time, a settlement travels with the next call's batch; nobody waits for it.",
    ]
    return report


# -- one at a time ---------------------------------------------------------------------------------------------


def one_by_one(report: Report, rounds: int, calls: int) -> None:
    """Time pairs of round trips in one thread."""
    folder = Path(tempfile.mkdtemp())
    names: dict[str, Callable[[], object]] = {}
    limiter = RateLimiter(rpm=RPM, tpm=TPM, store=f"{server('redis').uri}?namespace=bench", ledger="memory://")
    names["ours, Redis"] = lambda: limiter.acquire(input_tokens=TOKENS).settle()
    few, many = leasing(20_000), leasing(LEASE)
    names["ours, Redis, lease_tokens=20_000"] = lambda: few.acquire(input_tokens=TOKENS).settle()
    names[f"ours, Redis, lease_tokens={LEASE:_}"] = lambda: many.acquire(input_tokens=TOKENS).settle()
    names["the same script, twice"] = same_script(limiter)
    names["a bare bucket, twice"] = bare_bucket()
    file = RateLimiter(rpm=RPM, tpm=TPM, store=f"sqlite:///{folder / 'limits.db'}", ledger="memory://")
    names["ours, SQLite"] = lambda: file.acquire(input_tokens=TOKENS).settle()
    both = books_on_one_file(folder / "both.db")
    names[BOTH] = lambda: both(1)
    least = bare_of_both(folder / "bare.db")
    names[BARE_OF_BOTH] = lambda: least(1)
    names.update(peers(server("redis").port))
    names.update(token_throttle(server("redis").port, folder))
    found = in_turns(names, rounds, calls)
    raw, bare = found["the same script, twice"], found["a bare bucket, twice"]
    rows: list[list[str | float | None]] = [
        [name, median(times) * 1e6, times_of(times, raw), times_of(times, bare)] for name, times in found.items()
    ]
    columns = {"one at a time": "", "µs": ",.0f", "x the same script": ".2f", "x a bare bucket": ".2f"}
    report.tables.append(Table("acquire + settle (others: what they have for RPM + TPM)", columns, rows))
    ratio = times_of(found["ours, Redis"], raw)
    report.goals.append(Goal("acquire + settle on Redis, beside two raw EVALSHAs of the same script", ratio, 1.5))
    ratio = times_of(found[BOTH], found[BARE_OF_BOTH])
    report.goals.append(Goal("limits and books on one SQLite file, beside two bare transactions", ratio, 2))


def leasing(tokens: int) -> RateLimiter:
    """Return a limiter that serves calls from slices, half as large as that."""
    uri = f"{server('redis').uri}?namespace=lease-{tokens}"
    return RateLimiter(rpm=RPM, tpm=TPM, store=uri, ledger="memory://", lease_tokens=tokens)


def same_script(limiter: RateLimiter) -> Callable[[], object]:
    """Return what sends two of our own batches from a bare client."""
    sent: list[tuple[list[str], str]] = []
    original = ours._evaluate

    def spy(client: Any, name: str, keys: list[str], arguments: list[Any]) -> Any:
        sent.append((keys, arguments[0]))
        return original(client, name, keys, arguments)

    ours._evaluate = spy
    for _ in range(20):
        limiter.acquire(input_tokens=TOKENS).settle()
    ours._evaluate = original
    keys, batch = next((keys, json.loads(text)) for keys, text in reversed(sent) if '"sr"' in text)  # settle, reserve
    client: Any = redis.Redis(port=server("redis").port)
    digest = ours._script("step.lua")[1]
    number = count(10**9)

    def twice() -> None:
        for _ in range(2):
            batch[0] = next(number)  # else it is taken for a repetition
            client.execute_command("EVALSHA", digest, len(keys), *keys, json.dumps(batch))

    return twice


def bare_bucket() -> Callable[[], object]:
    """Return what runs a script of six lines, twice."""
    client: Any = redis.Redis(port=server("redis").port)
    digest = client.script_load(BARE)

    def twice() -> None:
        client.execute_command("EVALSHA", digest, 1, "bare", 1, 1)
        client.execute_command("EVALSHA", digest, 1, "bare", 1, 1)

    return twice


def token_throttle(port: int, folder: Path) -> dict[str, Callable[[], object]]:
    """Return what token-throttle does, which reserves and refunds as we do; nothing before Python 3.12."""
    if find_spec("token_throttle") is None:
        return {}
    throttle: Any = import_module("token_throttle")
    client: Any = redis.Redis(port=port, db=4)

    def pair(builder: Any) -> Callable[[], object]:
        limiter = throttle.SyncRateLimiter(token_throttle_limits(), backend=builder)

        def settled() -> None:
            taken = limiter.acquire_capacity({"requests": 1, "tokens": TOKENS}, "gpt-4")
            limiter.refund_capacity({"requests": 1, "tokens": TOKENS - 100}, taken)

        return settled

    return {
        "token-throttle, Redis": pair(throttle.SyncRedisBackendBuilder(client, key_prefix="bench")),
        "token-throttle, SQLite": pair(throttle.SyncSqliteBackendBuilder(folder / "throttle.db", key_prefix="bench")),
    }


def peers(port: int) -> dict[str, Callable[[], object]]:
    """Return what other libraries do for RPM + TPM on the same Redis."""
    limits: Any = import_module("limits")
    storage: Any = import_module("limits.storage").RedisStorage(f"redis://127.0.0.1:{port}/1")
    moving: Any = import_module("limits.strategies").SlidingWindowCounterRateLimiter(storage)
    rpm, tpm = limits.RateLimitItemPerMinute(RPM), limits.RateLimitItemPerMinute(TPM, namespace="tpm")

    def with_limits() -> None:
        moving.hit(rpm, "gpt-4")
        moving.hit(tpm, "gpt-4", cost=TOKENS)

    found: dict[str, Callable[[], object]] = {"limits (two sliding counters)": with_limits}
    throttled: Any = import_module("throttled")
    quota = {"using": "gcra", "store": throttled.RedisStore(server=f"redis://127.0.0.1:{port}/2")}
    requests = throttled.Throttled(key="rpm", quota=throttled.rate_limiter.per_min(10**6, burst=10**6), **quota)
    tokens = throttled.Throttled(key="tpm", quota=throttled.rate_limiter.per_min(10**9, burst=10**9), **quota)

    def with_throttled() -> None:
        requests.limit()
        tokens.limit(cost=TOKENS)

    found["throttled-py (two GCRAs)"] = with_throttled
    pyrate: Any = import_module("pyrate_limiter")
    client = redis.Redis(port=port, db=3)
    bucket = pyrate.RedisBucket.init([pyrate.Rate(RPM, pyrate.Duration.MINUTE)], client, "bench")
    gate = pyrate.Limiter(bucket)
    found["pyrate-limiter (requests alone)"] = lambda: gate.try_acquire("gpt-4")
    return found


# -- in flight -------------------------------------------------------------------------------------------------


class Coalesced:
    """Commands that go out together, once per tick of the event loop."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._waiting: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    def __call__(self, *command: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, future))
        if self._task is None:
            self._task = asyncio.ensure_future(self._flush())
        return future

    async def _flush(self) -> None:
        while self._waiting:
            sent, self._waiting = self._waiting, []
            pipeline = self._client.pipeline(transaction=False)
            for command, _ in sent:
                pipeline.execute_command(*command)
            for (_, future), answer in zip(sent, await pipeline.execute(), strict=True):
                future.set_result(answer)
        self._task = None


async def in_flight(report: Report, rounds: int, each: int) -> None:
    """Count operations per second with many tasks at once; a pair of ours is two."""
    uri = f"{server('redis').uri}?namespace=bench"
    limiter = RateLimiter(rpm=RPM, tpm=TPM, store=uri, ledger="memory://")
    many = leasing(LEASE)
    client: Any = redis_async.Redis(port=server("redis").port)
    call = Coalesced(client)
    digest = await client.script_load(BARE)

    async def pair() -> None:
        (await limiter.acquire_async(input_tokens=TOKENS)).settle()

    async def sliced() -> None:
        (await many.acquire_async(input_tokens=TOKENS)).settle()
        await asyncio.sleep(0)  # where nobody waits, the other tasks had no turn

    async def bare() -> None:
        await call("EVALSHA", digest, 1, "bare", 1, 1)
        await call("EVALSHA", digest, 1, "bare", 1, 1)

    await pair()
    works = {
        "ours, Redis": pair,
        "bare buckets, coalesced per tick": bare,
        f"ours, Redis, lease_tokens={LEASE:_}": sliced,
    }
    rates: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        progress(f"in flight, round {number + 1} of {rounds}")
        for name, work in works.items():
            rates[name].append(await _rate(work, each))
    await client.aclose()
    mine, bares, _ = rates.values()
    share = median(a / b for a, b in zip(mine, bares, strict=True))
    columns = {f"{TASKS} tasks": "", "operations/s": ",.0f"}
    report.tables.append(Table("throughput", columns, [[name, median(found)] for name, found in rates.items()]))
    report.goals.append(Goal(f"{TASKS} tasks in flight, beside bare buckets coalesced", share, 0.8, at_least=True))


async def _rate(work: Callable[[], Awaitable[None]], each: int) -> float:
    async def task() -> None:
        for _ in range(each):
            await work()

    start = time.perf_counter()
    await asyncio.gather(*(task() for _ in range(TASKS)))
    return 2 * TASKS * each / (time.perf_counter() - start)


# -- many scopes -----------------------------------------------------------------------------------------------


def scopes(report: Report, most: int) -> None:
    """Draw on a limit of its own for every caller, and see what one more costs."""
    limit = Limit(Resource.REQUESTS, 10, "minute", scope=Scope(user="each"))
    limiter = RateLimiter(limit, store=f"{server('redis').uri}?namespace=scopes", ledger="memory://")
    client: Any = redis.Redis(port=server("redis").port)
    rows: list[list[str | float | None]] = []
    done = most // 10
    asyncio.run(_draw(limiter, 0, done))  # until the collector's rounds have found their pace
    before = client.info("memory")["used_memory"]
    for target in (most // 5, most // 2, most):
        progress(f"{target:,} scopes")
        start = time.perf_counter()
        asyncio.run(_draw(limiter, done, target))
        seconds = time.perf_counter() - start
        used = client.info("memory")["used_memory"]
        rows.append([f"{target:,}", seconds / (target - done) * 1e6, (used - before) / (target - done)])
        done, before = target, used
    columns = {"scopes": "", "µs each": ",.0f", "bytes each in Redis": ",.0f"}
    report.tables.append(Table("a limit of its own for every caller", columns, rows))
    first, last = rows[0], rows[-1]
    report.goals += [
        Goal(f"a call among {most:,} scopes, beside one among {most // 5:,}", float(last[1]) / float(first[1]), 1.5),  # type: ignore[arg-type]
        Goal("memory per scope, beside the same", float(last[2]) / float(first[2]), 1.5),  # type: ignore[arg-type]
    ]


async def _draw(limiter: RateLimiter, start: int, end: int) -> None:
    numbers = iter(range(start, end))

    async def task() -> None:
        for number in numbers:
            with limiter.scope(user=str(number)):
                (await limiter.acquire_async()).settle()

    await asyncio.gather(*(task() for _ in range(TASKS)))


# -- helpers ---------------------------------------------------------------------------------------------------


def in_turns(names: dict[str, Callable[[], object]], rounds: int, calls: int) -> dict[str, list[float]]:
    """Return seconds per call, one number for each round."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        progress(f"one at a time, round {number + 1} of {rounds}")
        for name, call in names.items():
            call()
            start = time.perf_counter()
            for _ in range(calls):
                call()
            found[name].append((time.perf_counter() - start) / calls)
    return found


def times_of(mine: list[float], theirs: list[float]) -> float:
    """Return how many times as long it takes, compared round by round."""
    return median(a / b for a, b in zip(mine, theirs, strict=True))
