"""Configuration: one schema for files, mappings and `Provider(...)`, and clear words for what is wrong."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from agent_rate_limiter._environment import Expanded, expanded
from agent_rate_limiter.alerts.webhook import Webhook
from agent_rate_limiter.config import fields as kinds
from agent_rate_limiter.config.entries import (
    DegradeEntry,
    Entry,
    LimitEntry,
    ModelEntry,
    PoolEntry,
    PriceEntry,
    ProviderBody,
    ProviderEntry,
    provider_item,
    refuse,
)
from agent_rate_limiter.config.problems import Path, problem, problems_in, shown
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.provider import Provider

__all__ = ["LimiterConfig", "config_schema", "load_config", "provider_fields"]

_Schema = TypeVar("_Schema", bound=BaseModel)
_ProviderItem = Annotated[Provider, kinds.Read(provider_item)]
_NAMED = TypeAdapter(dict[Any, _ProviderItem])
_LISTED = TypeAdapter(list[_ProviderItem])


def _providers(value: object) -> tuple[Provider, ...]:
    """Read a list of providers, or a mapping of their names to the rest."""
    if isinstance(value, Mapping):
        entries = cast("Mapping[object, object]", value)
        named = _NAMED.validate_python({name: _named(name, entry) for name, entry in entries.items()})
        for name, provider in named.items():
            if provider.name != name:
                refuse((name, "name"), provider.name, "its key says another name; remove one")
        return tuple(named.values())
    listed = _LISTED.validate_python(value)
    names = [provider.name for provider in listed]
    for place, name in enumerate(names):
        if name in names[:place]:
            refuse((place, "name"), name, "it is listed already; put all its models in one entry")
    return tuple(listed)


def _named(name: object, entry: object) -> object:
    if isinstance(entry, Mapping):
        return {"name": name, **cast("Mapping[str, object]", entry)}
    return {"name": name} if entry is None else entry


class BudgetEntry(Entry):
    """A limit on what is spent."""

    limit: kinds.Positive = Field(description="dollars")
    per: kinds.BudgetPeriod | None = Field(None, description="a word, or seconds; 'total' never starts again")
    scope: kinds.ScopeLabels | None = Field(None, description="whose spending, as {agent: each}")
    action: kinds.Action | None = Field(None, description="what happens to a call that does not fit")
    timezone: kinds.Timezone | None = Field(None, description="where a day begins, as an IANA name")
    thresholds: kinds.Shares | None = Field(None, description="the shares at which to alert")
    name: kinds.Text | None = Field(None, description="what messages call it")
    rolling: kinds.Flag | None = Field(None, description="any stretch of that length, not the calendar's")


class RetryBudgetEntry(Entry):
    """How many retries of failures are allowed: the arguments of `RetryBudget`."""

    ratio: kinds.AtLeast0 | None = Field(None, description="retries per call of the last ten seconds")
    minimum: kinds.Whole | None = Field(None, description="retries per ten seconds that are always allowed")


class RetryEntry(Entry):
    """How failed calls are tried again: the arguments of `RetryStrategy` that a file can hold."""

    max_attempts: kinds.Count | None = Field(None, description="the first included; 1 never retries")
    max_time: kinds.Seconds | None = Field(None, description="seconds after which none is begun")
    backoff: kinds.Backoff | None = None
    base: kinds.Seconds | None = Field(None, description="seconds of the first backoff")
    cap: kinds.Seconds | None = Field(None, description="seconds of the longest backoff")
    jitter: kinds.Jitter | None = None
    budget: RetryBudgetEntry | None = Field(None, description="bounds the share of retries")

    def options(self) -> dict[str, Any]:
        """Make the mapping that `RetryStrategy.of` takes."""
        return self.given() | ({} if self.budget is None else {"budget": self.budget.given()})


class AlertEntry(Entry):
    """A webhook that is told of alerts."""

    webhook: kinds.Text = Field(description="its address, as https://host/path or ${NAME}", repr=False)
    secret: kinds.Text | None = Field(None, description="signs what is sent, as ${NAME}", repr=False)
    format: kinds.AlertFormat | None = Field(None, description="the Alert's fields, or a message for Slack")
    timeout: kinds.Positive | None = Field(None, description="seconds that an attempt may take")

    @model_validator(mode="after")
    def _sound(self) -> AlertEntry:
        Webhook.of(self.given())
        return self


def _alerts(value: object) -> list[AlertEntry]:
    several: list[object] = cast("list[object]", value) if isinstance(value, list) else [value]
    return _SEVERAL_ALERTS.validate_python(several)


_SEVERAL_ALERTS = TypeAdapter(list[AlertEntry])


class LimiterConfig(Entry):
    """All that a limiter can be told by a file; what is left open is up to `MultiProviderLimiter`."""

    providers: Annotated[
        tuple[Provider, ...],
        kinds.Read(_providers, list[ProviderEntry] | dict[str, ProviderBody | None]),
    ] = Field((), description="a list, or a mapping of their names")
    budget_limit: kinds.Positive | None = Field(None, description="dollars per budget_period")
    budget_period: kinds.BudgetPeriod = Field("day", description="a word, or seconds; 'total' never starts again")
    timezone: kinds.Timezone | None = Field(None, description="where a day begins, as an IANA name")
    alert_threshold: kinds.Shares | None = Field(None, description="the shares of a budget at which to alert")
    limit_alert_threshold: kinds.Shares | None = Field(None, description="the same for limits on anything else")
    on_alert: Annotated[list[AlertEntry], kinds.Read(_alerts, AlertEntry | list[AlertEntry])] = Field(
        [], description="webhooks that are told", repr=False
    )
    budgets: tuple[BudgetEntry, ...] = Field((), description="further budgets, for agents, runs, …")
    fallbacks: dict[kinds.FullTarget, list[kinds.FullTarget]] = Field({}, description="where calls go instead")
    retry: RetryEntry | None = None
    store: kinds.StoreUri | None = Field(  # it may hold a password
        None, description="where the state lives: memory://, sqlite:///…, redis://…", repr=False
    )
    on_store_error: kinds.StoreError | None = Field(None, description="what happens while the store is lost")
    lease_tokens: kinds.Count | None = Field(None, description="tokens that a process takes of a shared store at once")
    lease: kinds.Positive | None = Field(None, description="seconds until an abandoned reservation comes back")
    ageing: kinds.Positive | None = Field(None, description="seconds of waiting that raise a priority by one")
    max_queue: kinds.MaxQueue | None = Field(None, description="calls that may wait for a limit; or by priority")
    policy: kinds.Policy | None = Field(None, description="how one of several targets is chosen")
    fallback_after: kinds.Seconds | None = Field(None, description="seconds until a fallback is looked at")
    ledger: kinds.StoreUri | None = Field(
        None, description="where the books are kept: memory://, sqlite:///costs.db", repr=False
    )
    on_unknown_price: kinds.UnknownPrice | None = Field(None, description="what to do about a model without a price")

    @model_validator(mode="after")
    def _no_loops(self) -> LimiterConfig:
        for target, others in self.fallbacks.items():
            if target in others:
                refuse(("fallbacks", target, others.index(target)), target, "it is the target itself; remove it")
        return self

    def to_options(self) -> dict[str, Any]:
        """Make the arguments of `MultiProviderLimiter`: the providers, and whatever else was written."""
        options = self.given() | {"providers": list(self.providers)}
        if self.budgets:
            options["budgets"] = [budget.given() for budget in self.budgets]
        if self.on_alert:
            options["on_alert"] = [entry.given() for entry in self.on_alert]
        if self.retry is not None:
            options["retry"] = self.retry.options()
        return options


def load_config(source: str | os.PathLike[str] | Mapping[str, Any]) -> LimiterConfig:
    """Read the configuration of a limiter.

    `${NAME}` in any text is replaced by that environment variable, `${NAME:-text}` by it or the text.

    Args:
        source: a .yaml, .yml or .json file, or a mapping.

    Raises:
        ConfigError: it cannot be read or makes no sense; a line for everything that is wrong, with the fix.
    """
    if isinstance(source, Mapping):
        return _load("config", source)
    if not isinstance(source, (str, os.PathLike)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"config is {shown(source)}: give the name of a file, or a mapping.")
    from agent_rate_limiter.config.text import read_file  # only files need YAML

    return _load(os.fspath(source), read_file(source))


def _load(where: str, written: object) -> LimiterConfig:
    if isinstance(written, Mapping):
        entries = cast("Mapping[str, object]", written)
        written = {key: value for key, value in entries.items() if key != "$schema"}  # that is for editors
    try:
        content = expanded({} if written is None else written)
    except RecursionError:
        raise ConfigError(f"{where}: it is nested too deeply.") from None
    return _checked(LimiterConfig, where, content)


def config_schema() -> dict[str, Any]:
    """Make the JSON schema of configuration files, with which editors complete and check them."""
    schema = LimiterConfig.model_json_schema()
    schema["properties"]["$schema"] = {"type": "string"}
    return schema


def provider_fields(written: Mapping[str, object]) -> dict[str, object]:
    """Check the arguments of `Provider`, and make what it holds.

    Raises:
        ConfigError: they make no sense; a line for everything that is wrong, with the fix.
    """
    where = f"Provider {shown(written['name'])}"
    return _checked(ProviderEntry, where, Expanded(written, {}, {})).fields()


def _checked(schema: type[_Schema], where: str, content: Expanded) -> _Schema:
    found: dict[Path, str] = {}
    try:
        valid = schema.model_validate(content.data)
    except ValidationError as error:
        valid = None
        details = error.errors(include_url=False)
        found = problems_in(details, lambda path: _keys_at(schema, path), content.originals)
    found |= {path: problem(path, content.originals[path], fix) for path, fix in content.problems.items()}
    if valid is None or found:  # raised out here, so that no context of it repeats what was written
        raise ConfigError("\n".join(f"{where}: {text}" for text in found.values()))
    return valid


_ENTRIES: Mapping[int | str, type[BaseModel]] = {
    "providers": ProviderEntry,
    "models": ModelEntry,
    "pools": PoolEntry,
    "limits": LimitEntry,
    "degrade_to": DegradeEntry,
    "budgets": BudgetEntry,
    "tiers": PriceEntry,
    "service_tiers": PriceEntry,
    "on_alert": AlertEntry,
    "retry": RetryEntry,
    "budget": RetryBudgetEntry,
}
_ITSELF = {"degrade_to", "retry", "budget"}
"""Entries that are no list and no mapping of entries."""


def _keys_at(schema: type[BaseModel], path: Path) -> Collection[str]:
    """Find the keys that are known at a place."""
    parts = iter(path)
    for part in parts:
        schema = _ENTRIES.get(part, schema)
        if part not in _ITSELF:
            next(parts, None)  # a name or a position
    return schema.model_fields
