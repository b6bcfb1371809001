"""The vocabulary of limits: what is counted, how much, per what time, for whom."""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn

from agent_rate_limiter.checks import check_thresholds
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.plain import is_number
from agent_rate_limiter.reprs import spare_repr
from agent_rate_limiter.scopes import EVERYBODY, Scope

NANO_PER_DOLLAR = 1_000_000_000


class Resource(str, Enum):
    """What a limit counts."""

    REQUESTS = "requests"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    TOKENS = "tokens"
    COST = "cost"
    CONCURRENCY = "concurrency"


ResourceName = Literal["requests", "input_tokens", "output_tokens", "tokens", "cost", "concurrency"]


class Priority(int, Enum):
    """How urgent a call is; lower goes first. Any whole number of at least 0 does."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 5
    LOW = 10


PERIOD_SECONDS: Mapping[str, int] = {
    "second": 1,
    "minute": 60,
    "hour": 3_600,
    "day": 86_400,
    "week": 7 * 86_400,
    "month": 30 * 86_400,
}
"""Seconds in a period's word; only calendar windows know how long a month really is."""

STRATEGIES = ("token_bucket", "sliding_window", "fixed_window", "concurrency")
COUNTS = ("actual", "max_tokens")


class Target(NamedTuple):
    """Where a call goes: a provider and one of its models, written `provider:model`."""

    provider: str
    model: str

    def __str__(self) -> str:
        """As users write it."""
        return f"{self.provider}:{self.model}"

    @classmethod
    def parse(cls, text: str | Target) -> Target:
        """Read `provider:model`; a model's name may hold further colons.

        Raises:
            ConfigError: there is no provider or no model in it.
        """
        if isinstance(text, Target):
            return text
        provider, colon, model = text.partition(":") if isinstance(text, str) else ("", "", "")
        if not (colon and provider and model):
            message = f"target is {text!r}: write it as 'provider:model', for example 'openai:gpt-4'."
            raise ConfigError(message)
        return cls(provider, model)


@dataclass(frozen=True)
class Limit:
    """So much of a resource per so much time.

    Args:
        resource: what is counted.
        amount: how much of it: requests, tokens, calls at once, or dollars.
        per: seconds, or a word ("second" … "month"); None for concurrency and for a total that never resets.
        burst: how much may be taken at once (token bucket only); the whole amount unless given.
        strategy: "token_bucket" (refilled continuously; the default), "sliding_window" (never more than the
            amount in any window), "fixed_window" (emptied at each period's start; the default for dollars and
            totals) or "concurrency".
        scope: whom it applies to.
        timezone: where a fixed window's day, week or month begins, as an IANA name.
        counts: how output is charged when a call is admitted: "actual" (the expected output, corrected later)
            or "max_tokens" (the request's maximum beside its input, kept; at OpenAI the larger of the two, and
            Bedrock corrects it when the call ends).
        name: what messages call it; made from the rest unless given.
        enforced: False only counts, for alerts and reports (fixed and sliding window only).
        thresholds: shares of it at which an alert is sent, once each per period; the limiter's unless given.
        key: what a store calls it: its name, unless that may change while what was taken has to stay.

    Raises:
        ConfigError: a value makes no sense; the message names it and the fix.
    """

    resource: Resource
    amount: float
    per: float | str | None = None
    burst: float | None = None
    strategy: str = ""
    scope: Scope = EVERYBODY
    timezone: str = "UTC"
    counts: str = "actual"
    name: str = ""
    enforced: bool = True
    thresholds: tuple[float, ...] | None = None
    key: str = ""

    if TYPE_CHECKING:  # a resource may be given by its name, too

        def __init__(  # noqa: PLR0917 - a dataclass's
            self,
            resource: Resource | ResourceName,
            amount: float,
            per: float | str | None = None,
            burst: float | None = None,
            strategy: str = "",
            scope: Scope = EVERYBODY,
            timezone: str = "UTC",
            counts: str = "actual",
            name: str = "",
            enforced: bool = True,  # noqa: FBT001, FBT002 - a field, mostly given by name
            thresholds: float | Sequence[float] | None = None,
            key: str = "",
        ) -> None: ...

    def __post_init__(self) -> None:
        """Refuse what makes no sense, and fill in what was left open."""
        fill = object.__setattr__  # frozen: this is the only place that writes
        fill(self, "resource", _member(self.resource))
        check_positive("amount", self.amount)
        fill(self, "per", _period(self.resource, self.per))
        fill(self, "strategy", self._default_strategy() if not self.strategy else self.strategy)
        self._check_strategy()
        if self.resource is not Resource.COST and self.amount != int(self.amount):
            _refuse("amount", self.amount, f"{self.resource.value} are counted in whole numbers")
        if self.units < 1:
            _refuse("amount", self.amount, "give at least a billionth of a dollar")
        _one_of("counts", self.counts, COUNTS)
        _timezone(self.timezone)
        self._check_kinds()
        if not self.enforced and self.strategy not in {"fixed_window", "sliding_window"}:
            _refuse("enforced", self.enforced, "only a fixed or a sliding window can count without refusing")
        if self.thresholds is not None:
            fill(self, "thresholds", check_thresholds(self.thresholds, "thresholds"))
        if not self.name:
            fill(self, "name", self._describe())
        if not self.key:
            fill(self, "key", self.name)

    def _check_kinds(self) -> None:
        if not isinstance(self.scope, Scope):
            _refuse("scope", self.scope, "give a Scope, such as Scope(agent='each')")
        if not isinstance(self.enforced, bool):
            _refuse("enforced", self.enforced, "give True or False")
        for field, value in (("name", self.name), ("key", self.key)):
            if not isinstance(value, str):
                _refuse(field, value, "give text")

    def _default_strategy(self) -> str:
        if self.resource is Resource.CONCURRENCY:
            return "concurrency"
        return "fixed_window" if self.resource is Resource.COST or self.per is None else "token_bucket"

    def _check_strategy(self) -> None:
        _one_of("strategy", self.strategy, STRATEGIES)
        if (self.strategy == "concurrency") != (self.resource is Resource.CONCURRENCY):
            _refuse("strategy", self.strategy, "'concurrency' goes with the resource 'concurrency', and only with it")
        if self.per is None and self.strategy not in {"fixed_window", "concurrency"}:
            _refuse("per", self.per, "give seconds or a word such as 'minute'")
        if self.burst is not None:
            check_positive("burst", self.burst)
            if self.strategy != "token_bucket":
                _refuse("burst", self.burst, "only a token bucket has a burst; remove it")
            if self.resource is not Resource.COST and self.burst != int(self.burst):
                _refuse("burst", self.burst, f"{self.resource.value} are counted in whole numbers")

    def _describe(self) -> str:
        if self.resource is Resource.COST:
            what = f"${self.amount:,.2f}" if self.amount >= 0.01 else f"${self.amount:g}"  # noqa: PLR2004 - a cent
        elif self.resource is Resource.CONCURRENCY:
            return f"{self.amount:,.0f} at once"
        else:
            what = f"{self.amount:,.0f} {self.resource.value.replace('_', ' ')}"
        if self.per is None:
            return f"{what} in total"
        return f"{what}/{self.per}" if isinstance(self.per, str) else f"{what}/{self.per:g} s"

    @property
    def period_ms(self) -> int | None:
        """The period in milliseconds, a month taken as 30 days; None when it never resets."""
        if self.per is None:
            return None
        seconds = PERIOD_SECONDS[self.per] if isinstance(self.per, str) else self.per
        return max(1, round(seconds * 1000))

    @property
    def units(self) -> int:
        """The amount in the integers used inside: nano-dollars for cost, else what is counted."""
        return to_units(self.resource, self.amount)

    @property
    def burst_units(self) -> int:
        """The burst in the integers used inside."""
        return self.units if self.burst is None else to_units(self.resource, self.burst)

    def __repr__(self) -> str:
        """As it would be written."""
        follows = (
            *(("strategy",) if self.strategy == self._default_strategy() else ()),
            *(("name",) if self.name == self._describe() else ()),
            *(("key",) if self.key == self.name else ()),
        )
        return spare_repr(self, without=follows)

    def __str__(self) -> str:
        """The name, with the scope where there is one."""
        return f"{self.name} ({self.scope})" if self.scope.labels else self.name

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read "40 requests/week", "1M tokens/day", "$5/day" or "10 concurrent".

        Raises:
            ConfigError: the text is none of these.
        """
        from agent_rate_limiter.limit_text import read_limit

        return cls(*read_limit(text))


def to_units(resource: Resource, amount: float) -> int:
    """Turn an amount as users write it into the integers used inside (nano-dollars for cost)."""
    return round(amount * NANO_PER_DOLLAR) if resource is Resource.COST else int(amount)


def from_units(resource: Resource, units: int) -> float:
    """Turn integer units back into what users write (dollars for cost)."""
    return units / NANO_PER_DOLLAR if resource is Resource.COST else units


_MOST = 10**15
_LONGEST = 1e10


def _member(resource: Resource | str) -> Resource:
    try:
        return Resource(resource)
    except ValueError:
        _refuse("resource", resource, f"it is one of {', '.join(r.value for r in Resource)}")


def _period(resource: Resource, per: float | str | None) -> float | str | None:
    if resource is Resource.CONCURRENCY:
        return None if per is None else _refuse("per", per, "concurrency has no period; remove it")
    if per is None:
        return None
    if isinstance(per, str):
        return per if per in PERIOD_SECONDS else _refuse("per", per, f"one of {', '.join(PERIOD_SECONDS)}, or seconds")
    check_positive("per", per)
    return per if per <= _LONGEST else _refuse("per", per, "give at most 1e10 seconds, or None for a total")


def check_positive(field: str, value: object) -> None:
    """Raise a ConfigError unless it is a finite number above 0."""
    if not is_number(value) or not 0 < value < float("inf"):
        _refuse(field, value, "give a finite number above 0")
    if value > _MOST:
        _refuse(field, value, "give a number of at most 1e15")


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        _refuse(field, value, f"it is one of {', '.join(allowed)}")


def _timezone(name: str) -> None:
    if name == "UTC":
        return
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):
        _refuse("timezone", name, "give an IANA name such as 'America/Los_Angeles'")


def _refuse(field: str, value: object, fix: str) -> NoReturn:
    message = f"{field} is {value!r}: {fix}."
    raise ConfigError(message)
