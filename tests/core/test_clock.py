from __future__ import annotations

from typing import TYPE_CHECKING

from agent_rate_limiter.clock import SystemClock

if TYPE_CHECKING:
    import pytest


def test_time_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = [5_000]
    monkeypatch.setattr("agent_rate_limiter.clock._time_ns", lambda: wall[0] * 1_000_000)
    clock = SystemClock()
    seen = []
    for moment in (5_000, 5_001, 1_000, 1_010, 1_005, 9_000, 9_001):  # set back twice, then right
        wall[0] = moment
        seen.append(clock.now())
    assert seen == [5_000, 5_001, 5_001, 5_011, 5_011, 9_000, 9_001]
