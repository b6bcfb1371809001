"""What a call is expected to use, and what it did use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

from agent_rate_limiter.errors import ConfigError


@dataclass(frozen=True, init=False)
class Estimate:
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

    requests: int
    input_tokens: int
    output_tokens: int
    max_output_tokens: int
    cost: float | None
    exact: bool = field(default=True, compare=False)

    def __init__(
        self,
        requests: int = 1,
        input_tokens: int = 0,
        output_tokens: int = 0,
        max_output_tokens: int = 0,
        cost: float | None = None,
        *,
        exact: bool = True,
    ) -> None:
        # One update instead of a frozen assignment per field: four times faster, and this is on the hot path.
        fields = self.__dict__
        fields["requests"] = requests
        fields["input_tokens"] = input_tokens
        fields["output_tokens"] = output_tokens
        fields["max_output_tokens"] = max_output_tokens
        fields["cost"] = cost
        if not exact:
            fields["exact"] = False
        try:
            sound = (requests | input_tokens | output_tokens | max_output_tokens) >= 0
        except TypeError:
            sound = False
        if not sound or cost is not None:
            _check("Estimate", fields)

    @property
    def expected_output_tokens(self) -> int:
        """The output to reserve for: the expectation, or the maximum when there is none."""
        return self.output_tokens or self.max_output_tokens

    @property
    def worst_output_tokens(self) -> int:
        """The output a hard budget must be ready to pay for."""
        return max(self.output_tokens, self.max_output_tokens)


@dataclass(frozen=True, init=False)
class Usage:
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

    requests: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    cost: float | None = None
    exact: bool = True
    service_tier: str = ""

    def __init__(  # noqa: PLR0917 - one per kind of token; requests, input and output may go by place
        self,
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
    ) -> None:
        fields = self.__dict__  # as in Estimate
        fields["requests"] = requests
        fields["input_tokens"] = input_tokens
        fields["output_tokens"] = output_tokens
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
            sound, kinds = False, 1
        if not kinds and cost is None and exact and sound and not service_tier:
            return  # the class has the defaults of the rest
        fields["cached_input_tokens"] = cached_input_tokens
        fields["cache_write_tokens"] = cache_write_tokens
        fields["cache_write_1h_tokens"] = cache_write_1h_tokens
        fields["reasoning_tokens"] = reasoning_tokens
        fields["input_audio_tokens"] = input_audio_tokens
        fields["output_audio_tokens"] = output_audio_tokens
        fields["cost"] = cost
        fields["exact"] = exact
        fields["service_tier"] = service_tier
        if not sound or cost is not None or service_tier.__class__ is not str:
            _check("Usage", fields)

    @property
    def total_tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens


def _check(kind: str, fields: dict[str, object]) -> None:
    for name, value in fields.items():
        if name == "exact":
            continue
        if name == "service_tier":
            if not isinstance(value, str):
                _refuse(kind, name, value, "give a word such as 'batch', or leave it out")
            continue
        if name == "cost":
            if value is None:
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value <= 1e15:  # type: ignore[operator]  # noqa: PLR2004
                _refuse(kind, name, value, "give dollars as a finite number of at least 0, or None")
        elif not isinstance(value, int) or value < 0:
            _refuse(kind, name, value, "give a whole number of at least 0")


def _refuse(kind: str, field: str, value: object, fix: str) -> NoReturn:
    message = f"{kind}.{field} is {value!r}: {fix}."
    raise ConfigError(message)
