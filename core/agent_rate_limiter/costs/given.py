"""What users give a CostTracker, checked: prices, usage, moments."""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from numbers import Real
from typing import Any, cast

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.limits import Target
from agent_rate_limiter.plain import is_number
from agent_rate_limiter.pricing import Price, check_price
from agent_rate_limiter.usage import Usage


def prices_of(given: Mapping[Any, Price] | None) -> dict[Target, Price]:
    """Return prices by target.

    Raises:
        ConfigError: it is no mapping of targets to prices.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(f"prices is {given!r}: give a mapping of a target to a Price(input_per_1m, output_per_1m).")
    prices: dict[Target, Price] = {}
    for target, price in (given or {}).items():
        check_price(f"prices[{str(target)!r}]", price)
        prices[Target.parse(target)] = price
    return prices


def usage_of(given: object, service_tier: str) -> Usage:
    """Return what a call used, as a response or its dict states it, or as it was given.

    Raises:
        ConfigError: it states none.
    """
    from agent_rate_limiter.providers import read_usage

    usage = read_usage(given)
    if usage is None:
        raise ConfigError(f"No usage found in a {type(given).__name__}: pass an SDK's response, or a Usage(...).")
    if service_tier:
        from dataclasses import replace

        return replace(usage, service_tier=service_tier)
    return usage


def took(latency: object) -> int:
    """Return a latency in milliseconds.

    Raises:
        ConfigError: it is no finite number of seconds.
    """
    if not is_number(latency) or not 0 <= latency < 1e9:  # noqa: PLR2004 - thirty years
        raise ConfigError(f"latency is {latency!r}: give seconds as a finite number of at least 0.")
    return round(latency * 1000)


def span_of(since: float | datetime | None, until: float | datetime | None) -> tuple[int | None, int | None]:
    """Return the first and the last millisecond of a span; what begins at `until` is not in it.

    Raises:
        ConfigError: an end of it is no moment.
    """
    end = milliseconds("until", until)
    return milliseconds("since", since), None if end is None else end - 1


def milliseconds(field: str, moment: float | datetime | None) -> int | None:
    """Return a moment in epoch milliseconds.

    Raises:
        ConfigError: it is none.
    """
    if moment is None:
        return None
    seconds: Any = moment.timestamp() if isinstance(moment, datetime) else moment
    number = isinstance(seconds, Real) and not isinstance(seconds, bool)  # NumPy's are, too
    if not number or not -1e12 < cast("Any", seconds) < 1e12:  # noqa: PLR2004 - some 30,000 years
        raise ConfigError(f"{field} is {moment!r}: give epoch seconds or a datetime.")
    return round(float(seconds) * 1000)
