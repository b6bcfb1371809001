"""What a waiting call takes of each limit on its path, by what is known when it is tried."""

from __future__ import annotations

from collections.abc import Sequence

from agent_rate_limiter.admission import Path
from agent_rate_limiter.calls.route import Route
from agent_rate_limiter.usage import Estimate


class Fixed:
    """A path that does not grow."""

    __slots__ = ("path",)

    def __init__(self, path: Path) -> None:
        self.path = path

    def amounts(self) -> Sequence[int]:
        """One of each."""
        return [1] * len(self.path)


class RouteSizing:
    """What a waiting call takes, by the limits that are known when it is tried."""

    __slots__ = ("estimate", "quiet", "route")

    def __init__(self, route: Route, estimate: Estimate, *, quiet: bool) -> None:
        self.route = route
        self.estimate = estimate
        self.quiet = quiet

    @property
    def path(self) -> Path:
        """The limits that the route has by now."""
        return self.route.path

    def amounts(self) -> Sequence[int]:
        """Units to take from each."""
        return (1, *self.route.reserved(self.estimate)[1:])  # the gate, even an open one: it may be closed meanwhile
