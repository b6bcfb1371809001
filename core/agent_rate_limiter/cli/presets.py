"""`agent-rate-limiter presets [NAME]`: the limits that providers publish, with date and source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import click
from rich.console import Console

from agent_rate_limiter.cli.tables import limits_text, new_table
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.provider import Provider
from agent_rate_limiter.providers.presets import Preset, preset, presets

_WORDS = ("name", "models", "pools")


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
    """Print a preset's limits, model by model.

    Raises:
        click.ClickException: there is no such preset or tier.
    """
    try:
        entry = preset(name, tier)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    about = next(each for each in presets() if each.name == entry["name"])
    click.echo(f"{about.name}, {tier or about.tiers[0]} (of {', '.join(about.tiers)})")
    click.echo(f"{_origin(about)}\n")
    table = new_table("Models", "Limits")
    for models, limits in _rows(entry):
        table.add_row(models, limits)
    Console(highlight=False).print(table)


def _origin(about: Preset) -> str:
    return f"{'observed, not published; ' if about.uncertain else ''}{about.date}, {about.source}"


def _rows(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What all models share, what some do, and what each has for itself."""
    yield from _row("all models together", {key: value for key, value in entry.items() if key not in _WORDS})
    for pool in cast("Mapping[str, Any]", entry.get("pools", {})).values():
        names = _names(pool["models"])
        yield from _row(f"{names} together", {key: value for key, value in pool.items() if key != "models"})
    alike: dict[str, list[str]] = {}
    for model, limits in cast("Mapping[str, Any]", entry.get("models", {})).items():
        for _, text in _row(model, limits):
            alike.setdefault(text, []).append(model)
    for text, models in alike.items():
        yield (_names(models) + (", each" if models[1:] else "")), text


def _row(whose: str, limits: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if limits:
        yield whose, limits_text(Provider("preset", {"model": limits}).models["model"].limits)


def _names(models: str | list[str]) -> str:
    return models if isinstance(models, str) else ", ".join(models)
