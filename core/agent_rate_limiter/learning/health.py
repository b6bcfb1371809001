"""Which targets failed again and again of late: circuit breakers, from this process's own experience."""

from __future__ import annotations

from agent_rate_limiter.limits import Target
from agent_rate_limiter.providers.model import FailureKind
from agent_rate_limiter.strategies import gate

_FIRST_LOOK, _LAST_LOOK = 2_000, 8_000

SICK = frozenset({FailureKind.TRANSIENT, FailureKind.OVERLOADED, FailureKind.NO_CREDIT})
"""Failures by which a target itself is unwell, and not just full."""


class Health:
    """Which targets failed again and again of late: a call that can go elsewhere does, but for one that looks.

    This is one process's own experience; what a provider says of itself closes the target's gate for everybody.
    """

    def __init__(self) -> None:
        self.sick_ones: dict[Target, tuple[int, int, int]] = {}  # failures in a row, when to look, the last failure

    def failed(self, target: Target, now: int) -> None:
        """Note that a call failed there."""
        strikes = self.sick_ones.get(target, (0, 0, 0))[0] + 1
        self.sick_ones[target] = (strikes, now + cooldown_ms(strikes), now)

    def succeeded(self, target: Target, admitted_at: int) -> None:
        """Note that a call went through there; one that was admitted before the last failure tells nothing new."""
        if admitted_at >= self.sick_ones.get(target, (0, 0, 0))[2]:
            self.sick_ones.pop(target, None)

    def sick(self, target: Target) -> bool:
        """Whether its circuit breaker is open, or half open: then nobody waits for it who can go elsewhere."""
        return self.sick_ones.get(target, (0, 0, 0))[0] >= gate.TRIP_AFTER

    def down(self, target: Target, now: int) -> bool:
        """Whether to go elsewhere for now."""
        strikes, look_at, _ = self.sick_ones.get(target, (0, 0, 0))
        return strikes >= gate.TRIP_AFTER and now < look_at

    def look(self, target: Target, now: int) -> None:
        """A call is about to go there: if it looks whether an outage is over, it is the only one for a while."""
        strikes, look_at, failed_at = self.sick_ones.get(target, (0, 0, 0))
        if strikes >= gate.TRIP_AFTER and now >= look_at:
            self.sick_ones[target] = (strikes, now + cooldown_ms(strikes), failed_at)


def cooldown_ms(strikes: int) -> int:
    """How long an open circuit breaker keeps calls away: two seconds, then twice as long, up to eight."""
    return int(min(_LAST_LOOK, _FIRST_LOOK << min(10, max(0, strikes - gate.TRIP_AFTER))))
