"""Other libraries, each as its own documentation recommends it for one process.

They differ in what a call does: none but token-throttle can settle, none of them has a budget. All limits are
far away, so that nothing refuses or waits. Their modules are imported by name, for they need not be installed
where types are checked.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import repeat

RPM, TPM = 10**9, 10**12
RESERVED, USED = 1_200, 1_100
"""Tokens that a call reserves, and uses."""

Entry = tuple[str, Callable[[int], None]]
"""What one call does, and a function that makes so many calls."""
AsyncEntry = tuple[str, Callable[[int], Awaitable[None]]]

THROTTLED, TOKEN_THROTTLE = "throttled-py", "token-throttle"
PAIR, SETTLED = "RPM + TPM", "RPM + TPM, settled"
LIBRARIES = ("aiolimiter", "limits", "pyrate-limiter", THROTTLED, TOKEN_THROTTLE)


def versions() -> dict[str, str | None]:
    """Which of the libraries are installed; None stands for the one that this Python is too old for.

    Raises:
        SystemExit: one that could be installed is not.
    """
    return {library: _version(library) for library in LIBRARIES}


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        if library == TOKEN_THROTTLE and sys.version_info < (3, 12):
            return None
        raise SystemExit(f"{library} is not installed: run `make bench`, or install the group 'bench'.") from None


def limits_sync() -> Iterator[Entry]:
    """limits counts in fixed windows here, its quickest strategy."""
    limits = import_module("limits")
    rpm, tpm = limits.RateLimitItemPerMinute(RPM, namespace="rpm"), limits.RateLimitItemPerMinute(TPM, namespace="tpm")
    hit = import_module("limits.strategies").FixedWindowRateLimiter(import_module("limits.storage").MemoryStorage()).hit

    def alone(calls: int) -> None:
        for _ in repeat(None, calls):
            hit(rpm, "gpt-4")

    def pair(calls: int) -> None:
        for _ in repeat(None, calls):
            hit(rpm, "gpt-4")
            hit(tpm, "gpt-4", cost=RESERVED)

    yield "RPM", alone
    yield PAIR, pair


def limits_async() -> Iterator[AsyncEntry]:
    """As limits_sync."""
    limits = import_module("limits")
    rpm, tpm = limits.RateLimitItemPerMinute(RPM, namespace="rpm"), limits.RateLimitItemPerMinute(TPM, namespace="tpm")
    storage = import_module("limits.aio.storage").MemoryStorage()
    hit = import_module("limits.aio.strategies").FixedWindowRateLimiter(storage).hit

    async def alone(calls: int) -> None:
        for _ in repeat(None, calls):
            await hit(rpm, "gpt-4")

    async def pair(calls: int) -> None:
        for _ in repeat(None, calls):
            await hit(rpm, "gpt-4")
            await hit(tpm, "gpt-4", cost=RESERVED)

    yield "RPM", alone
    yield PAIR, pair


def pyrate_sync() -> Iterator[Entry]:
    """pyrate-limiter counts tokens in its token bucket: the default bucket, used for requests, keeps one entry each."""
    pyrate = import_module("pyrate_limiter")
    rpm = pyrate.Limiter(pyrate.Rate(RPM, pyrate.Duration.MINUTE)).try_acquire
    tokens = pyrate.StateBucket([pyrate.Rate(TPM, pyrate.Duration.MINUTE)], algorithm=pyrate.TokenBucket())
    tpm = pyrate.Limiter(tokens).try_acquire

    def alone(calls: int) -> None:
        for _ in repeat(None, calls):
            rpm("gpt-4")

    def pair(calls: int) -> None:
        for _ in repeat(None, calls):
            rpm("gpt-4")
            tpm("gpt-4", RESERVED)

    yield "RPM", alone
    yield PAIR, pair


def pyrate_async() -> Iterator[AsyncEntry]:
    """As pyrate_sync, with both buckets in the wrapper that the documentation asks for in event loops."""
    pyrate = import_module("pyrate_limiter")
    requests = pyrate.InMemoryBucket([pyrate.Rate(RPM, pyrate.Duration.MINUTE)])
    tokens = pyrate.StateBucket([pyrate.Rate(TPM, pyrate.Duration.MINUTE)], algorithm=pyrate.TokenBucket())
    rpm = pyrate.Limiter(pyrate.BucketAsyncWrapper(requests)).try_acquire_async
    tpm = pyrate.Limiter(pyrate.BucketAsyncWrapper(tokens)).try_acquire_async

    async def alone(calls: int) -> None:
        for _ in repeat(None, calls):
            await rpm("gpt-4")

    async def pair(calls: int) -> None:
        for _ in repeat(None, calls):
            await rpm("gpt-4")
            await tpm("gpt-4", RESERVED)

    yield "RPM", alone
    yield PAIR, pair


def throttled_sync() -> Iterator[Entry]:
    """throttled-py uses its default, the token bucket."""
    throttled = import_module("throttled")
    store, per_min = import_module("throttled.store").MemoryStore(), import_module("throttled.rate_limiter").per_min
    rpm = throttled.Throttled(key="rpm", quota=per_min(RPM), store=store).limit
    tpm = throttled.Throttled(key="tpm", quota=per_min(TPM), store=store).limit

    def alone(calls: int) -> None:
        for _ in repeat(None, calls):
            rpm()

    def pair(calls: int) -> None:
        for _ in repeat(None, calls):
            rpm()
            tpm(cost=RESERVED)

    yield "RPM", alone
    yield PAIR, pair


def throttled_async() -> Iterator[AsyncEntry]:
    """As throttled_sync."""
    throttled, per_min = import_module("throttled.asyncio"), import_module("throttled.rate_limiter").per_min
    store = import_module("throttled.asyncio.store").MemoryStore()
    rpm = throttled.Throttled(key="rpm", quota=per_min(RPM), store=store).limit
    tpm = throttled.Throttled(key="tpm", quota=per_min(TPM), store=store).limit

    async def alone(calls: int) -> None:
        for _ in repeat(None, calls):
            await rpm()

    async def pair(calls: int) -> None:
        for _ in repeat(None, calls):
            await rpm()
            await tpm(cost=RESERVED)

    yield "RPM", alone
    yield PAIR, pair


def aiolimiter_async() -> Iterator[AsyncEntry]:
    """aiolimiter has one leaky bucket, for event loops only."""
    limiter = import_module("aiolimiter").AsyncLimiter
    rpm, tpm = limiter(RPM).acquire, limiter(TPM).acquire

    async def alone(calls: int) -> None:
        for _ in repeat(None, calls):
            await rpm()

    async def pair(calls: int) -> None:
        for _ in repeat(None, calls):
            await rpm()
            await tpm(RESERVED)

    yield "RPM", alone
    yield PAIR, pair


def token_throttle_sync() -> Iterator[Entry]:
    """token-throttle reserves and refunds, as we do."""
    throttle = import_module("token_throttle")
    limiter = throttle.SyncRateLimiter(token_throttle_limits(), backend=throttle.SyncMemoryBackendBuilder())
    acquire, refund = limiter.acquire_capacity, limiter.refund_capacity

    def settled(calls: int) -> None:
        for _ in repeat(None, calls):
            reservation = acquire({"requests": 1, "tokens": RESERVED}, "gpt-4")
            refund({"requests": 1, "tokens": USED}, reservation)

    yield SETTLED, settled


def token_throttle_async() -> Iterator[AsyncEntry]:
    """As token_throttle_sync."""
    throttle = import_module("token_throttle")
    limiter = throttle.RateLimiter(token_throttle_limits(), backend=throttle.MemoryBackendBuilder())
    acquire, refund = limiter.acquire_capacity, limiter.refund_capacity

    async def settled(calls: int) -> None:
        for _ in repeat(None, calls):
            reservation = await acquire({"requests": 1, "tokens": RESERVED}, "gpt-4")
            await refund({"requests": 1, "tokens": USED}, reservation)

    yield SETTLED, settled


def token_throttle_limits() -> object:
    """Return what stands for RPM and TPM there."""
    throttle = import_module("token_throttle")
    quotas = [throttle.Quota(metric=metric, limit=limit) for metric, limit in (("requests", RPM), ("tokens", TPM))]
    return throttle.PerModelConfig(quotas=throttle.UsageQuotas(quotas))


SYNC: dict[str, Callable[[], Iterator[Entry]]] = {
    "limits": limits_sync,
    "pyrate-limiter": pyrate_sync,
    THROTTLED: throttled_sync,
    TOKEN_THROTTLE: token_throttle_sync,
}
ASYNC: dict[str, Callable[[], Iterator[AsyncEntry]]] = {
    "aiolimiter": aiolimiter_async,
    "limits": limits_async,
    "pyrate-limiter": pyrate_async,
    THROTTLED: throttled_async,
    TOKEN_THROTTLE: token_throttle_async,
}
