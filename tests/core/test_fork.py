"""A forked child is told at once that the limits are its parent's, and harms nobody."""

from __future__ import annotations

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

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

SAYS = (
    "LimiterClosed: This limiter was made in another process, before a fork: its limits would count twice. "
    "Make the limiter in each process, or share one with store='sqlite:///...' or 'redis://...'."
)


def in_child(*attempts: Callable[[], object]) -> list[str]:
    """Fork, try these one after the other in the child, and return what came of each."""
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


def test_a_fork_while_others_hold_the_lock_and_wait(limiter: RateLimiter) -> None:
    """The child's lock is a new one: nobody there would ever release the old one."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            with suppress(LimiterClosed):
                limiter.snapshot()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            assert in_child(limiter.try_acquire, lambda: limiter.snapshot().waiting) == [SAYS, "0"]
    finally:
        stop.set()
        for thread in threads:
            thread.join(5)
