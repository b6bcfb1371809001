"""What a call is expected to use, and what it did use."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NoReturn, final

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.plain import is_number

if TYPE_CHECKING:
    from typing_extensions import Self

_MOST = 10**15


class _Open:
    """What is being made: it is filled like any object, and then becomes frozen by changing its class.

    A frozen assignment per field takes twice as long as the whole call that makes it, and every call makes two.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        """As it would be written: what is not as `Usage()` has it."""
        usual: Any = type(self)()
        parts: Any = self
        told = [
            f"{each.name}={getattr(self, each.name)!r}"
            for each in fields(parts)
            if getattr(self, each.name) != getattr(usual, each.name)
        ]
        return f"{type(self).__name__}({', '.join(told)})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle it by making it anew."""
        parts: Any = self
        return _made_anew, (type(self), {each.name: getattr(self, each.name) for each in fields(parts)})


def _made_anew(kind: type[Any], parts: dict[str, Any]) -> Any:
    return kind(**parts)


class _OpenEstimate(_Open):
    __slots__ = ("cost", "exact", "input_tokens", "max_output_tokens", "output_tokens", "requests")


class _OpenUsage(_Open):
    __slots__ = (
        "cache_write_1h_tokens",
        "cache_write_tokens",
        "cached_input_tokens",
        "cost",
        "exact",
        "input_audio_tokens",
        "input_tokens",
        "output_audio_tokens",
        "output_tokens",
        "reasoning_tokens",
        "requests",
        "service_tier",
    )


@final
@dataclass(frozen=True, init=False, repr=False)
class Estimate(_OpenEstimate):
    """What one call is expected to use, before it is sent.

    Args:
        requests: how many provider requests the call makes.
        input_tokens: tokens sent, cached ones included.
        output_tokens: tokens expected back; 0 means unknown: then what such calls usually use is reserved, as soon as
            that is known, and `max_output_tokens` until then.
        max_output_tokens: the most that may come back (the request's `max_tokens`); 0 means not given.
        cost: dollars, when the caller knows better than the price table; None computes it.
        exact: False when `input_tokens` are guessed from a text (`estimates.estimate_tokens`): then they are corrected
            by what the model has really counted so far.

    Raises:
        ConfigError: a count is negative or not a whole number, or the cost is not a finite amount.
    """

    __slots__ = ()

    requests: int
    input_tokens: int
    output_tokens: int
    max_output_tokens: int
    cost: float | None
    exact: bool = field(compare=False)

    def __new__(
        cls,
        requests: int = 1,
        input_tokens: int = 0,
        output_tokens: int = 0,
        max_output_tokens: int = 0,
        cost: float | None = None,
        *,
        exact: bool = True,
    ) -> Self:
        """Make one."""
        made: Any = _OpenEstimate()
        made.requests = requests
        made.input_tokens = input_tokens
        made.output_tokens = output_tokens
        made.max_output_tokens = max_output_tokens
        made.cost = cost
        made.exact = exact
        made.__class__ = cls
        try:
            sound = 0 <= (requests | input_tokens | output_tokens | max_output_tokens) <= _MOST
        except TypeError:
            sound = False
        if not sound or cost is not None:
            _check(made)
        found: Self = made
        return found

    @property
    def expected_output_tokens(self) -> int:
        """The output to reserve for: the expectation, or the maximum when there is none."""
        return self.output_tokens or self.max_output_tokens


@final
@dataclass(frozen=True, init=False, repr=False)
class Usage(_OpenUsage):
    """What one call really used, as the provider reported it.

    Args:
        requests: provider requests that were sent.
        input_tokens: all tokens sent, cached and cache-writing ones included.
        output_tokens: all tokens produced, reasoning included.
        cached_input_tokens: the part of `input_tokens` that was read from a cache.
        cache_write_tokens: the part of `input_tokens` that was written to a cache.
        cache_write_1h_tokens: the part of `cache_write_tokens` that is kept for an hour.
        reasoning_tokens: the part of `output_tokens` that was reasoning.
        input_audio_tokens: the part of `input_tokens` that was audio.
        output_audio_tokens: the part of `output_tokens` that was audio.
        cost: dollars as the provider stated them; None computes the cost from prices.
        exact: False when the numbers are a guess (a broken stream); then nothing is refunded.
        service_tier: how the provider served it, where that has a price of its own: "batch", "flex", "priority";
            empty for the usual way.

    Raises:
        ConfigError: a count is negative or not a whole number, or the cost is not a finite amount.
    """

    __slots__ = ()

    requests: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    reasoning_tokens: int
    input_audio_tokens: int
    output_audio_tokens: int
    cost: float | None
    exact: bool
    service_tier: str

    def __new__(  # noqa: PLR0917 - one per kind of token; requests, input and output may go by place
        cls,
        requests: int = 1,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cached_input_tokens: int = 0,
        cache_write_tokens: int = 0,
        cache_write_1h_tokens: int = 0,
        reasoning_tokens: int = 0,
        input_audio_tokens: int = 0,
        output_audio_tokens: int = 0,
        cost: float | None = None,
        *,
        exact: bool = True,
        service_tier: str = "",
    ) -> Self:
        """Make one."""
        made: Any = _OpenUsage()
        made.requests = requests
        made.input_tokens = input_tokens
        made.output_tokens = output_tokens
        made.cached_input_tokens = cached_input_tokens
        made.cache_write_tokens = cache_write_tokens
        made.cache_write_1h_tokens = cache_write_1h_tokens
        made.reasoning_tokens = reasoning_tokens
        made.input_audio_tokens = input_audio_tokens
        made.output_audio_tokens = output_audio_tokens
        made.cost = cost
        made.exact = exact
        made.service_tier = service_tier
        made.__class__ = cls
        try:
            kinds = (
                cached_input_tokens
                | cache_write_tokens
                | cache_write_1h_tokens
                | reasoning_tokens
                | input_audio_tokens
                | output_audio_tokens
            )
            sound = (requests | input_tokens | output_tokens | kinds) >= 0
        except TypeError:
            sound = False
        if not sound or cost is not None or service_tier.__class__ is not str:
            _check(made)
        found: Self = made
        return found

    @property
    def total_tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens


def _check(made: Any) -> None:
    """Refuse what makes no sense."""
    kind = type(made).__name__
    told = {each.name: getattr(made, each.name) for each in fields(made) if each.name != "exact"}
    cost, tier = told.pop("cost"), told.pop("service_tier", "")
    for name, count in told.items():
        if not isinstance(count, int) or count < 0:
            _refuse(kind, name, count, "give a whole number of at least 0")
        if count > _MOST and kind == "Estimate":  # what was used is taken as it comes
            _refuse(kind, name, count, "give a number of at most 1e15")
    if cost is not None and (not is_number(cost) or not 0 <= cost <= _MOST):
        _refuse(kind, "cost", cost, "give dollars as a finite number of at least 0, or None")
    if not isinstance(tier, str):
        _refuse(kind, "service_tier", tier, "give a word such as 'batch', or leave it out")


def _refuse(kind: str, field: str, value: object, fix: str) -> NoReturn:
    message = f"{kind}.{field} is {value!r}: {fix}."
    raise ConfigError(message)
