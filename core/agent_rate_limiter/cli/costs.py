"""`agent-rate-limiter costs FILE`: what a ledger's file says was spent."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

import click

from agent_rate_limiter.cost_tracker import CostTracker
from agent_rate_limiter.costs.report import CostReport
from agent_rate_limiter.errors import RateLimiterError

_UNITS = {"h": 3_600, "d": 86_400, "w": 7 * 86_400}


class Asked(NamedTuple):
    """What is to be shown.

    Args:
        by: labels to group by.
        since: a date, or how long ago ("24h", "7d"); None for all.
        until: the same; not included.
        every: a row for each "hour", "day", "week" or "month", too.
        zone: where days begin.
        calls: so many single calls instead.
    """

    by: tuple[str, ...]
    since: str | None
    until: str | None
    every: str | None
    zone: str
    calls: int | None


def show_costs(path: str, asked: Asked, form: str) -> int:
    """Print a report of a ledger's file, as a "table", "csv" or "json"; return 2 if there is none."""
    try:
        with CostTracker.reading(path) as costs:
            report = _report(costs, asked)
    except RateLimiterError as error:
        print(error, file=sys.stderr)
        return 2
    if form == "csv":
        print(report.to_csv(), end="")
    elif form == "json":
        print(report.to_json(), end="")
    else:
        print(report.to_text(total=True))
    return 0


def _report(costs: CostTracker, asked: Asked) -> CostReport:
    since, until = _moment("--since", asked.since), _moment("--until", asked.until)
    if asked.calls is not None:
        return costs.rows(asked.calls, since=since, until=until)
    return costs.report(asked.by, since, until, every=asked.every, timezone=asked.zone)


def _moment(option: str, text: str | None) -> datetime | None:
    """Read a date with or without a time (UTC unless it says), or how long ago."""
    if text is None:
        return None
    try:
        if text[-1:] in _UNITS and text[:-1].isdigit():
            return datetime.now(timezone.utc) - timedelta(seconds=int(text[:-1]) * _UNITS[text[-1]])
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r}: give a date such as 2026-11-20, or 24h, 7d, 4w ago.", param_hint=option
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
