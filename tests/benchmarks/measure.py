"""Fair timing on a machine that is not quiet: contenders take turns, so that noise hits them all alike."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

_CHUNK = 116
"""About as many frames of `_deeper` as fit into one of CPython's chunks (16 KB)."""

_PRECISE = 1e-6
clock = time.thread_time if time.get_clock_info("thread_time").resolution <= _PRECISE else time.perf_counter
"""Time that the thread computes, where the system tells exactly: what other programs take does not count."""
CLOCK_NOTE = "CPU time of the thread" if clock is time.thread_time else "wall-clock time"

Turn = Callable[[int], float]
"""Makes so many calls; returns the seconds they took."""


@dataclass
class Contender:
    """Something to be timed.

    Args:
        name: its row in the table.
        turn: makes so many calls; returns the seconds they took.
        does: what one call does, in a few words.
        seconds: per call, one number a round.
    """

    name: str
    turn: Turn
    does: str = ""
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds per call."""
        return median(self.seconds)

    def times(self, other: Contender) -> float:
        """How many times as long as the other it takes, compared round by round."""
        return median(mine / theirs for mine, theirs in zip(self.seconds, other.seconds, strict=True))

    def times_in_median(self, other: Contender) -> float:
        """The same, comparing the medians over all rounds."""
        return self.median / other.median

    @property
    def spread(self) -> float:
        """Half the way from the 10th to the 90th percentile, as a share of the median: how noisy it was."""
        tenths = quantiles(self.seconds, n=10, method="inclusive")
        return (tenths[-1] - tenths[0]) / 2 / self.median


def interleave(contenders: Sequence[Contender], rounds: int, turn_seconds: float | None = None) -> None:
    """Time contenders in rounds: A B C, B C A, C A B, …

    The garbage collector runs as it does in programs, but starts every turn with nothing to do: what others
    left is collected before, and set aside. Each round starts at another depth of the stack: CPython 3.11 and
    later keep frames in chunks, and a loop that crosses the end of one in every call is many times slower,
    which would hit the same contender in all rounds.

    Args:
        contenders: what to time.
        rounds: how many numbers to take of each.
        turn_seconds: how long one turn lasts, roughly; None makes a single call.
    """
    calls = [1 if turn_seconds is None else _calls_in(contender.turn, turn_seconds) for contender in contenders]
    pairs = list(zip(contenders, calls, strict=True))
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        start = number % len(pairs)
        for contender, count in pairs[start:] + pairs[:start]:
            gc.collect()
            gc.freeze()
            if turn_seconds is not None:
                contender.turn(count // 8)  # warms the caches
            contender.seconds.append(_deeper(number * 37 % _CHUNK, contender.turn, count) / count)
    gc.unfreeze()


def _deeper(levels: int, turn: Turn, calls: int) -> float:
    return _deeper(levels - 1, turn, calls) if levels else turn(calls)


def _calls_in(turn: Turn, seconds: float) -> int:
    """How many calls a turn takes; finding out is the warm-up."""
    count = 16
    while (took := turn(count)) < seconds / 4:
        count *= 2
    return max(1, round(count * seconds / took))


def progress(text: str) -> None:
    """Tell whoever watches a terminal that something happens."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def timed(run: Callable[[int], None]) -> Turn:
    """Make a turn of a function that makes so many calls."""

    def turn(calls: int) -> float:
        start = clock()
        run(calls)
        return clock() - start

    return turn


def timed_in(loop: asyncio.AbstractEventLoop, run: Callable[[int], Awaitable[None]]) -> Turn:
    """Make a turn of a coroutine; starting the event loop is not timed."""

    async def inside(calls: int) -> float:
        start = clock()
        await run(calls)
        return clock() - start

    return lambda calls: loop.run_until_complete(inside(calls))
