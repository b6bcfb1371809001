"""The life of a call where a process serves calls from slices of limits that it shares: the store is rarely asked."""

from __future__ import annotations

from collections.abc import Iterable

from agent_rate_limiter.calls.route import Route
from agent_rate_limiter.calls.shared import SharedCalls
from agent_rate_limiter.engine.port import Hold
from agent_rate_limiter.engine.sliced import SlicedEngine
from agent_rate_limiter.providers.model import Failure, Quota
from agent_rate_limiter.usage import Estimate


class SlicedCalls(SharedCalls):
    """Takes calls through an engine that has a local allowance."""

    engine: SlicedEngine  # pyright: ignore[reportIncompatibleVariableOverride] - it is what made these calls, for good

    def _at_once(self, hold: Hold, priority: int) -> bool:  # noqa: ARG002 - a slice was taken in order
        """Serve it from a slice."""
        return self.engine.serve(hold)

    def refuse(self, route: Route, hold: Hold, estimate: Estimate, failure: Failure) -> float:
        """The provider refused the call: nothing more is sent from slices of its limits."""
        self.engine.give_back(route.path)
        return super().refuse(route, hold, estimate, failure)

    def observe(self, route: Route, hold: Hold, quotas: Iterable[Quota]) -> None:
        """A response's headers say what is left; where calls are served from slices, they are heard now and then."""
        if self.engine.hears(route.path):
            super().observe(route, hold, quotas)

    def _watch(self, route: Route, hold: Hold) -> None:
        self.engine.later(route, lambda _: super(SharedCalls, self)._watch(route, hold))
