"""What users declare, checked and made into what a limiter looks things up in."""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from agent_rate_limiter.budgets import Budget
from agent_rate_limiter.calls.choice import Elsewhere
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.limits import Limit, Resource, Target
from agent_rate_limiter.pricing import Price
from agent_rate_limiter.provider import ANY_MODEL, Provider


def fallbacks_of(given: Mapping[str, Sequence[str | Target]] | None) -> dict[Target, tuple[Target, ...]]:
    """Return where each target's calls may go instead.

    Raises:
        ConfigError: it is no mapping of targets to lists of targets.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"fallbacks is {given!r}: give a mapping of a target to a list of targets.")
    found: dict[Target, tuple[Target, ...]] = {}
    for text, others in given.items():
        if isinstance(others, (str, Target)) or not isinstance(others, Sequence):
            raise ConfigError(f"fallbacks of {text!r} is {others!r}: give a list of targets.")
        target = Target.parse(text)
        found[target] = tuple(Target.parse(other) for other in others)
        if target in found[target]:
            raise ConfigError(f"fallbacks of '{target}' hold the target itself: remove it.")
    return found


class DeclaredTarget:
    """What is declared of one target.

    Args:
        limits: every limit that a call to it is under, each with the name of what it belongs to.
        price: what it costs, where the user says.
        kind: whose price list it is on else.
        rated: whether its limits are known.
    """

    __slots__ = ("kind", "limits", "price", "rated")

    def __init__(self, limits: Sequence[tuple[str, Limit]], price: Price | None, kind: str, *, rated: bool) -> None:
        self.limits = limits
        self.price = price
        self.kind = kind
        self.rated = rated


def declared_of(
    providers: Mapping[str, Provider], target: Target, budgets: Sequence[tuple[str, Limit]]
) -> DeclaredTarget:
    """Return what is declared of one target; without any provider, every target is allowed, and only budgets bind.

    Raises:
        ConfigError: it is not configured.
    """
    if not providers:
        return DeclaredTarget(budgets, None, target.provider, rated=False)
    provider = providers.get(target.provider)
    model = None if provider is None else provider.model(target.model)
    if provider is None or model is None:
        raise _unknown(
            target, [f"{p.name}:{name}" for p in providers.values() for name in p.models if name != ANY_MODEL]
        )
    limits = [(str(target), limit) for limit in model.limits]
    limits += [(f"{provider.name} pool {p.name}", limit) for p in provider.pools_of(target.model) for limit in p.limits]
    limits += [(provider.name, limit) for limit in provider.limits]
    rated = any(limit.resource is not Resource.COST for _, limit in limits)
    return DeclaredTarget((*limits, *budgets), model.price, price_list_of(provider), rated=rated)


def _unknown(target: Target, known: Sequence[str]) -> ConfigError:
    """Return the error for a target that nobody configured, with the nearest names."""
    from difflib import get_close_matches

    near = get_close_matches(str(target), known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    names = ", ".join(f"'{name}'" for name in known[:8]) + (", …" if len(known) > 8 else "")  # noqa: PLR2004
    have = f"Configured: {names}. " if known else "No model is. "
    fix = "Add it to its Provider's models, or a model '*' for all others."
    return ConfigError(f"target is '{target}': {hint}It is not configured. {have}{fix}")


def elsewhere_of(provider: Provider | None, target: Target, others: tuple[Target, ...]) -> Elsewhere:
    """Return where a target's calls may go instead: by its limiter, and then by its model."""
    model = provider and provider.model(target.model)
    return Elsewhere((*others, *model.fallbacks), model.degrade_to, model.degrade_at) if model else Elsewhere(others)


def named_elsewhere(
    providers: Mapping[str, Provider], fallbacks: Mapping[Target, tuple[Target, ...]]
) -> Iterator[str | Target]:
    """Every target that fallbacks name: each has to be configured."""
    for target, others in fallbacks.items():
        yield from (target, *others)
    for provider in providers.values():
        for model in provider.models.values():
            yield from filter(None, (*model.fallbacks, model.degrade_to))


def by_name(providers: Iterable[Provider]) -> dict[str, Provider]:
    """Return providers by their names.

    Raises:
        ConfigError: one is no provider, or named twice.
    """
    found: dict[str, Provider] = {}
    if isinstance(providers, (Provider, str, Mapping)) or not isinstance(providers, Iterable):
        raise ConfigError(f"providers is {providers!r}: give a list of Provider(...).")
    for provider in providers:
        if not isinstance(provider, Provider):
            raise ConfigError(f"providers hold {provider!r}: give Provider(...) objects.")
        if provider.name in found:
            message = f"providers name {provider.name!r} twice: merge their models into one Provider."
            raise ConfigError(message)
        found[provider.name] = provider
    return found


def price_list_of(provider: Provider) -> str:
    """Whose price list a provider's models are on."""
    from agent_rate_limiter.providers import detect

    return provider.kind or (detect(provider.base_url) if provider.base_url else None) or provider.name


def make_ready(providers: Collection[Provider]) -> None:
    """Load now what the first call would load, and hold an event loop for: dialects, and prices that nobody gave."""
    for provider in providers:
        price_list_of(provider)
    if not all(model.price for provider in providers for model in provider.models.values()) or not providers:
        from agent_rate_limiter.costs.price_table import load_prices

        load_prices()


def with_thresholds(budget: Budget, thresholds: tuple[float, ...]) -> Budget:
    """Return a budget with these thresholds, unless it has its own."""
    return replace(budget, thresholds=thresholds) if budget.thresholds is None else budget


def one_target(target: str | Target | None, provider: str | None, model: str | None) -> str | Target:
    """Return the target that a decorator names, in one way or the other.

    Raises:
        ConfigError: in neither, or in both.
    """
    if target is not None and provider is None and model is None:
        return target
    if target is None and provider is not None and model is not None:
        return Target(provider, model)
    message = (
        f"target is {target!r}, provider {provider!r}, model {model!r}: "
        "give target='provider:model', or both provider= and model=."
    )
    raise ConfigError(message)
