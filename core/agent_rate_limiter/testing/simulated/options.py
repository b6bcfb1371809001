"""What a simulated provider can be told about its models: limits, enforcement, answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.plain import meant
from agent_rate_limiter.testing.simulated.tokens import compact, count_tokens

if TYPE_CHECKING:
    from agent_rate_limiter.testing.simulated.calls import Call, Tokens

Mode = Literal["continuous", "fixed_minute", "sliding"]
Day = Literal["continuous", "utc", "pacific"]
Charge = Literal["max_tokens", "input_plus_max_tokens", "input_only", "actual", "none"]
Settle = Literal["end", "live", "none"]
Headers = Literal["all", "remaining", "none"]
Dialect = Literal["openai", "azure", "groq", "anthropic", "gemini"]
Resource = Literal["requests", "tokens", "input_tokens", "output_tokens", "concurrency"]

Count = int | tuple[int, int] | Callable[["Call"], int]
"""A number of tokens: fixed, drawn from (low, high), or computed from the call."""
Seconds = float | tuple[float, float] | Callable[["Call"], float]
"""A time: fixed, drawn from (low, high), or computed from the call; in seconds of simulated time."""


@dataclass(frozen=True)
class ToolCall:
    """A call to a tool, which a model answers with instead of text.

    Args:
        name: the tool's.
        arguments: as JSON can hold them.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def json(self) -> str:
        """The arguments as models write them."""
        return compact(self.arguments)

    @property
    def tokens(self) -> int:
        """What it takes to say: the name and the arguments."""
        return count_tokens(self.name) + count_tokens(self.json)


Said = str | ToolCall | Sequence[ToolCall] | None
"""What a scripted model says: a text, or calls to tools; None is what it would say unscripted."""


@dataclass(frozen=True)
class Dimension:
    """One kind of limit: what is counted, over how many seconds, and how providers call it."""

    name: str
    resource: Resource
    seconds: float
    words: str


DIMENSIONS: dict[str, Dimension] = {
    dimension.name: dimension
    for dimension in (
        Dimension("rps", "requests", 1, "requests per second"),
        Dimension("rpm", "requests", 60, "requests per minute"),
        Dimension("rpd", "requests", 86_400, "requests per day"),
        Dimension("tpm", "tokens", 60, "tokens per minute"),
        Dimension("tpd", "tokens", 86_400, "tokens per day"),
        Dimension("itpm", "input_tokens", 60, "input tokens per minute"),
        Dimension("otpm", "output_tokens", 60, "output tokens per minute"),
        Dimension("ramp", "input_tokens", 60, "input tokens per minute"),
        Dimension("concurrency", "concurrency", 0, "concurrent requests"),
    )
}


@dataclass(frozen=True)
class Behaviour:
    """How limits are enforced: each dialect's way (`PRESETS`), any field of it overridden per model."""

    mode: Mode = "continuous"
    day: Day = "continuous"
    charge: Charge = "max_tokens"
    settle: Settle = "none"
    slices: tuple[float, ...] = ()
    failed_requests_count: bool = True
    cache_reads_count: bool = True
    burndown: int = 1
    default_max_tokens: int = 0
    input_estimate: float = 1.0
    headers: Headers = "all"
    refuse_in_stream: bool = False


PRESETS: dict[Dialect, Behaviour] = {
    "openai": Behaviour(),
    "azure": Behaviour(mode="fixed_minute", charge="input_plus_max_tokens", slices=(10.0,), refuse_in_stream=True),
    "groq": Behaviour(charge="input_plus_max_tokens", settle="end", cache_reads_count=False),
    "anthropic": Behaviour(charge="actual", settle="live", failed_requests_count=False, cache_reads_count=False),
    "gemini": Behaviour(day="pacific", charge="input_only"),
}
"""How each provider enforces its limits, as far as its docs and captured answers tell (Nov 2026)."""


@dataclass(frozen=True)
class Answers:
    """What a model answers, and how fast."""

    output_tokens: Count = (20, 200)
    cached_tokens: Count = 0
    cache_write_tokens: Count = 0
    reasoning_tokens: Count = 0
    latency: Seconds = 0.0
    tokens_per_second: float | None = None
    reply: Callable[[Call], Said] | None = None


@dataclass(frozen=True)
class Prices:
    """Dollars per million tokens."""

    input: Decimal = Decimal(0)
    output: Decimal = Decimal(0)
    cached_input: Decimal = Decimal(0)

    def cost(self, tokens: Tokens) -> Decimal:
        """What these tokens cost, in dollars, exactly."""
        read = (tokens.input - tokens.cached) * self.input + tokens.cached * self.cached_input
        return (read + tokens.output * self.output) / 1_000_000


class ModelOptions(TypedDict, total=False):
    """A model's entry. All times are seconds of simulated time.

    Limits: `rps rpm rpd tpm tpd itpm otpm` (requests and tokens per second, minute, day; input and output
    tokens per minute), `concurrency` (calls in flight), `ramp=(start, step)` (input tokens in the first
    minute, and how many more in each next one).

    Enforcement (default: what the dialect's provider does):
        mode: `continuous` (refilled bucket), `fixed_minute` (counters start again), `sliding`.
        day: how limits per day refill: `continuous`, or at midnight `utc` or `pacific`.
        charge: tokens taken at admission: `max_tokens` (the larger of max_tokens and the input),
            `input_plus_max_tokens`, `input_only` (output never counts), `actual` (input; output as it is
            produced), `none`.
        settle: correct the charge by what was used: at the `end`, `live` while output is produced, or `none`
            (with charge `actual`: at the end, unless said).
        slices: also hold the requests per minute to their share of each of these stretches, in seconds.
        failed_requests_count: refused and failed requests use up request limits.
        cache_reads_count: input read from the cache counts as input.
        burndown: output tokens count this many times when settled (Bedrock: 5 for recent Claude models).
        default_max_tokens: reserved for output when the request names no maximum.
        input_estimate: the input charged at admission, as a multiple of the real one.
        headers: state `all` quota headers, only what is `remaining`, or `none`.
        refuse_in_stream: a streamed Responses call is refused inside a 200, as Azure does.
    Answers:
        output_tokens, cached_tokens, cache_write_tokens, reasoning_tokens: a number, (low, high), or a
            function of the call. Reasoning is part of the output, cached and written of the input.
        latency: seconds before the first byte: a number, (low, high), or a function of the call.
        tokens_per_second: how fast output is generated; None is at once.
        reply: what is answered, from the call: a text, a `ToolCall`, or several of them; None is as without it.
        prices: dollars per million tokens: (input, output), or {"input":, "output":, "cached_input":}; what is
            read from the cache costs like input unless said.
    pool: models that name the same pool share one set of limits.
    """

    rps: int
    rpm: int
    rpd: int
    tpm: int
    tpd: int
    itpm: int
    otpm: int
    concurrency: int
    ramp: tuple[int, int]
    mode: Mode
    day: Day
    charge: Charge
    settle: Settle
    slices: tuple[float, ...]
    failed_requests_count: bool
    cache_reads_count: bool
    burndown: int
    default_max_tokens: int
    input_estimate: float
    headers: Headers
    refuse_in_stream: bool
    output_tokens: Count
    cached_tokens: Count
    cache_write_tokens: Count
    reasoning_tokens: Count
    latency: Seconds
    tokens_per_second: float | None
    reply: Callable[[Call], Said] | None
    prices: tuple[float, float] | Mapping[str, float]
    pool: str


_CHOICES: dict[str, tuple[str, ...]] = {
    "mode": ("continuous", "fixed_minute", "sliding"),
    "day": ("continuous", "utc", "pacific"),
    "charge": ("max_tokens", "input_plus_max_tokens", "input_only", "actual", "none"),
    "settle": ("end", "live", "none"),
    "headers": ("all", "remaining", "none"),
}


@dataclass(frozen=True)
class ModelConfig:
    """A model's entry, checked and complete."""

    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    ramp_step: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict[str, Any])
    answers: Answers = Answers()
    prices: Prices = Prices()
    pool: str | None = None

    def behaviour(self, dialect: Dialect) -> Behaviour:
        """How the limits are enforced when the model is called in this dialect."""
        behaviour = replace(PRESETS[dialect], **self.overrides)
        counts_nothing = behaviour.charge == "actual" and behaviour.settle == "none"
        return replace(behaviour, settle="end") if counts_nothing and "settle" not in self.overrides else behaviour

    def with_limits(self, limits: Mapping[str, int]) -> ModelConfig:
        """The same model under changed limits."""
        return replace(self, limits={**self.limits, **check_limits(limits, "set_limits")})


def configure(options: Mapping[str, Any], where: str) -> ModelConfig:
    """Check a model's entry; `where` names it in errors.

    Raises:
        ConfigError: an unknown option, or a value that makes no sense.
    """
    _check_names(options, where)
    given = dict(options)
    ramp_start, ramp_step = given.pop("ramp", (None, 0))
    limits = {name: given[name] for name in DIMENSIONS if name in given}
    if ramp_start is not None:
        limits["ramp"] = ramp_start
    overrides = {spec.name: given[spec.name] for spec in fields(Behaviour) if spec.name in given}
    answers = {spec.name: given[spec.name] for spec in fields(Answers) if spec.name in given}
    for name, allowed in _CHOICES.items():
        if name in overrides and overrides[name] not in allowed:
            raise ConfigError(f"{where}: {name}={overrides[name]!r} is none of {', '.join(map(repr, allowed))}.")
    if overrides.get("charge") == "actual" and overrides.get("settle") == "none":
        raise ConfigError(f'{where}: charge="actual" with settle="none" never counts output; settle at the "end".')
    return ModelConfig(
        limits=check_limits(limits, where),
        ramp_step=ramp_step,
        overrides=overrides,
        answers=_answers(answers, where),
        prices=_prices(given.get("prices", {}), where),
        pool=given.get("pool"),
    )


def check_limits(limits: Mapping[str, int], where: str) -> dict[str, int]:
    """Limits with known names and whole amounts, 0 included: a model that is not in the plan."""
    for name, amount in limits.items():
        if name not in DIMENSIONS:
            raise ConfigError(f"{where}: no limit {name!r}; known are {', '.join(DIMENSIONS)}.")
        if type(amount) is not int or amount < 0:
            raise ConfigError(f"{where}: {name}={amount!r} must be a whole number, 0 or more.")
    return dict(limits)


def _check_names(options: Mapping[str, Any], where: str) -> None:
    known = list(ModelOptions.__annotations__)
    for name in options:
        if name not in known:
            raise ConfigError(f"{where}: no option {name!r}; {meant(name, known)}")


def _answers(given: Mapping[str, Any], where: str) -> Answers:
    for name, value in given.items():
        pair = isinstance(value, tuple)
        numbers = list(cast("tuple[Any, ...]", value)) if pair else [value]
        if any(isinstance(number, int | float) and number < 0 for number in numbers):
            raise ConfigError(f"{where}: {name}={value!r} must not be negative.")
        if pair and (len(numbers) != 2 or numbers[0] > numbers[1]):  # noqa: PLR2004
            raise ConfigError(f"{where}: {name}={value!r} must be (low, high).")
    if given.get("tokens_per_second") == 0:
        raise ConfigError(f"{where}: tokens_per_second=0 would never answer; None is at once.")
    return Answers(**given)


def _prices(given: Any, where: str) -> Prices:
    pair = isinstance(given, tuple)
    named = dict(zip(("input", "output"), cast("tuple[float, ...]", given), strict=False)) if pair else dict(given)
    dollars = {str(name): Decimal(str(price)) for name, price in named.items()}
    known = set(dollars) <= {"input", "output", "cached_input"} and len(dollars) == len(given)
    if not known or any(price < 0 for price in dollars.values()):
        raise ConfigError(f"{where}: prices={given!r} must be dollars per million: (input, output), or by name.")
    return Prices(**{"cached_input": dollars.get("input", Decimal(0)), **dollars})
