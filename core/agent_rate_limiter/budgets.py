"""A budget: a limit on dollars, and what happens on the way to it."""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.limits import EVERYBODY, Limit, Resource, Scope

ACTIONS = ("block", "warn")
DEFAULT_THRESHOLDS = (0.8,)


@dataclass(frozen=True)
class Budget:
    """At most so many dollars per period.

    Args:
        limit: dollars.
        per: "day", "week", "month" of the calendar, another word or seconds; "total" or None never resets.
        scope: whose spend it bounds: everybody's, one agent's, each agent's.
        action: "block" refuses the call that could overrun it, "warn" only alerts.
        timezone: where its days, weeks and months begin, as an IANA name.
        name: what messages call it; made from the rest unless given.
        thresholds: shares of it at which an alert is sent, once each per period.

    Raises:
        ConfigError: a value makes no sense; the message names it and the fix.
    """

    limit: float
    per: float | str | None = "day"
    scope: Scope = EVERYBODY
    action: str = "block"
    timezone: str = "UTC"
    name: str = ""
    thresholds: tuple[float, ...] = DEFAULT_THRESHOLDS

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.action not in ACTIONS:
            message = f"action is {self.action!r}: it is one of {', '.join(ACTIONS)}."
            raise ConfigError(message)
        object.__setattr__(self, "thresholds", check_thresholds(self.thresholds))
        self.as_limit()

    @classmethod
    def of(cls, value: Budget | Mapping[str, Any]) -> Budget:
        """Return the budget that a value or a config file's mapping stands for.

        Raises:
            ConfigError: it stands for none.
        """
        if isinstance(value, Budget):
            return value
        if not isinstance(value, Mapping) or "limit" not in value:
            raise ConfigError(f"budgets hold {value!r}: give Budget(...) objects, or mappings with a 'limit'.")
        options = dict(value)
        unknown = sorted(set(options) - {field.name for field in fields(cls)})
        if unknown:
            raise ConfigError(
                f"budget {unknown[0]}: unknown key; it is one of {', '.join(f.name for f in fields(cls))}."
            )
        if isinstance(options.get("scope"), Mapping):
            options["scope"] = Scope(**options["scope"])
        return cls(**options)

    def as_limit(self) -> Limit:
        """Return the limit on cost that it is."""
        per = None if self.per == "total" else self.per
        try:
            name = self.name or f"budget {Limit(Resource.COST, self.limit, per)}"
            return Limit(
                Resource.COST,
                self.limit,
                per,
                scope=self.scope,
                timezone=self.timezone,
                name=name,
                enforced=self.action == "block",
            )
        except ConfigError as error:
            message = f"budget {error}".replace("budget amount", "budget limit").replace(
                "month, or", "month, total, or"
            )
            raise ConfigError(message) from None


def check_thresholds(thresholds: float | Sequence[float]) -> tuple[float, ...]:
    """Return alert thresholds in rising order.

    Raises:
        ConfigError: one is not a share above 0 and up to 1.
    """
    shares: tuple[Any, ...] = tuple(thresholds) if isinstance(thresholds, (tuple, list)) else (thresholds,)
    for share in shares:
        number = isinstance(share, (int, float)) and not isinstance(share, bool)
        if not number or not 0 < share <= 1:
            message = f"alert_threshold is {share!r}: give a share above 0 and up to 1, such as 0.8, or several."
            raise ConfigError(message)
    return tuple(sorted(set(shares)))
