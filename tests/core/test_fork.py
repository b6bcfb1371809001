"""The end of a limiter: closed, or left behind by a fork. Nobody hangs, and everybody is told."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from agent_rate_limiter import LimiterClosed, MultiProviderLimiter, Provider, RateLimiter, Reservation, Usage
from agent_rate_limiter.testing import ManualClock

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

SAYS = (
    "LimiterClosed: This limiter was made in another process, before a fork: its limits would count twice. "
    "Make the limiter in each process, or share one with store='sqlite:///...' or 'redis://...'."
)


def in_child(*attempts: Callable[[], object]) -> list[str]:
    """Fork, try these one after the other in the child, and return what came of each."""
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):  # whatever happens, pytest must not go on twice
            os.write(writer, "\n".join(map(outcome, attempts)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        if not select.select([said], [], [], 10)[0]:
            os.kill(child, signal.SIGKILL)
        lines = said.read().decode().splitlines()
    assert os.waitpid(child, 0)[1] == 0, "the child hung, or died"
    return lines


def outcome(attempt: Callable[[], object]) -> str:
    """What an attempt ends with; noise of finalizers counts, too."""
    noise: list[str] = []
    sys.unraisablehook = lambda hook: noise.append(repr(hook.exc_value))
    try:
        text = repr(attempt())
    except BaseException as error:  # noqa: BLE001 - the parent looks at it
        text = f"{type(error).__name__}: {error}"
    return " ".join([text, *noise])


# ---------------------------------------------------------------- forked


def test_a_child_does_not_wait_for_its_parents_alerts(manual_clock: ManualClock) -> None:
    """Not even when the fork came while the parent's were being counted."""
    release = threading.Event()
    limiter = MultiProviderLimiter(
        clock=manual_clock, budget_limit=1, on_alert=lambda _: release.wait(10), on_unknown_price="zero"
    )
    limiter.acquire("p:m").settle(Usage(cost=0.9))
    with limiter.alerts._outbox._first._changed:
        assert in_child(lambda: limiter.alerts.flush(0.1)) == ["True"]
    release.set()
    assert limiter.alerts.flush()
    assert limiter.alerts.sent == 1


@pytest.fixture
def limiter() -> RateLimiter:
    return RateLimiter(rpm=10, concurrency=2)


def test_every_call_in_the_child_is_refused_and_says_what_to_do(limiter: RateLimiter) -> None:
    asked: list[Callable[[], object]] = [
        limiter.try_acquire,
        limiter.acquire,
        limiter.reserve().__enter__,
        limiter.limit()(gc.collect),
    ]
    assert in_child(*asked, *asked) == [SAYS] * 8


def test_the_parent_goes_on(limiter: RateLimiter) -> None:
    with limiter.reserve() as call:
        in_child(limiter.acquire, limiter.close, gc.collect)
        assert limiter.snapshot().in_flight == 1
        call.settle(Usage())
    limiter.acquire().settle()
    assert [status.available for status in limiter.snapshot().limits] == [8, 2]


def test_the_child_cannot_end_its_parents_calls(limiter: RateLimiter) -> None:
    with limiter.reserve() as call:
        assert in_child(lambda: call.settle(Usage())) == [SAYS]
        assert in_child(call.cancel) == [SAYS]
        assert in_child(lambda: call.fail(ConnectionRefusedError())) == [SAYS]


def test_dropping_a_call_in_the_child_is_silent(limiter: RateLimiter) -> None:
    held: list[Reservation] = [limiter.acquire()]

    def drop() -> None:
        held.clear()
        gc.collect()

    assert in_child(drop) == ["None"]


def test_a_closed_limiter_says_in_the_child_which_of_the_two_it_is(limiter: RateLimiter) -> None:
    assert in_child(limiter.close, limiter.acquire) == ["None", SAYS]


def test_reports_still_work_in_the_child(limiter: RateLimiter) -> None:
    limiter.acquire().settle(Usage(input_tokens=5))
    reports: list[Callable[[], object]] = [
        lambda: limiter.snapshot().in_flight,
        lambda: bool(limiter.explain().decision),
        lambda: limiter.costs.report(()).to_dicts()[0]["input_tokens"],
    ]
    assert in_child(*reports) == ["0", "True", "5"]


def test_a_limiter_made_in_the_child_works() -> None:
    def make() -> int:
        limiter = MultiProviderLimiter([Provider("p", {"m": {"rpm": 1}})])
        limiter.acquire("p:m").settle()
        return int(bool(limiter.try_acquire("p:m")))

    assert in_child(make) == ["0"]


def test_a_fork_while_somebody_holds_the_locks(limiter: RateLimiter) -> None:
    """The child's locks are new ones: nobody there would ever release the old."""
    limiter.acquire().settle()
    attempts: list[Callable[[], object]] = [limiter.try_acquire, lambda: limiter.snapshot().waiting]
    with limiter.costs.lock:
        assert in_child(*attempts) == [SAYS, "0"]
    assert limiter._calls.engine.read(lambda _: in_child(*attempts)) == [SAYS, "0"]


# ---------------------------------------------------------------- closed


def test_nobody_is_admitted_after_close_and_those_who_wait_are_told(manual_clock: ManualClock) -> None:
    closed = r"^This limiter is closed\. Make a new one\.$"

    async def main(limiter: RateLimiter) -> list[object]:
        waiting = [asyncio.create_task(limiter.acquire_async(timeout=timeout)) for timeout in (None, 3_600)]
        await asyncio.sleep(0)
        limiter.close()
        return await asyncio.gather(*waiting, return_exceptions=True)

    with RateLimiter(rpm=1, clock=manual_clock) as limiter:
        held = limiter.acquire()
        assert [(type(error), str(error)) for error in asyncio.run(main(limiter))] == [
            (LimiterClosed, "This limiter is closed. Make a new one.")
        ] * 2
    for call in (limiter.try_acquire, limiter.acquire, limiter.reserve().__enter__, limiter.limit()(gc.collect)):
        with pytest.raises(LimiterClosed, match=closed):
            call()
    held.settle()  # what is in flight can still be settled
    assert limiter.costs.report(()).to_dicts()[0]["requests"] == 1
    limiter.close()  # twice does no harm
