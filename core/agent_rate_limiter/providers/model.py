"""What providers say, in one vocabulary: quotas that they state, and failures."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from agent_rate_limiter.limits import Resource


class FailureKind(str, Enum):
    """What to do about a failed call."""

    WAIT = "wait"
    """A short limit is exhausted: wait and retry."""
    PARKED = "parked"
    """A day's, week's or month's quota is exhausted: closed until it resets."""
    NO_CREDIT = "no_credit"
    """Credit or quota is gone and does not come back by waiting: fail fast."""
    OVERLOADED = "overloaded"
    """The provider is short of capacity: fall back or shed load."""
    TOO_LARGE = "too_large"
    """The request is larger than the limit: it never fits."""
    TRANSIENT = "transient"
    """The network or the server failed: retry."""
    FATAL = "fatal"
    """The request itself is refused: do not retry."""


@dataclass(frozen=True)
class Failure:
    """A failed call, as the provider (or the network) told it.

    Args:
        kind: what to do about it.
        retry_after: seconds until it may be tried again, as the provider told; None when it did not.
        resource: which dimension binds, when the provider says.
        period: the binding limit's period ("second" … "month"), when the provider says.
        sent: whether the request reached the provider; False for a refused connection.
        limit: the limit's amount, when the message says.
        used: how much of it was used, when the message says.
        requested: how much of it the call asked for, when the message says.
        code: the provider's code for it; empty when there is none.
        message: the provider's message, shortened and without secrets.
        status: the HTTP status; None when there was no response.
        stale: whether the connection was of an event loop that is gone, which is no fault of the provider's.
    """

    kind: FailureKind
    retry_after: float | None = None
    resource: Resource | None = None
    period: str | None = None
    sent: bool = True
    limit: int | None = None
    used: int | None = None
    requested: int | None = None
    code: str = ""
    message: str = ""
    status: int | None = None
    stale: bool = False


@dataclass(frozen=True)
class Quota:
    """One limit as a response's headers state it: observed, never configured.

    Args:
        resource: what is counted.
        period: "second" … "month", or seconds; None when the headers do not tell.
        limit: the amount per period; None when not told, 0 when the account has none.
        remaining: what is left of it; negative when overdrawn.
        reset_after: seconds from now until the limit is whole again; None when not told.
        granularity: the unit that `remaining` is rounded to (1000 for Anthropic's tokens).
        pool: which quota it is where one resource has several ("project", "priority", "uncached"); empty for the
            main one.
    """

    resource: Resource
    period: str | float | None = None
    limit: int | None = None
    remaining: int | None = None
    reset_after: float | None = None
    granularity: int = 1
    pool: str = ""
