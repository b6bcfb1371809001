"""What configuration says of limits, models and providers, and what is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, NoReturn, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from agent_rate_limiter.config import fields as kinds
from agent_rate_limiter.config.problems import Path
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.limit_text import SHORTHANDS, shorthand
from agent_rate_limiter.limits import Limit, Target
from agent_rate_limiter.pricing import Price
from agent_rate_limiter.provider import DEGRADE_AT, Model, Pool, Provider

_BOTH_WAYS = ("input_per_1m", "output_per_1m")
_PATTERN = frozenset("*?[")


class Entry(BaseModel):
    """A mapping with known keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def given(self) -> dict[str, Any]:
        """Tell what was written, without what was left open."""
        written = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        return {name: value for name, value in written.items() if value is not None}


class LimitEntry(Entry):
    """A limit, as the fields of `Limit`."""

    resource: kinds.ResourceWord = Field(description="what is counted")
    amount: kinds.Positive = Field(description="how much of it, in whole numbers; dollars for cost")
    per: kinds.LimitPeriod | None = Field(None, description="seconds or a word; without it, a total")
    burst: kinds.Positive | None = Field(None, description="how much at once (token bucket only)")
    strategy: kinds.Strategy | None = None
    scope: kinds.ScopeLabels | None = Field(None, description="whom it limits, as {agent: each}")
    timezone: kinds.Timezone | None = Field(None, description="where a day begins, as an IANA name")
    counts: kinds.Counts | None = Field(None, description="how output is charged when a call is admitted")
    name: kinds.Text | None = Field(None, description="what messages call it")
    thresholds: kinds.Shares | None = Field(None, description="the shares at which to alert")

    def limit(self, counts: str = "actual") -> Limit:
        """Make the limit; `counts` stands in where it says nothing itself."""
        given: dict[str, Any] = {"counts": counts, **self.given()}
        return Limit(**given)

    @model_validator(mode="after")
    def _sound(self) -> LimitEntry:
        self.limit()
        return self


def _limit_item(value: object) -> Limit | LimitEntry | str:
    if isinstance(value, Limit):
        return value
    if isinstance(value, Mapping):
        return LimitEntry.model_validate(value)
    if not isinstance(value, str):
        raise ValueError("write '40 requests/week', or the fields of a limit")  # noqa: TRY004 - pydantic wants it
    kinds.check_limit_text(value)
    return value


LimitItem = Annotated[Limit | LimitEntry | str, kinds.Read(_limit_item, str | LimitEntry)]


class _Limited(Entry):
    rps: kinds.Count | None = Field(None, description="requests per second")
    rpm: kinds.Count | None = Field(None, description="requests per minute")
    rpd: kinds.Count | None = Field(None, description="requests per day")
    tpm: kinds.Count | None = Field(None, description="tokens per minute, input and output together")
    tpd: kinds.Count | None = Field(None, description="tokens per day, input and output together")
    itpm: kinds.Count | None = Field(None, description="input tokens per minute")
    otpm: kinds.Count | None = Field(None, description="output tokens per minute")
    concurrency: kinds.Count | None = Field(None, description="calls at once")
    limits: list[LimitItem] | None = Field(None, description="more limits, as '40 requests/week' or their fields")

    def all_limits(self, counts: str = "actual", strategy: str = "") -> tuple[Limit, ...]:
        """Make every limit of the entry, equal ones once."""
        given = self.given()
        made = [shorthand(name, given[name], counts=counts, strategy=strategy) for name in SHORTHANDS if name in given]
        made += [_limit_of(item, counts, strategy) for item in self.limits or ()]
        limits = tuple(dict.fromkeys(made))
        _check_names(limits)
        return limits


def _check_names(limits: tuple[Limit, ...]) -> None:
    """Refuse limits that no message and no store could tell apart."""
    names = [(limit.name, limit.scope) for limit in limits]
    for name, scope in names:
        if names.count((name, scope)) > 1:
            raise ConfigError(f"limits is {name}: two different ones are called {name!r}; give one a name of its own.")


def _limit_of(item: Limit | LimitEntry | str, counts: str, strategy: str) -> Limit:
    if isinstance(item, Limit):
        return item
    if isinstance(item, LimitEntry):
        return item.limit(counts)
    limit = Limit.parse(item)
    rate = limit.per is not None  # totals and concurrency go by one strategy only
    return replace(limit, counts=counts, strategy=strategy if strategy and rate else limit.strategy)


class _LimitedModels(_Limited):
    counts: kinds.Counts | None = Field(None, description="how the provider charges output when it admits a call")
    strategy: kinds.RateStrategy | None = Field(None, description="for the limits above that are not mappings")

    def own_limits(self) -> tuple[Limit, ...]:
        """Make every limit, counted and paced as the entry says."""
        return self.all_limits(self.counts or "actual", self.strategy or "")


class DegradeEntry(Entry):
    """The cheaper target that takes over when a budget runs low."""

    target: kinds.ModelTarget
    at: kinds.Share | None = Field(None, description="the share of the budget at which it does")


def _degrade(value: object) -> DegradeEntry:
    if isinstance(value, (str, Target)):
        return DegradeEntry.model_validate({"target": value})
    if not isinstance(value, Mapping):
        raise ValueError("write 'provider:model', or {target: 'provider:model', at: 0.8}")  # noqa: TRY004 - as above
    return DegradeEntry.model_validate(value)


class PriceEntry(Entry):
    """What calls cost."""

    cost_per_1k: kinds.Dollars | None = Field(None, description="dollars per 1,000 tokens, in both directions")
    input_per_1m: kinds.Dollars | None = Field(None, description="dollars per million tokens sent")
    output_per_1m: kinds.Dollars | None = Field(None, description="dollars per million tokens produced")
    cached_input_per_1m: kinds.Dollars | None = Field(None, description="dollars per million read from a cache")
    cache_write_per_1m: kinds.Dollars | None = Field(None, description="dollars per million written to a cache")
    cache_write_1h_per_1m: kinds.Dollars | None = Field(None, description="the same, kept for an hour")
    reasoning_per_1m: kinds.Dollars | None = None
    input_audio_per_1m: kinds.Dollars | None = None
    output_audio_per_1m: kinds.Dollars | None = None
    per_request: kinds.Dollars | None = Field(None, description="dollars per request, whatever its tokens")

    def price(self) -> Price | None:
        """Make the price; None when none is given."""
        given = self.given()
        prices = {name: given[name] for name in PriceEntry.model_fields if name in given}
        per_1k = prices.pop("cost_per_1k", None)
        both = [name for name in _BOTH_WAYS if name in prices]
        if per_1k is not None:
            if both:
                raise ConfigError(f"cost_per_1k is {per_1k}: give it or {both[0]}, not both.")
            return replace(Price.per_1k(per_1k), **prices)
        for name in _BOTH_WAYS:
            if prices and name not in prices:
                raise ConfigError(f"{name} is missing: add it (0 where it is free).")
        return Price(**prices) if prices else None


class ModelEntry(PriceEntry, _LimitedModels):
    """A model: its limits, its prices, and where its calls may go instead."""

    tiers: dict[kinds.Count, PriceEntry] | None = Field(
        None, description="prices of calls that send more than so many input tokens, as {200000: {…}}"
    )
    service_tiers: dict[kinds.Text, PriceEntry] | None = Field(
        None, description="prices of calls that are served in another way, as {batch: {…}}"
    )
    fallbacks: list[kinds.ModelTarget] | None = Field(None, description="where its calls go instead, in order")
    degrade_to: Annotated[DegradeEntry, kinds.Read(_degrade, str | DegradeEntry)] | None = Field(
        None, description="the cheaper target that takes over when a budget runs low"
    )
    degrade_at: kinds.Share | None = Field(None, description="the share of the budget at which it does")

    def price(self) -> Price | None:
        """Make the price with its tiers and service tiers; None when none is given."""
        usual = super().price()
        tiers, service_tiers = _prices("tiers", self.tiers), _prices("service_tiers", self.service_tiers)
        if not tiers and not service_tiers:
            return usual
        if usual is None:
            name = "tiers" if tiers else "service_tiers"
            raise ConfigError(f"{name} is given without a price: add input_per_1m and output_per_1m beside it.")
        return replace(usual, tiers=tiers, service_tiers=service_tiers)

    def share(self) -> float:
        """Tell from which share of a budget on the cheaper target takes over."""
        within = self.degrade_to.at if self.degrade_to else None
        if self.degrade_at is not None and (within is not None or self.degrade_to is None):
            fix = "it is in degrade_to already; remove one" if self.degrade_to else "add degrade_to, or remove this"
            raise ConfigError(f"degrade_at is {self.degrade_at}: {fix}.")
        return self.degrade_at or within or DEGRADE_AT

    @model_validator(mode="after")
    def _sound(self) -> ModelEntry:
        self.own_limits()
        self.price()
        self.share()
        return self


def _prices(field: str, entries: Mapping[Any, PriceEntry] | None) -> dict[Any, Price]:
    made: dict[Any, Price] = {}
    for key, entry in (entries or {}).items():
        price = entry.price()
        if price is None:
            refuse((field, key), "{}", "add input_per_1m and output_per_1m")
        made[key] = price
    return made


def _model_item(value: object) -> Model | ModelEntry:
    return value if isinstance(value, Model) else ModelEntry.model_validate({} if value is None else value)


ModelItem = Annotated[Model | ModelEntry, kinds.Read(_model_item, ModelEntry | None)]


class PoolEntry(_LimitedModels):
    """Limits that some models share."""

    models: list[kinds.Text] = Field(description="their names, or patterns such as '*:free'")

    def pool(self, name: str) -> Pool:
        """Make the pool."""
        return Pool(name, tuple(self.models), self.own_limits())

    @model_validator(mode="after")
    def _sound(self) -> PoolEntry:
        self.pool("pool")
        return self


def _pool_item(value: object) -> Pool | PoolEntry:
    return value if isinstance(value, Pool) else PoolEntry.model_validate(value)


PoolItem = Annotated[Pool | PoolEntry, kinds.Read(_pool_item, PoolEntry)]


class ProviderBody(_Limited):
    """A provider whose name is its key: its models, and the limits that they share."""

    preset: kinds.Text | None = Field(None, description="whose published limits to begin with")
    tier: kinds.Text | None = Field(None, description="the preset's tier; its smallest unless given")
    models: dict[kinds.Text, ModelItem] | None = Field(None, description="'*' stands for models not listed")
    pools: dict[kinds.Text, PoolItem] | None = Field(None, description="limits that some models share")
    base_url: kinds.BaseUrl | None = Field(None, description="where its API is, when not at the usual place")
    api_key: kinds.ApiKey | None = Field(None, description="the environment variable with the key: ${NAME}")
    kind: kinds.Text | None = Field(None, description="whose API it speaks, where the name does not tell")


class ProviderEntry(ProviderBody):
    """A provider in a list."""

    name: kinds.ProviderName = Field(description="what targets call it, as in openai:gpt-4")

    def fields(self) -> dict[str, object]:
        """Make what a `Provider` holds."""
        pools = {name: self._pool(name, item) for name, item in (self.pools or {}).items()}
        models = {name: self._model(name, item) for name, item in (self.models or {}).items()}
        named = (name for pool in pools.values() for name in pool.models if not _PATTERN.intersection(name))
        return {
            "name": self.name,
            "models": {**models, **{name: Model(name) for name in named if name not in models}},
            "limits": self.all_limits(),
            "pools": pools,
            "base_url": self.base_url,
            "kind": self.kind,
            "_api_key": self.api_key,
        }

    def _model(self, name: str, item: Model | ModelEntry) -> Model:
        if isinstance(item, Model):
            return item
        degrade = item.degrade_to
        return Model(
            name,
            limits=item.own_limits(),
            price=item.price(),
            fallbacks=tuple(map(self._target, item.fallbacks or ())),
            degrade_to=None if degrade is None else self._target(degrade.target),
            degrade_at=item.share(),
        )

    @staticmethod
    def _pool(name: str, item: Pool | PoolEntry) -> Pool:
        return item if isinstance(item, Pool) else item.pool(name)

    def _target(self, written: str | Target) -> Target:
        if isinstance(written, Target):
            return written
        own = ":" not in written or written in (self.models or {})  # a model's name may hold a colon
        return Target(self.name, written) if own else Target.parse(written)

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, written: object) -> object:
        """Lay what was written over the preset that it names."""
        if not isinstance(written, Mapping):
            return written
        entry = cast("Mapping[str, Any]", written)
        name, tier = entry.get("preset"), entry.get("tier")
        if name is None:
            return entry if tier is None else refuse(("tier",), tier, "it is a preset's; name that with 'preset'")
        from agent_rate_limiter.providers.presets import merged, preset

        try:
            base = preset(name, tier)
        except ConfigError as error:
            field = "tier" if str(error).startswith("tier") else "preset"
            refuse((field,), entry[field], str(error).partition(": ")[2].rstrip(".?"))
        return merged(base, {key: value for key, value in entry.items() if key not in {"preset", "tier"}})

    @model_validator(mode="after")
    def _models_sound(self) -> ProviderEntry:
        for name, item in (self.models or {}).items():
            model = self._model(name, item)
            if model.name != name:
                refuse(("models", name), model.name, "its name differs from its key; make them the same")
            itself = Target(self.name, name)
            if itself in model.fallbacks:
                place = model.fallbacks.index(itself)
                refuse(("models", name, "fallbacks", place), str(itself), "it is the model itself; remove it")
            if itself == model.degrade_to:
                refuse(("models", name, "degrade_to"), str(itself), "it is the model itself; name a cheaper one")
        return self


def provider_item(value: object) -> Provider:
    """Make a provider of its entry; a `Provider` stays as it is."""
    return value if isinstance(value, Provider) else Provider.from_fields(ProviderEntry.model_validate(value).fields())


def refuse(path: Path, value: object, fix: str) -> NoReturn:
    """Refuse a value further inside the entry that is checked."""
    problem = PydanticCustomError("refused", "{fix}", {"fix": fix})
    raise ValidationError.from_exception_data("refused", [InitErrorDetails(type=problem, loc=path, input=value)])
