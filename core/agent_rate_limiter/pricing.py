"""What calls cost: prices as users write them, costs in whole nano-dollars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, Decimal
from operator import attrgetter, mul
from typing import TYPE_CHECKING, cast

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.plain import is_number, is_whole
from agent_rate_limiter.reprs import spare_repr

if TYPE_CHECKING:
    from agent_rate_limiter.usage import Usage

_MILLION = 1_000_000
_MOST = 1e15
_parts_of = attrgetter(
    "cached_input_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "input_audio_tokens",
    "reasoning_tokens",
    "output_audio_tokens",
)


@dataclass(frozen=True)
class Price:
    """What a model charges, in dollars per million tokens; None is charged like the kind it is part of.

    Inside, a price is a whole number of nano-dollars per million: digits past the ninth decimal round it up.

    Args:
        input_per_1m: tokens sent.
        output_per_1m: tokens produced.
        cached_input_per_1m: input that was read from a cache.
        cache_write_per_1m: input that was written to a cache.
        reasoning_per_1m: output that was reasoning.
        input_audio_per_1m: input that was audio.
        output_audio_per_1m: output that was audio.
        per_request: dollars for each request, whatever its tokens.
        cache_write_1h_per_1m: the part of the cache writes that is kept for an hour.
        tiers: a number of input tokens → the price of the whole call if it sends more than that.
        service_tiers: how a call was served ("batch", "flex", "priority") → its price; others cost the usual.

    Raises:
        ConfigError: a price is not a finite number of at least 0 (0 is free), or a tier or service makes no sense.
    """

    input_per_1m: float
    output_per_1m: float
    cached_input_per_1m: float | None = None
    cache_write_per_1m: float | None = None
    reasoning_per_1m: float | None = None
    input_audio_per_1m: float | None = None
    output_audio_per_1m: float | None = None
    per_request: float = 0.0
    cache_write_1h_per_1m: float | None = None
    tiers: Mapping[int, Price] = field(default_factory=dict[int, "Price"], hash=False)
    service_tiers: Mapping[str, Price] = field(default_factory=dict[str, "Price"], hash=False)

    # Nano-dollars per million tokens (or requests), computed once: calls are priced on the hot path.
    _input: int = field(init=False, repr=False, compare=False)
    _output: int = field(init=False, repr=False, compare=False)
    _request: int = field(init=False, repr=False, compare=False)
    _worst_input: int = field(init=False, repr=False, compare=False)
    _worst_output: int = field(init=False, repr=False, compare=False)
    _input_kinds: tuple[int, int, int, int] = field(init=False, repr=False, compare=False)
    _output_kinds: tuple[int, int] = field(init=False, repr=False, compare=False)
    _flat: bool = field(init=False, repr=False, compare=False)
    _plain: Price | None = field(init=False, repr=False, compare=False)  # the same without tiers and service_tiers
    _steps: tuple[tuple[int, Price], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse what makes no sense, and turn dollars into integers."""
        _check_tiers(self.tiers)
        _check_services(self.service_tiers)
        sent, produced = self._rate("input_per_1m"), self._rate("output_per_1m")
        write = self._rate("cache_write_per_1m", sent)
        input_kinds = (
            self._rate("cached_input_per_1m", sent),
            write,
            self._rate("cache_write_1h_per_1m", write),
            self._rate("input_audio_per_1m", sent),
        )
        output_kinds = (self._rate("reasoning_per_1m", produced), self._rate("output_audio_per_1m", produced))
        self.__dict__.update(  # frozen: this is the only place that writes
            _input=sent,
            _output=produced,
            _request=self._rate("per_request") * _MILLION,
            _worst_input=max(sent, *input_kinds),
            _worst_output=max(produced, *output_kinds),
            _input_kinds=input_kinds,
            _output_kinds=output_kinds,
            _flat={sent} == set(input_kinds) and {produced} == set(output_kinds),
            _plain=replace(self, tiers={}, service_tiers={}) if self.tiers or self.service_tiers else None,
            _steps=tuple(sorted(self.tiers.items(), reverse=True)),
        )

    def __repr__(self) -> str:
        """As it would be written."""
        return spare_repr(self)

    def _rate(self, name: str, otherwise: int | None = None) -> int:
        dollars: float | None = getattr(self, name)
        if dollars is None and otherwise is not None:
            return otherwise
        return _nano(_checked(name, dollars))

    @classmethod
    def per_1k(cls, dollars: float) -> Price:
        """Make the price that charges so many dollars per thousand tokens, in both directions.

        Raises:
            ConfigError: the price is not a finite number of at least 0.
        """
        per_1m = float(Decimal(str(_checked("cost_per_1k", dollars))) * 1000)  # floats make 700.0000000000001 of 0.7
        return cls(per_1m, per_1m)

    @property
    def flat_rates(self) -> tuple[int, int, int] | None:
        """Nano-dollars per million requests, input and output tokens, if nothing is priced apart."""
        return (self._request, self._input, self._output) if self._flat and self._plain is None else None

    @property
    def worst_rates(self) -> tuple[int, int, int] | None:
        """The dearest nano-dollars per million requests, input and output tokens, if they depend on nothing else."""
        return (self._request, self._worst_input, self._worst_output) if self._plain is None else None

    def applied(self, input_tokens: int, service: str = "") -> Price:
        """Return the price of a call that sends so many tokens, and is served in that way."""
        if service in self.service_tiers:
            return self.service_tiers[service].applied(input_tokens)
        return next((tier for above, tier in self._steps if input_tokens > above), self._plain or self)

    def nano(self, usage: Usage) -> int:
        """Charge what a call used: nano-dollars, rounded up once; a cost that the provider stated wins."""
        if usage.cost is not None:
            return _nano(usage.cost)
        if self._plain is not None:
            return self.applied(usage.input_tokens, usage.service_tier).nano(usage)
        if self._flat:
            return self.expected_nano(usage.requests, usage.input_tokens, usage.output_tokens)
        cached, write, write_1h, audio_in, reasoning, audio_out = _parts_of(usage)
        write_1h = min(write_1h, write)
        sent = _charge(
            usage.input_tokens, self._input, (cached, write - write_1h, write_1h, audio_in), self._input_kinds
        )
        produced = _charge(usage.output_tokens, self._output, (reasoning, audio_out), self._output_kinds)
        return _millionth(sent + produced + usage.requests * self._request)

    def expected_nano(self, requests: int, input_tokens: int, output_tokens: int) -> int:
        """What a call is expected to cost, in nano-dollars: every token at the plain price."""
        if self._plain is not None:
            return self.applied(input_tokens).expected_nano(requests, input_tokens, output_tokens)
        return _millionth(requests * self._request + input_tokens * self._input + output_tokens * self._output)

    def worst_nano(self, requests: int, input_tokens: int, output_tokens: int) -> int:
        """Bound what a call can cost, in nano-dollars: every token at the dearest price of its direction.

        Of the tiers, that is the dearest of those that so many input tokens can reach; of the services the dearest,
        for an account may be served as "priority" without the request saying so (OpenAI's project settings, 2026-10).
        """
        if self._plain is not None:
            tiers = (tier for above, tier in self._steps if input_tokens > above)
            prices = [self._plain, *tiers, *self.service_tiers.values()]
            return max(price.worst_nano(requests, input_tokens, output_tokens) for price in prices)
        millionths = requests * self._request + input_tokens * self._worst_input + output_tokens * self._worst_output
        return _millionth(millionths)


def _millionth(amount: int) -> int:
    return -(-amount // _MILLION)


def _charge(tokens: int, rate: int, parts: tuple[int, ...], rates: tuple[int, ...]) -> int:
    """Charge each part of the tokens at its own rate, and the rest at the plain one.

    Parts that overlap (cached audio) can sum to more than there is: then the dearest are charged, no token twice.
    """
    rest = tokens - sum(parts)
    if rest >= 0:
        total: int = rest * rate + sum(map(mul, parts, rates))
        return total
    total = 0
    for part_rate, part in sorted(zip(rates, parts, strict=True), reverse=True):
        charged = min(part, tokens)
        tokens -= charged
        total += charged * part_rate
    return total


def _nano(dollars: float) -> int:
    """Turn dollars into nano-dollars, as exactly as they were written, rounded up."""
    return int(Decimal(str(dollars)).scaleb(9).to_integral_value(ROUND_CEILING))


def _checked(name: str, dollars: object) -> float:
    if is_number(dollars) and 0 <= dollars <= _MOST:
        return dollars
    raise ConfigError(f"{name} is {dollars!r}: give dollars as a finite number of at least 0.")


def check_price(name: str, price: object) -> None:
    """Raise a ConfigError unless it is a Price."""
    if not isinstance(price, Price):
        raise ConfigError(f"{name} is {price!r}: give a Price(input_per_1m, output_per_1m).")


def _check_tiers(tiers: object) -> None:
    if not isinstance(tiers, Mapping):
        raise ConfigError(f"tiers is {tiers!r}: give a mapping such as {{200_000: Price(6, 22.5)}}.")
    for above, tier in cast("Mapping[object, object]", tiers).items():
        if not is_whole(above) or above < 0:
            raise ConfigError(f"tiers hold {above!r}: give the input tokens above which it begins, a whole number.")
        if not isinstance(tier, Price) or tier.tiers or tier.service_tiers:
            raise ConfigError(f"tiers[{above}] is {tier!r}: give a Price without tiers or service tiers of its own.")


def _check_services(service_tiers: object) -> None:
    if not isinstance(service_tiers, Mapping):
        raise ConfigError(f"service_tiers is {service_tiers!r}: give a mapping such as {{'batch': Price(1.5, 7.5)}}.")
    for name, price in cast("Mapping[object, object]", service_tiers).items():
        if not isinstance(name, str) or not name or not isinstance(price, Price) or price.service_tiers:
            raise ConfigError(
                f"service_tiers[{name!r}] is {price!r}: give a name, and a Price without service tiers of its own."
            )
