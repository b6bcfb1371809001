"""A limiter whose alerts are kept, and an alert; for the tests of both."""

from __future__ import annotations

from typing import Any

from agent_rate_limiter import Alert, Estimate, MultiProviderLimiter, Provider, Usage
from agent_rate_limiter.testing import ManualClock

HOUR = 3_600
DAY = 24 * HOUR


class Told:
    """A limiter of a dollar per thousand tokens, whose alerts are kept."""

    def __init__(
        self, clock: ManualClock, *, sink: Any = None, cheap: dict[str, Any] | None = None, **options: Any
    ) -> None:
        self.clock = clock
        self.alerts: list[Alert] = []
        models: dict[str, Any] = {"m": {"rpm": 10**6, "cost_per_1k": 1.0}, **({"cheap": cheap} if cheap else {})}
        providers = [Provider("p", models)]
        self.limiter = MultiProviderLimiter(
            providers, clock=clock, on_alert=self.alerts.append if sink is None else sink, **options
        )

    def spend(self, *amounts: float, **labels: Any) -> list[Alert]:
        """Spend, and return the alerts since the last time."""
        for dollars in amounts:
            with self.limiter.scope(**labels):
                self.limiter.acquire("p:m", Estimate(requests=0)).settle(Usage(cost=dollars))
        return self.news()

    def news(self) -> list[Alert]:
        assert self.limiter.alerts.flush()
        alerts, self.alerts[:] = list(self.alerts), []
        return alerts

    def shares(self, *amounts: float, **labels: Any) -> list[float]:
        """Spend, and return the thresholds that were told of meanwhile."""
        return [alert.threshold for alert in self.spend(*amounts, **labels)]

    def kinds(self, *amounts: float, **labels: Any) -> list[str]:
        return [alert.kind for alert in self.spend(*amounts, **labels)]


NOON = 1_767_225_600 + 12 * HOUR


def an_alert(kind: str, **fields: Any) -> Alert:
    fields = {"owner": "budget", "amount": 2, "resets_at": NOON + 12 * HOUR, "threshold": 0.5, "used": 0.125, **fields}
    return Alert(kind, name="b", scope="", resource=fields.pop("resource", "cost"), at=NOON, **fields)
