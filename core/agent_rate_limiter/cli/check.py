"""`agent-rate-limiter check CONFIG`: is the file right, and what does it set?"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console

from agent_rate_limiter.budgets import Budget
from agent_rate_limiter.cli.tables import limits_text, new_table, price_text
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.multi_provider import MultiProviderLimiter
from agent_rate_limiter.provider import Provider

_ACTION = {"block": "calls are refused", "warn": "warn only", "degrade": "cheaper models, where named"}


def check_config(path: str) -> int:
    """Print what the file sets and return 0, or what is wrong with it and return 2."""
    try:
        limiter = MultiProviderLimiter.from_config(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    providers = list(limiter.providers.values())
    console = Console(highlight=False)
    _print_targets(console, providers)
    _print_budgets(console, limiter.budgets)
    models = sum(len(provider.models) for provider in providers)
    counts = (_count(len(providers), "provider"), _count(models, "model"), _count(len(limiter.budgets), "budget"))
    print(f"\n{path} is right: {', '.join(counts)}.")
    return 0


def _print_targets(console: Console, providers: list[Provider]) -> None:
    """Every model with its limits and price, and what a provider's models share."""
    table = new_table("Target", "Limits", "$ per 1M tokens, in / out")
    for provider in providers:
        if provider.limits:
            table.add_row(f"{provider.name} (all its models)", limits_text(provider.limits), "")
        for pool in provider.pools.values():
            table.add_row(f"{provider.name} ({', '.join(pool.models)} together)", limits_text(pool.limits), "")
        for name, model in provider.models.items():
            table.add_row(f"{provider.name}:{name}", limits_text(model.limits), price_text(model.price))
    if providers:
        console.print(table)


def _print_budgets(console: Console, budgets: Iterable[Budget]) -> None:
    table = new_table("Budget", "Whose", "When it is used up", "Alerts at")
    for budget in budgets:
        shares = ", ".join(f"{share:.0%}" for share in budget.thresholds or ())
        table.add_row(budget.as_limit().name, str(budget.scope) or "everybody's", _ACTION[budget.action], shares)
    if table.row_count:
        console.print("", table)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
