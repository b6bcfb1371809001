"""What a dialect must be able to say, and the formats of times that they share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import format_datetime
from typing import Any, Literal, Protocol

from agent_rate_limiter.testing.simulated.calls import Call, Reading, Refusal, Reply
from agent_rate_limiter.testing.simulated.options import Headers

Problem = Literal["bad_request", "authentication", "model_not_found", "server_error", "overloaded", "unavailable"]

ORGANIZATION = "org-simulated"

Readings = Mapping[str, Reading]


@dataclass(frozen=True)
class Moment:
    """The client's time now, and how to state simulated durations in it.

    Whole seconds, as providers send them; with time running faster than the client's, milliseconds as well,
    because a rounded second would be a minute.

    Args:
        now: epoch seconds on the client's clock.
        at: seconds of simulated time.
        speed: simulated seconds per second of the client's clock.
    """

    now: float
    at: float = 0.0
    speed: float = 1.0

    def real(self, seconds: float) -> float:
        """How long simulated seconds take for the client."""
        return seconds / self.speed

    def milliseconds(self, seconds: float) -> int:
        """Whole milliseconds, cut: published examples show 547 for 547.5 (Groq headers, 2026-07)."""
        return int(round(self.real(seconds) * 1e6) // 1000)

    def retry_after(self, seconds: float) -> str:
        """Seconds to wait, rounded up."""
        real = self.real(seconds)
        return str(math.ceil(round(real, 6))) if self.speed == 1 else f"{math.ceil(real * 1000) / 1000:g}"

    def retry_after_ms(self, seconds: float) -> str:
        """Milliseconds to wait, rounded up."""
        return str(math.ceil(round(self.real(seconds) * 1000, 3)))

    def duration(self, seconds: float) -> str:
        """As Go prints it: `12ms`, `8.64s`, `6m0s`, `1h26m24s`."""
        total = self.milliseconds(seconds)
        if 0 < total < 1000:  # noqa: PLR2004 - milliseconds of a second
            return f"{total}ms"
        minutes, rest = divmod(total, 60_000)
        text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
        hours, minutes = divmod(minutes, 60)
        return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}" if minutes else text

    def timestamp(self, seconds: float) -> str:
        """The moment that many simulated seconds from now, as RFC 3339."""
        if self.speed == 1:
            return _utc(math.ceil(self.now + seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        later = _utc(math.ceil((self.now + self.real(seconds)) * 1000) / 1000)
        return later.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def http_date(self) -> str:
        """Now, as the Date header has it."""
        return format_datetime(_utc(int(self.now)), usegmt=True)


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=timezone.utc)


class Wire(Protocol):
    """How one provider states quotas and errors."""

    request_id: str
    """The header that names a request."""

    def quota_headers(self, readings: Readings, moment: Moment, which: Headers) -> dict[str, str]:
        """The headers that state what remains."""
        ...

    def refusal(self, call: Call, refusal: Refusal, moment: Moment) -> Reply:
        """The answer to a call that the limits do not admit."""
        ...

    def problem(self, problem: Problem, model: str, message: str | None = None, param: str | None = None) -> Reply:
        """An ordinary error."""
        ...

    def stream_error(self) -> dict[str, Any]:
        """The error that typically breaks this provider's streams: `type`, `code`, `message`."""
        ...


def first(readings: Readings, *names: str) -> Reading | None:
    """The first of these limits that is in force."""
    return next((readings[name] for name in names if name in readings), None)
