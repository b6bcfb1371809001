"""A limiter on a shared store, made before a fork: the child is a member of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent_rate_limiter import (
    RateLimiter,
    ReservationError,
)
from tests.contract.opened import SHARED

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("name", SHARED)
def test_a_limiter_made_before_a_fork_works_in_both(name: str, tmp_path: Path) -> None:
    limiter = RateLimiter("3 requests/day", store=SHARED[name](tmp_path))
    held = limiter.acquire()
    child = os.fork()
    if child == 0:
        try:
            limiter.acquire(timeout=5).settle()
            try:
                held.settle()
            except ReservationError:
                os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    held.settle()
    assert limiter.try_acquire()
    assert not limiter.try_acquire()
