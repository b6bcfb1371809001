"""What users pass is checked, whatever its annotation promises: each check names the field, the value and the fix."""

# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.plain import is_number, is_whole, meant
from agent_rate_limiter.usage import Estimate

ONE_REQUEST = Estimate()
_COUNTS = ("requests", "input_tokens", "output_tokens", "max_output_tokens", "cost", "exact")
"""In the order of an Estimate's fields."""
_LONGEST = 1e10
"""Seconds; three hundred years are as good as for ever."""
_MOST_TOKENS = 10**9


def check_priority(priority: int) -> int:
    """Return a priority as a whole number.

    Raises:
        ConfigError: it is none, or below 0.
    """
    if isinstance(priority, int) and not isinstance(priority, bool) and priority >= 0:
        return int(priority)
    message = f"priority is {priority!r}: give a whole number of at least 0, lower goes first (Priority.HIGH is 1)."
    raise ConfigError(message)


def check_timeout(timeout: float) -> int:
    """Return a timeout in milliseconds.

    Raises:
        ConfigError: it is no finite number of seconds, or below 0.
    """
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if number and 0 <= timeout <= _LONGEST:
        return round(timeout * 1000)
    message = f"timeout is {timeout!r}: give seconds as a finite number of at least 0, or None to wait for ever."
    raise ConfigError(message)


def is_plain(function: object) -> bool:
    """Whether it can be called, and is done when it returns: no coroutine function, nor an object that is one."""
    called = getattr(function, "__call__", None)  # noqa: B004 - what it does, not whether
    return callable(function) and not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called))


def check_estimate(estimate: object) -> None:
    """Raise a ConfigError unless it is an Estimate."""
    if not isinstance(estimate, Estimate):
        raise ConfigError(
            f"estimate is {estimate!r}: give an Estimate(input_tokens=…, max_output_tokens=…), or counts."
        )


def make_estimate(estimate: Estimate | None, counts: Mapping[str, Any]) -> Estimate:
    """Return the estimate, or the one that keyword counts stand for.

    Raises:
        ConfigError: both are given, or a count that there is not.
    """
    if estimate is None:
        try:
            return Estimate(**counts) if counts else ONE_REQUEST
        except TypeError:
            name = next(name for name in counts if name not in _COUNTS)
            raise ConfigError(f"{name}: no such count; {meant(name, _COUNTS)}") from None
    if counts:
        message = f"{next(iter(counts))} is given beside an Estimate: put it into the Estimate."
        raise ConfigError(message)
    return estimate


def check_span(field: str, seconds: float) -> int:
    """Return a span of time in milliseconds.

    Raises:
        ConfigError: it is no finite number of seconds above 0.
    """
    try:
        milliseconds = check_timeout(seconds)
    except ConfigError:
        milliseconds = 0
    if milliseconds < 1:
        message = f"{field} is {seconds!r}: give seconds as a finite number above 0."
        raise ConfigError(message)
    return milliseconds


def check_queue(max_queue: object) -> dict[int | None, int]:
    """Return how many calls may wait: under None all together, under a priority those of that priority.

    Raises:
        ConfigError: a number or a priority makes no sense.
    """
    if max_queue is None:
        return {}
    given: Any = max_queue
    bounds: dict[Any, Any] = dict(given) if isinstance(max_queue, Mapping) else {None: given}
    for priority, most in bounds.items():
        if priority is not None:
            check_priority(priority)
        if not is_whole(most) or most < 0:
            fix = "give a whole number of at least 0, or {priority: number}"
            raise ConfigError(f"max_queue is {max_queue!r}: {fix}.")
    return {None if priority is None else int(priority): most for priority, most in bounds.items()}


def check_lease_tokens(lease_tokens: object) -> None:
    """Raise a ConfigError unless it is a number of tokens that calls can be served from."""
    if not is_whole(lease_tokens) or not 0 < lease_tokens <= _MOST_TOKENS:
        fix = "give tokens as a whole number above 0 and up to a billion, several times what a call uses, or None"
        raise ConfigError(f"lease_tokens is {lease_tokens!r}: {fix}.")


def check_seconds(field: str, seconds: object) -> None:
    """Raise a ConfigError unless it is a finite number of seconds, 0 at least."""
    if not is_number(seconds) or not 0 <= seconds <= _LONGEST:
        raise ConfigError(f"{field} is {seconds!r}: give seconds as a finite number of at least 0.")


def listed(field: str, given: Any, what: str) -> tuple[Any, ...]:
    """Return what a list holds; the field's name and what belongs into it are for the message.

    Raises:
        ConfigError: it is no list.
    """
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise ConfigError(f"{field} is {given!r}: give a list of {what}.")
    return tuple(cast("Iterable[object]", given))


def check_clock(clock: object) -> None:
    """Raise a ConfigError unless it tells the time."""
    if not callable(getattr(clock, "now", None)):
        raise ConfigError(f"clock is {clock!r}: give an object with now() -> epoch milliseconds, or None.")


def check_thresholds(thresholds: float | Sequence[float], field: str = "alert_threshold") -> tuple[float, ...]:
    """Return alert thresholds in rising order.

    Raises:
        ConfigError: one is not a share above 0 and up to 1.
    """
    shares: tuple[Any, ...] = tuple(thresholds) if isinstance(thresholds, (tuple, list)) else (thresholds,)
    for share in shares:
        if not is_number(share) or not 0 < share <= 1:
            message = f"{field} is {share!r}: give a share above 0 and up to 1, such as 0.8, or several."
            raise ConfigError(message)
    return tuple(sorted(set(shares)))
