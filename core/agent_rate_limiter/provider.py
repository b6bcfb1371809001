"""What users write about a provider: its models, their limits and prices, and how it is reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, cast

from agent_rate_limiter._environment import expand
from agent_rate_limiter.checks import listed
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.limits import Limit, Target
from agent_rate_limiter.plain import is_number

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    from agent_rate_limiter.pricing import Price

    class Shorthands(TypedDict, total=False):
        """Limits by their usual names; an amount may be text such as "1M"."""

        rps: float | str
        rpm: float | str
        rpd: float | str
        tpm: float | str
        tpd: float | str
        itpm: float | str
        otpm: float | str
        concurrency: float | str


DEGRADE_AT = 0.8
"""The share of a budget at which `degrade_to` starts, unless said."""
ANY_MODEL = "*"
"""As a model's name: the entry for every model that is not listed."""


@dataclass(frozen=True)
class Model:
    """One model of a provider, with all that limits it.

    Args:
        name: as the provider calls it.
        limits: what its calls draw on, besides the provider's own limits.
        price: what it charges; None looks it up in the price table.
        fallbacks: where its calls go instead, in order.
        degrade_to: the cheaper target that takes over when a budget runs low.
        degrade_at: the share of that budget, above 0 and up to 1, at which it does.

    Raises:
        ConfigError: a value makes no sense; the message names it and the fix.
    """

    name: str
    limits: tuple[Limit, ...] = ()
    price: Price | None = None
    fallbacks: tuple[Target, ...] = ()
    degrade_to: Target | None = None
    degrade_at: float = DEGRADE_AT

    def __post_init__(self) -> None:
        """Refuse what makes no sense; targets may be text."""
        _check_name(self.name)
        fill = object.__setattr__  # frozen: this is the only place that writes
        fill(self, "limits", listed("limits", self.limits, "limits"))
        fill(self, "fallbacks", tuple(map(Target.parse, listed("fallbacks", self.fallbacks, "targets"))))
        fill(self, "degrade_to", None if self.degrade_to is None else Target.parse(self.degrade_to))
        _check_limits(self.limits)
        _check_share(self.degrade_at)
        if self.price is not None:
            from agent_rate_limiter.pricing import check_price

            check_price("price", self.price)


def _check_limits(limits: tuple[Limit, ...]) -> None:
    for place, limit in enumerate(limits):
        if not isinstance(limit, Limit):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"limits[{place}] is {limit!r}: give a Limit(...) or Limit.parse(...).")


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise ConfigError(f"name is {name!r}: give text.")


def _check_share(share: object) -> None:
    if not is_number(share) or not 0 < share <= 1:
        raise ConfigError(f"degrade_at is {share!r}: give a share above 0 and up to 1, such as 0.8.")


@dataclass(frozen=True)
class Pool:
    """Limits that some of a provider's models share: each is one limit for all of them together.

    Args:
        name: what reports call it.
        models: their names, or patterns such as "*:free".
        limits: what calls to any of them draw on, besides the model's own and the provider's.

    Raises:
        ConfigError: no models are named, or something else than limits is given.
    """

    name: str
    models: tuple[str, ...]
    limits: tuple[Limit, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        _check_name(self.name)
        given: Any = self.models
        models = (
            () if isinstance(given, str) or not isinstance(given, Iterable) else tuple(cast("Iterable[object]", given))
        )
        if not models or not all(isinstance(model, str) and model for model in models):
            raise ConfigError(f"models is {self.models!r}: list the models that share the limits, at least one.")
        fill = object.__setattr__  # frozen: this is the only place that writes
        fill(self, "models", models)
        fill(self, "limits", listed("limits", self.limits, "limits"))
        _check_limits(self.limits)

    def holds(self, model: str) -> bool:
        """Whether a model is one of them."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)


@dataclass(frozen=True, init=False)
class Provider:
    """A provider of models, and the limits that it sets.

    ```python
    Provider("openai", {"gpt-4": {"rpm": 500, "tpm": 10_000, "cost_per_1k": 0.03}}, rpd=100_000)
    ```

    Args:
        name: what targets call it, as in `openai:gpt-4`.
        models: name → a `Model`, or a mapping with any of `rps rpm rpd tpm tpd itpm otpm concurrency` (requests,
            tokens, input tokens, output tokens per second, minute, day; calls at once), `limits`, `counts`,
            `strategy`, prices in dollars (`cost_per_1k`, or `input_per_1m`, `output_per_1m` and the other kinds
            of `Price`), `fallbacks`, `degrade_to` and `degrade_at`. "*" stands for models that are not listed.
        limits: what all its models share: `Limit(...)`, text such as "40 requests/week", or a Limit's fields.
        pools: what some of its models share: name → a `Pool`, or a mapping with `models` (names, or patterns such as
            "*:free") and their limits in the terms of a model's entry. Models that it names need no entry of their own.
        base_url: where its API is, when that is not the usual place.
        api_key: the environment variable that holds the key, as "${OPENAI_API_KEY}"; read when it is needed.
        kind: whose API it speaks, where the name does not tell: "openai", "anthropic", "google", …
        **shorthands: limits that all its models share, by their usual names (`rpm=500`).

    Raises:
        ConfigError: something makes no sense; the message lists everything that is wrong, with the fix.
    """

    name: str
    models: Mapping[str, Model] = field(hash=False)
    limits: tuple[Limit, ...]
    pools: Mapping[str, Pool] = field(hash=False)
    base_url: str | None
    kind: str | None
    _api_key: str | None = field(repr=False)

    def __init__(
        self,
        name: str,
        models: Mapping[str, Model | Mapping[str, Any] | None] | None = None,
        *,
        limits: Iterable[Limit | str | Mapping[str, Any]] = (),
        pools: Mapping[str, Pool | Mapping[str, Any]] | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        kind: str | None = None,
        **shorthands: Unpack[Shorthands],
    ) -> None:
        from agent_rate_limiter.config import provider_fields  # pydantic is slow to import

        self.__dict__.update(
            provider_fields(
                {
                    "name": name,
                    "models": models,
                    "limits": limits,
                    "pools": pools,
                    "base_url": base_url,
                    "api_key": api_key,
                    "kind": kind,
                    **shorthands,
                }
            )
        )

    @classmethod
    def preset(cls, name: str, /, tier: str | None = None, **overrides: Any) -> Provider:
        """Make a provider of the limits that it publishes; `agent-rate-limiter presets` lists them, dated.

        ```python
        Provider.preset("anthropic", tier="build", models={"claude-haiku-4-5": {"rpm": 50}}, concurrency=20)
        ```

        What a response's headers say corrects them, as any limit.

        Args:
            name: whose: "openai", "anthropic", "groq", …
            tier: yours; its smallest unless given.
            overrides: arguments of `Provider`, which win. Those of `models` and `pools` are merged with the preset's:
                a new name is added, and in a known one each key (`rpm`, `limits`, …) replaces the preset's.

        Raises:
            ConfigError: there is no such preset or tier, or an argument makes no sense.
        """
        from agent_rate_limiter.providers.presets import merged, preset

        fields = merged(preset(name, tier), overrides)
        return cls(fields.pop("name"), **fields)

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> Provider:
        """Make a provider of fields that the schema has checked already."""
        provider = cls.__new__(cls)
        provider.__dict__.update(fields)
        return provider

    @property
    def api_key(self) -> str | None:
        """The key, read from the environment now; None where none was given.

        Raises:
            ConfigError: the environment variable is gone.
        """
        return expand(self._api_key) or None if self._api_key else None

    def model(self, name: str) -> Model | None:
        """Find a model by its name, or what "*" says about it; None when it is not configured."""
        listed = self.models.get(name)
        default = self.models.get(ANY_MODEL)
        if listed is not None or default is None:
            return listed
        itself = Target(self.name, name)
        return replace(
            default,
            name=name,
            fallbacks=tuple(target for target in default.fallbacks if target != itself),
            degrade_to=None if default.degrade_to == itself else default.degrade_to,
        )

    def pools_of(self, model: str) -> tuple[Pool, ...]:
        """The pools whose limits a model's calls draw on."""
        return tuple(pool for pool in self.pools.values() if pool.holds(model))
