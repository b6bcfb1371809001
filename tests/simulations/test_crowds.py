"""Very many calls at once."""

from __future__ import annotations

from agent_rate_limiter import Limit, RateLimiter
from agent_rate_limiter.testing import ManualClock
from tests.core.line import Line


def test_ten_thousand_waiters_keep_their_order(manual_clock: ManualClock) -> None:
    line = Line(RateLimiter(Limit("requests", 1_000, "second", burst=1), clock=manual_clock), manual_clock)
    names = [f"{n % 3}-{n}" for n in range(10_000)]
    line.limiter._calls.engine._room._ageing = 10**9
    served = line.run(*(line.call(name, priority=int(name[0])) for name in names))
    assert served[1:] == sorted(names[1:], key=lambda name: (name[0], int(name[2:])))
