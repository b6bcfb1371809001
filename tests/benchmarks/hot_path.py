"""One call through a limiter with room to spare: what everybody pays on every call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import repeat
from typing import TypeVar

from agent_rate_limiter import Estimate, Limit, MultiProviderLimiter, Price, Provider, RateLimiter, Resource, Usage
from tests.benchmarks import measure, peers
from tests.benchmarks.floor import AsyncTwoBuckets, TwoBuckets
from tests.benchmarks.measure import Contender, Turn, interleave, timed, timed_in
from tests.benchmarks.report import Goal, Report, Table

T = TypeVar("T")

ABOUT = "acquire + settle of one call under RPM, TPM and a budget, in memory, nothing waits, objects made per call"
INPUT, MAX_OUTPUT, OUTPUT = 800, 400, 300
TARGET = "openai:gpt-4"
FLOOR = "floor: two bare buckets, one lock"
RATE, MULTI = "RateLimiter", "MultiProviderLimiter"
BUDGET = 1e9
TURN_SECONDS = 0.002

Group = dict[str, Contender]


def run(*, quick: bool) -> Report:
    """Time everybody, in the same rounds."""
    installed = peers.versions()
    loop = asyncio.new_event_loop()
    try:
        sync = _named(_sync(installed))
        tasks = _named(loop.run_until_complete(_inside(lambda: list(_async(loop, installed)))))
        rounds = 40 if quick else 300
        interleave([*sync.values(), *tasks.values()], rounds, TURN_SECONDS)
    finally:
        _close(loop)
    report = Report("hot_path", ABOUT, [_table("sync", sync), _table("async", tasks)])
    report.notes += [
        f"{rounds} rounds, turns of {TURN_SECONDS * 1000:.0f} ms taken in rotation; {measure.CLOCK_NOTE}.",
        "µs a call: median; spread: half of the way from the 10th to the 90th percentile, the machine's noise.",
        "x floor: ratio of the medians; by rounds: median of each round's ratio. Goals use the latter.",
        "The garbage collector is on; what others left is collected before each turn, untimed.",
        ", ".join(f"{library} {found or 'not installed'}" for library, found in installed.items()),
    ]
    report.goals += [*_goals("sync", sync), *_goals("async", tasks)]
    return report


def _named(contenders: Iterator[Contender] | list[Contender]) -> Group:
    return {contender.name: contender for contender in contenders}


# -- contenders ------------------------------------------------------------------------------------------------


def _sync(installed: dict[str, str | None]) -> Iterator[Contender]:
    yield Contender(FLOOR, timed(_floor()), peers.SETTLED)
    for name, does, run_calls in _ours():
        yield Contender(name, timed(run_calls), does)
    for library, entries in peers.SYNC.items():
        yield from _peer(library, installed, entries, timed)


def _async(loop: asyncio.AbstractEventLoop, installed: dict[str, str | None]) -> Iterator[Contender]:
    turn = partial(timed_in, loop)
    yield Contender(FLOOR, turn(_async_floor()), peers.SETTLED)
    for name, does, run_calls in _ours_async():
        yield Contender(name, turn(run_calls), does)
    for library, entries in peers.ASYNC.items():
        yield from _peer(library, installed, entries, turn)


def _peer(
    library: str,
    installed: dict[str, str | None],
    entries: Callable[[], Iterator[tuple[str, T]]],
    turn: Callable[[T], Turn],
) -> Iterator[Contender]:
    if installed[library] is not None:
        for does, run_calls in entries():
            yield Contender(_row(library, does), turn(run_calls), does)


def _row(library: str, does: str) -> str:
    return f"{library}: {does}"


def _floor() -> Callable[[int], None]:
    buckets = TwoBuckets(peers.RPM, peers.TPM)

    def run_calls(calls: int) -> None:
        for _ in repeat(None, calls):
            buckets.acquire(peers.RESERVED)
            buckets.settle(peers.RESERVED - peers.USED)

    return run_calls


def _async_floor() -> Callable[[int], Awaitable[None]]:
    buckets = AsyncTwoBuckets(peers.RPM, peers.TPM)

    async def run_calls(calls: int) -> None:
        for _ in repeat(None, calls):
            await buckets.acquire(peers.RESERVED)
            await buckets.settle(peers.RESERVED - peers.USED)

    return run_calls


def _limiter() -> RateLimiter:
    return RateLimiter(
        Limit(Resource.COST, BUDGET, "day"), target=TARGET, price=Price(10, 30), rpm=peers.RPM, tpm=peers.TPM
    )


def _multi() -> MultiProviderLimiter:
    model = {"rpm": peers.RPM, "tpm": peers.TPM, "input_per_1m": 10, "output_per_1m": 30}
    return MultiProviderLimiter([Provider("openai", {"gpt-4": model})], budget_limit=BUDGET)


def _ours() -> Iterator[tuple[str, str, Callable[[int], None]]]:
    acquire = _limiter().acquire
    multi = _multi()
    size = Estimate(input_tokens=INPUT, max_output_tokens=MAX_OUTPUT)

    def rate(calls: int) -> None:
        for _ in repeat(None, calls):
            reservation = acquire(Estimate(input_tokens=INPUT, max_output_tokens=MAX_OUTPUT))
            reservation.settle(Usage(input_tokens=INPUT, output_tokens=OUTPUT))

    def many(calls: int) -> None:
        for _ in repeat(None, calls):
            reservation = multi.acquire(TARGET, Estimate(input_tokens=INPUT, max_output_tokens=MAX_OUTPUT))
            reservation.settle(Usage(input_tokens=INPUT, output_tokens=OUTPUT))

    def block(calls: int) -> None:
        for _ in repeat(None, calls):
            with multi.reserve(TARGET, input_tokens=INPUT, max_output_tokens=MAX_OUTPUT) as call:
                call.settle(Usage(input_tokens=INPUT, output_tokens=OUTPUT))

    @multi.limit(target=TARGET, estimate=size)
    def generate() -> Usage:
        return Usage(input_tokens=INPUT, output_tokens=OUTPUT)

    def decorated(calls: int) -> None:
        for _ in repeat(None, calls):
            generate()

    yield RATE, "acquire, settle", rate
    yield MULTI, "acquire, settle", many
    yield f"{MULTI}: with block", "with reserve(…)", block
    yield f"{MULTI}: decorator", "@limit(…)", decorated


def _ours_async() -> Iterator[tuple[str, str, Callable[[int], Awaitable[None]]]]:
    acquire = _limiter().acquire_async
    multi = _multi()
    size = Estimate(input_tokens=INPUT, max_output_tokens=MAX_OUTPUT)

    async def rate(calls: int) -> None:
        for _ in repeat(None, calls):
            reservation = await acquire(Estimate(input_tokens=INPUT, max_output_tokens=MAX_OUTPUT))
            reservation.settle(Usage(input_tokens=INPUT, output_tokens=OUTPUT))

    async def many(calls: int) -> None:
        for _ in repeat(None, calls):
            size = Estimate(input_tokens=INPUT, max_output_tokens=MAX_OUTPUT)
            reservation = await multi.acquire_async(TARGET, size)
            reservation.settle(Usage(input_tokens=INPUT, output_tokens=OUTPUT))

    async def block(calls: int) -> None:
        for _ in repeat(None, calls):
            async with multi.reserve(TARGET, input_tokens=INPUT, max_output_tokens=MAX_OUTPUT) as call:
                call.settle(Usage(input_tokens=INPUT, output_tokens=OUTPUT))

    @multi.limit(target=TARGET, estimate=size)
    async def generate() -> Usage:
        return Usage(input_tokens=INPUT, output_tokens=OUTPUT)

    async def decorated(calls: int) -> None:
        for _ in repeat(None, calls):
            await generate()

    yield RATE, "acquire_async, settle", rate
    yield MULTI, "acquire_async, settle", many
    yield f"{MULTI}: with block", "async with reserve(…)", block
    yield f"{MULTI}: decorator", "@limit(…)", decorated


# -- findings --------------------------------------------------------------------------------------------------


def _table(mode: str, group: Group) -> Table:
    floor = group[FLOOR]
    columns = {mode: "", "µs a call": ".2f", "spread": "", "x floor": ".1f", "by rounds": ".1f"}
    rows: list[list[str | float | None]] = [
        [it.name, it.median * 1e6, f"±{it.spread:.0%}", it.times_in_median(floor), it.times(floor)]
        for it in group.values()
    ]
    return Table(f"{mode}, one call", columns, rows)


def _goals(mode: str, group: Group) -> Iterator[Goal]:
    """Both limiters have to keep each bound, so the slower counts."""
    ours = [group[RATE], group[MULTI]]
    yield _slower(ours, f"{mode}: the slower limiter beside the floor", lambda it: it.times(group[FLOOR]), 10)
    pair = group[_row(peers.THROTTLED, peers.PAIR)]
    yield _slower(ours, f"{mode}: beside throttled-py's RPM + TPM pair", lambda it: it.times(pair), 1)
    what = f"{mode}: token-throttle's reserve + settle beside it"
    rival = group.get(_row(peers.TOKEN_THROTTLE, peers.SETTLED))
    if rival is None:
        yield Goal(what, None, 50, at_least=True, why="token-throttle needs Python 3.12: make bench PYTHON=python3.12")
    else:
        yield Goal(what, min(rival.times(it) for it in ours), 50, at_least=True)


def _slower(ours: list[Contender], what: str, measure: Callable[[Contender], float], bound: float) -> Goal:
    return Goal(what, max(measure(it) for it in ours), bound)


# -- the event loop --------------------------------------------------------------------------------------------


async def _inside(build: Callable[[], T]) -> T:
    """Build things that want a running loop."""
    return build()


def _close(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):  # other libraries' housekeeping
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
