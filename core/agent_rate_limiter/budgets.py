"""A budget: a limit on dollars, and what happens on the way to it."""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from agent_rate_limiter.checks import check_thresholds
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.limits import Limit, Resource
from agent_rate_limiter.reprs import spare_repr
from agent_rate_limiter.scopes import EVERYBODY, Scope

ACTIONS = ("block", "warn", "degrade")
DEFAULT_THRESHOLDS = (0.8,)


@dataclass(frozen=True)
class Budget:
    """At most so many dollars per period.

    Example: `Budget(100, "month", timezone="Europe/Berlin")`, `Budget(2, "total", scope=Scope(run="each"))`,
    `Budget(20, "day", rolling=True)`.

    Args:
        limit: dollars.
        per: "day", "week", "month" of the calendar, another word or seconds; "total" or None never resets.
        scope: whose spend it bounds: everybody's, one agent's, each agent's.
        action: "block" refuses the call that could overrun it, "warn" only alerts, "degrade" alerts and lets
            models that name a cheaper target (`degrade_to`) be served there.
        timezone: where its days, weeks and months begin, as an IANA name.
        name: what messages call it; made from the rest unless given.
        thresholds: shares of it at which an alert is sent, once each per period; the limiter's unless given.
        rolling: bound any stretch of that length ("day": the last 24 hours, "month": 30 days), not the calendar's.
            A dollar counts until up to 1/60 of the period later.

    Raises:
        ConfigError: a value makes no sense; the message names it and the fix.
    """

    limit: float
    per: float | str | None = "day"
    scope: Scope = EVERYBODY
    action: str = "block"
    timezone: str = "UTC"
    name: str = ""
    thresholds: tuple[float, ...] | None = None
    rolling: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.action not in ACTIONS:
            message = f"action is {self.action!r}: it is one of {', '.join(ACTIONS)}."
            raise ConfigError(message)
        if not isinstance(self.name, str):
            raise ConfigError(f"budget name is {self.name!r}: give text.")
        if not isinstance(self.rolling, bool):
            raise ConfigError(f"rolling is {self.rolling!r}: give True or False.")
        if self.thresholds is not None:
            object.__setattr__(self, "thresholds", check_thresholds(self.thresholds, "thresholds"))
        self.as_limit()

    def __repr__(self) -> str:
        """As it would be written."""
        return spare_repr(self)

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
        if per is None and self.rolling:
            raise ConfigError(f"budget per is {self.per!r}: a rolling budget needs a period, such as 'day'.")
        try:
            return Limit(
                Resource.COST,
                self.limit,
                per,
                strategy="sliding_window" if self.rolling else "fixed_window",
                scope=self.scope,
                timezone=self.timezone,
                name=self.name or self._describe(per),
                enforced=self.action == "block",
                thresholds=self.thresholds,
                key=self.name or self._period(),
            )
        except ConfigError as error:
            message = f"budget {error}".replace("budget amount", "budget limit").replace(
                "month, or", "month, total, or"
            )
            raise ConfigError(message) from None

    def _describe(self, per: float | str | None) -> str:
        amount, _, period = Limit(Resource.COST, self.limit, per).name.partition("/")
        return f"budget {amount}/rolling {period}" if self.rolling else f"budget {amount}" + f"/{period}" * bool(period)

    def _period(self) -> str:
        """What a store calls it: not by its amount, so that what is spent stays when the budget is raised."""
        zone = "" if self.timezone == "UTC" or self.rolling else f" {self.timezone}"
        return f"{'rolling ' * self.rolling}{self.per or 'total'}{zone}"


def budgets_of(
    limit: float | None, period: float | str, timezone: str, others: Iterable[Budget | Mapping[str, Any]]
) -> list[Budget]:
    """Return all the budgets that a limiter is given: the one of everybody's calls, if it has one, and the others.

    Raises:
        ConfigError: one makes no sense, or a period or a time zone is given for a budget that is not.
    """
    if isinstance(others, (Budget, str, Mapping)) or not isinstance(others, Iterable):
        raise ConfigError(f"budgets is {others!r}: give a list of Budget(...).")
    wanted = [Budget.of(budget) for budget in others]
    if limit is not None:
        return [Budget(limit, period, timezone=timezone), *wanted]
    for field, value, usual in (("budget_period", period, "day"), ("timezone", timezone, "UTC")):
        if value != usual:
            raise ConfigError(f"{field} is {value!r}: it is budget_limit's; add that, or write it into a Budget(...).")
    return wanted


def limits_of(budgets: Iterable[Budget]) -> tuple[Limit, ...]:
    """Return the limits that budgets are, told apart in a store where they differ in nothing but the amount.

    Raises:
        ConfigError: messages could not tell two of them apart.
    """
    limits = [budget.as_limit() for budget in budgets]
    if len({(limit.name, limit.scope) for limit in limits}) < len(limits):
        raise ConfigError("budgets: two have the same amount, period and scope; give each a name of its own.")
    keys = [(limit.key, limit.scope) for limit in limits]
    numbers = [keys[:place].count(key) + 1 for place, key in enumerate(keys)]
    return tuple(
        limit if number == 1 else replace(limit, key=f"{limit.key} #{number}")
        for limit, number in zip(limits, numbers, strict=True)
    )
