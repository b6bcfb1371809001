"""Where the window of a moment begins and ends."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from agent_rate_limiter.limits import PERIOD_SECONDS

FOREVER = 1 << 52
"""The end of a window that never ends, in milliseconds; safe in a double."""

CALENDAR_WORDS = frozenset({"day", "week", "month"})


def window(now: int, per: float | str | None, timezone: str = "UTC") -> tuple[int, int]:
    """Return start and end (epoch milliseconds) of the window that `now` is in.

    Days, weeks (from Monday) and months follow the calendar of the time zone, daylight saving included;
    all other periods are counted from the epoch; None is one window without end.
    """
    if per is None:
        return (0, FOREVER)
    if isinstance(per, str) and per in CALENDAR_WORDS:
        return _calendar_window(now, per, timezone)
    seconds = PERIOD_SECONDS[per] if isinstance(per, str) else per
    period = max(1, round(seconds * 1000))
    start = now - now % period
    return (start, start + period)


def _calendar_window(now: int, word: str, timezone: str) -> tuple[int, int]:
    zone = _zone(timezone)
    today = datetime.fromtimestamp(now / 1000, zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if word == "day":
        first, following = today, today + timedelta(days=1)
    elif word == "week":
        first = today - timedelta(days=today.weekday())
        following = first + timedelta(days=7)
    else:
        first = today.replace(day=1)
        following = (first + timedelta(days=32)).replace(day=1)
    return (_milliseconds(first), _milliseconds(following))


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
