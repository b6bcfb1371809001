"""Shares of a limit at which somebody is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_rate_limiter.errors import ConfigError


def check_thresholds(thresholds: float | Sequence[float], field: str = "alert_threshold") -> tuple[float, ...]:
    """Return alert thresholds in rising order.

    Raises:
        ConfigError: one is not a share above 0 and up to 1.
    """
    shares: tuple[Any, ...] = tuple(thresholds) if isinstance(thresholds, (tuple, list)) else (thresholds,)
    for share in shares:
        number = isinstance(share, (int, float)) and not isinstance(share, bool)
        if not number or not 0 < share <= 1:
            message = f"{field} is {share!r}: give a share above 0 and up to 1, such as 0.8, or several."
            raise ConfigError(message)
    return tuple(sorted(set(shares)))
