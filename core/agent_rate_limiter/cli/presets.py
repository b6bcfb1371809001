"""`agent-rate-limiter presets [NAME]`: the limits that providers publish, with date and source."""

from __future__ import annotations

from collections.abc import Iterator

import click
from rich.console import Console

from agent_rate_limiter.cli.tables import limits_text, new_table
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.provider import Provider
from agent_rate_limiter.providers.presets import Preset, presets


def list_presets() -> None:
    """Print every preset, its tiers, its date and where it is from."""
    table = new_table("Provider", "Tiers", "Date")
    known = presets()
    for each in known:
        table.add_row(each.name, ", ".join(each.tiers), each.date + (" observed" if each.uncertain else ""))
    Console(highlight=False).print(table)
    click.echo("\nObserved: the provider publishes no numbers. What a response's headers say wins over all of these.")
    click.echo("One of them: agent-rate-limiter presets NAME --tier TIER")


def show_preset(name: str, tier: str | None) -> None:
    """Print a preset's limits, model by model: those of the provider that it makes.

    Raises:
        click.UsageError: there is no such preset or tier.
    """
    try:
        provider = Provider.preset(name, tier)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    about = next(each for each in presets() if each.name == provider.name)
    click.echo(f"{about.name}, {tier or about.tiers[0]} (of {', '.join(about.tiers)})")
    click.echo(f"{_origin(about)}\n")
    table = new_table("Models", "Limits")
    for models, limits in _rows(provider):
        table.add_row(models, limits)
    Console(highlight=False).print(table)


def _origin(about: Preset) -> str:
    return f"{'observed, not published; ' if about.uncertain else ''}{about.date}, {about.source}"


def _rows(provider: Provider) -> Iterator[tuple[str, str]]:
    """What all models share, what some do, and what each has for itself."""
    if provider.limits:
        yield "all models together", limits_text(provider.limits)
    for pool in provider.pools.values():
        yield f"{', '.join(pool.models)} together", limits_text(pool.limits)
    alike: dict[str, list[str]] = {}
    for name, model in provider.models.items():
        if model.limits:
            alike.setdefault(limits_text(model.limits), []).append(name)
    for text, models in alike.items():
        yield ", ".join(models) + (", each" if models[1:] else ""), text
