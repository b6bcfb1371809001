"""The life of a call whose limits are in a shared store that is near: while nobody waits, it takes its steps itself."""

from __future__ import annotations

from agent_rate_limiter.calls.route import Route
from agent_rate_limiter.calls.shared import SharedCalls
from agent_rate_limiter.engine.near import NearEngine
from agent_rate_limiter.engine.port import Hold
from agent_rate_limiter.providers.model import Failure
from agent_rate_limiter.usage import Estimate, Usage


class NearCalls(SharedCalls):
    """As SharedCalls, with a short cut before, and the settlement in the books' own transaction."""

    engine: NearEngine  # pyright: ignore[reportIncompatibleVariableOverride] - it is what made these calls, for good

    def _at_once(self, hold: Hold, priority: int) -> bool:
        """Take the step now, if nobody waits."""
        return self.engine.reserve_now(hold, priority)

    # -- after ---------------------------------------------------------------------------------------------

    def settle(self, route: Route, hold: Hold, estimate: Estimate, usage: Usage, *, lost: bool = False) -> float:
        """As ever; the store hears of it with the books, if they are in the same place."""
        try:
            return super().settle(route, hold, estimate, usage, lost=lost)
        finally:
            self.engine.passed()
            if route.watched:
                self._see(route, hold)

    def refuse(self, route: Route, hold: Hold, estimate: Estimate, failure: Failure) -> float:
        """As `settle`."""
        try:
            return super().refuse(route, hold, estimate, failure)
        finally:
            self.engine.passed()

    def cancel(self, route: Route, hold: Hold) -> None:
        """Give everything back."""
        super().cancel(route, hold)
        self.engine.passed()

    def _watch(self, route: Route, hold: Hold) -> None:
        """Not yet: the store is to be told first."""

    def _see(self, route: Route, hold: Hold) -> None:
        if self.engine.unsettled:
            super()._watch(route, hold)
        else:  # the copies are fresh
            super(SharedCalls, self)._watch(route, hold)
