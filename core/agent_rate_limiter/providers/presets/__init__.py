"""Dated presets: the limits that providers publish. What a response's headers say wins over them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple, NoReturn, cast

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.providers.kinds import known_kind


class Preset(NamedTuple):
    """What there is to choose from.

    Args:
        name: the provider.
        tiers: its tiers, the smallest first.
        date: when the numbers were published or read, ISO.
        source: where.
        uncertain: True where the provider publishes no numbers, and these were observed.
    """

    name: str
    tiers: tuple[str, ...]
    date: str
    source: str
    uncertain: bool = False


def presets() -> list[Preset]:
    """List the presets, by name."""
    return [
        Preset(name, tuple(data["tiers"]), data["date"], data["source"], data.get("uncertain", False))
        for name, data in sorted(_load().items())
    ]


def preset(name: str, tier: str | None = None) -> dict[str, Any]:
    """Look up a provider's published limits.

    Args:
        name: the provider, or another name for it ("google").
        tier: one of its tiers; the smallest when None.

    Returns:
        Keyword arguments of `Provider(...)`: `name`, `models`, and where there are any `pools`, and limits that all
        models share.

    Raises:
        ConfigError: there is no such preset or tier; the message lists what there is.
    """
    known = _load()
    data = known.get(str(name)) or known.get(known_kind(name) or "")
    if data is None:
        _refuse("preset", name, list(known))
    tiers: Mapping[str, Any] = data["tiers"]
    chosen = next(iter(tiers)) if tier is None else str(tier)
    if chosen not in tiers:
        _refuse(f"tier of the preset {data['name']!r}", tier, list(tiers))
    return copy.deepcopy({"name": data["name"], **tiers[chosen]})


def merged(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Lay what a user gives over a preset: key by key, and so for each model and pool.

    A preset's provider keeps its kind under any name.
    """
    fields: dict[str, Any] = {"kind": preset["name"], **preset}
    fields.update((key, value) for key, value in given.items() if value is not None)
    for entries in ("models", "pools"):
        theirs, ours = given.get(entries), preset.get(entries, {})
        if isinstance(theirs, Mapping):
            changed = cast("Mapping[str, object]", theirs)
            fields[entries] = {**ours, **{name: _laid_over(ours.get(name), changed[name]) for name in changed}}
    return fields


def _laid_over(ours: Mapping[str, Any] | None, theirs: object) -> object:
    if ours and theirs is None:
        return ours
    return {**ours, **cast("Mapping[str, Any]", theirs)} if ours and isinstance(theirs, Mapping) else theirs


@lru_cache(maxsize=1)
def _load() -> dict[str, dict[str, Any]]:
    import yaml  # only presets and configuration files need it

    loaded = (
        yaml.safe_load(file.read_text(encoding="utf-8"))
        for file in files("agent_rate_limiter.providers.presets").iterdir()
        if file.name.endswith(".yaml")
    )
    return {data["name"]: data for data in loaded}


def _refuse(field: str, value: object, known: list[str]) -> NoReturn:
    close = get_close_matches(str(value), known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    message = f"{field} is {value!r}: it is one of {', '.join(sorted(known))}.{hint}"
    raise ConfigError(message)
