"""What an alert says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from math import floor
from typing import Any
from zoneinfo import ZoneInfo

from agent_rate_limiter.limits import Resource, to_units
from agent_rate_limiter.reports.verdict import amount_text

KINDS = ("threshold", "pace", "exhausted", "recovered")


@dataclass(frozen=True)
class Alert:
    """A budget or another limit runs low, is used up, or has room again. As text it is one sentence.

    Args:
        kind: "threshold" (a share of it is passed), "pace" (at this pace it will not last), "exhausted" or
            "recovered".
        owner: what it belongs to: "budget", a target, a provider, a scope.
        name: the limit, as messages call it.
        scope: whom it is for; empty for everybody.
        resource: what it counts: "cost" for a budget.
        threshold: the share that was passed, 0 to 1; 1 when it is used up, 0 where none was.
        used: how much is used: dollars, tokens, requests. What calls in flight hold of a budget is not.
        amount: how much it holds.
        at: epoch seconds.
        resets_at: when it starts anew, in epoch seconds; None for what never does, or refills all the time.
        gone_at: when it will be used up at this pace, in epoch seconds; None unless it will before it starts anew.
        timezone: where its periods begin; the sentence tells times there.
    """

    kind: str
    owner: str
    name: str
    scope: str
    resource: str
    threshold: float
    used: float
    amount: float
    at: float
    resets_at: float | None = None
    gone_at: float | None = None
    timezone: str = "UTC"

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, the sentence included."""
        return {"text": str(self), **asdict(self)}

    def __str__(self) -> str:
        """As one sentence, or two."""
        own = self.owner == "budget" or self.owner.startswith("scope-")  # its name says all
        what = self.name if own else f"{self.owner}: {self.name}"
        who = f" ({self.scope})" if self.scope else ""
        return f"{what}{who}: {self._used()}{self._rest()}"

    def _used(self) -> str:
        resource = Resource(self.resource)
        amount = amount_text(resource, to_units(resource, self.amount))
        if resource is Resource.COST:
            used = floor(self.used * 100 + 1e-6) / 100 if self.amount >= 1 else self.used  # cents, never too many
            return f"{amount_text(resource, to_units(resource, used))} of {amount} is used"
        return f"{self.used:,.0f} of {amount} are used"

    def _rest(self) -> str:
        anew = "" if self.resets_at is None else f" It starts anew at {self._moment(self.resets_at)}."
        if self.kind == "pace" and self.gone_at is not None:
            return f"; at this pace it is gone at {self._moment(self.gone_at)}.{anew}"
        if self.kind == "exhausted":
            return f": it is exhausted.{anew}"
        if self.kind == "recovered":
            return ": it has room again."
        return f", past {self.threshold:.0%}."

    def _moment(self, at: float) -> str:
        """The time of day where it counts, with the date unless it is today."""
        zone = timezone.utc if self.timezone == "UTC" else ZoneInfo(self.timezone)
        then, now = datetime.fromtimestamp(at, zone), datetime.fromtimestamp(self.at, zone)
        return f"{then:%H:%M %Z}" if then.date() == now.date() else f"{then:%Y-%m-%d %H:%M %Z}"
