"""The verdict on one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_rate_limiter.limits import Limit


@dataclass(frozen=True)
class Decision:
    """Whether a call is admitted; if not, which limit binds and when it frees. Falsy when refused.

    Args:
        admitted: True when every limit on the call's path admits it.
        target: where the call goes, as `provider:model`.
        limit: the limit that binds (the one that frees last), None when admitted.
        scope: whom that limit applies to, in words; empty when it applies to every call of the target.
        requested: units of the limit's resource that the call asks for (tokens, requests, dollars).
        available: units that are free now.
        retry_after: seconds until the call could be admitted; None when nobody can know.
        available_at: the same as epoch seconds.
        reason: one sentence for people.
        owner: what that limit belongs to: a target, a provider, "budget", a scope.
        holders: the agents whose calls in flight hold that limit, by share; told where a call is refused for good.
    """

    admitted: bool
    target: str = ""
    limit: Limit | None = None
    scope: str = ""
    requested: float = 0
    available: float = 0
    retry_after: float | None = None
    available_at: float | None = None
    reason: str = ""
    owner: str = ""
    holders: tuple[tuple[str, float], ...] = ()

    def __bool__(self) -> bool:
        """A refusal is falsy, so `if reservation := limiter.try_acquire(...)` reads well."""
        return self.admitted
