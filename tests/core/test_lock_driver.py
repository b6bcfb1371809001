"""How a thread waits for a lock that is held for microseconds."""

from __future__ import annotations

from threading import Lock
from typing import Any

import pytest

from agent_rate_limiter import RateLimiter
from agent_rate_limiter.engine import lock_driver
from agent_rate_limiter.engine.lock_driver import insist
from agent_rate_limiter.testing import ManualClock


@pytest.mark.parametrize("looks", [1, 3])
def test_it_lets_others_run_until_the_lock_is_free(looks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, naps = Lock(), []
    lock.acquire()

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == looks:
            lock.release()

    monkeypatch.setattr(lock_driver, "sleep", nap)
    insist(lock)
    assert lock.locked()
    assert naps == [0] * looks


def test_it_stands_in_line_for_a_lock_that_stays_taken() -> None:
    class Taken:
        waits = 0

        def acquire(self, *, blocking: bool = True) -> bool:
            self.waits += blocking
            return blocking

    lock: Any = Taken()
    insist(lock)
    assert lock.waits == 1


def test_a_call_insists_on_the_engines_lock(manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = RateLimiter(rpm=10, clock=manual_clock)
    limiter.acquire().cancel()  # the first call does more under the lock
    lock = limiter._calls.engine._lock

    def nap(_: float) -> None:
        lock.release()

    monkeypatch.setattr(lock_driver, "sleep", nap)
    lock.acquire()
    call = limiter.acquire()
    lock.acquire()
    call.settle()
    assert not lock.locked()
    assert limiter.snapshot().limits[0].available == 9
