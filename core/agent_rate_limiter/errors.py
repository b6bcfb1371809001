"""Everything this library raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from agent_rate_limiter.redaction import harmless

if TYPE_CHECKING:
    from agent_rate_limiter.decision import Decision


class RateLimiterError(Exception):
    """The base of every error that this library raises."""


class ConfigError(RateLimiterError, ValueError):
    """A limit, a provider, an option or a number given to the library makes no sense."""


class ReservationError(RateLimiterError):
    """A reservation was used in a way it cannot be: settled twice, or waited for by its own holder."""


class LimiterClosed(RateLimiterError):
    """The limiter was closed, or belongs to another process (fork)."""


class StoreUnavailable(RateLimiterError):
    """The store that holds the limits cannot be reached."""


class LimitExceeded(RateLimiterError):
    """A call was refused: the decision says by which limit, and when it frees.

    Args:
        decision: the refusal, from the same atomic step that made it.
    """

    def __init__(self, decision: Decision) -> None:
        super().__init__(decision.reason)
        self.decision = decision

    def __reduce__(self) -> tuple[type[LimitExceeded], tuple[Decision]]:
        """Errors cross process boundaries whole."""
        return type(self), (self.decision,)

    @property
    def retry_after(self) -> float | None:
        """Seconds until the call could be admitted; None when nobody can know."""
        return self.decision.retry_after

    @property
    def available_at(self) -> float | None:
        """Epoch seconds at which the call could be admitted; None when nobody can know."""
        return self.decision.available_at


class RequestTooLarge(LimitExceeded):
    """The request is larger than a limit: it can never fit, however long it waits."""


class AcquireTimeout(LimitExceeded, TimeoutError):
    """The call cannot be, or was not, admitted before its deadline."""


class QueueFull(LimitExceeded):
    """As many calls wait already as `max_queue` allows; or this one was sent away for a more urgent one."""


class QuotaExhausted(LimitExceeded):
    """A long quota (day, week, month, credit) is used up."""


class BudgetExceeded(LimitExceeded):
    """The call could cost more than what is left of a budget."""


class AllTargetsFailed(RateLimiterError):
    """No target of a call could serve it.

    Args:
        causes: target name → the error that ended it there, in the order tried.
    """

    def __init__(self, causes: Mapping[str, BaseException]) -> None:
        lines = "; ".join(f"{target}: {_said(cause, target)}" for target, cause in causes.items())
        super().__init__(f"No target could serve the call. {lines}")
        self.causes = dict(causes)

    def __reduce__(self) -> tuple[type[AllTargetsFailed], tuple[dict[str, BaseException]]]:
        """Errors cross process boundaries whole; an SDK's, which may not, as what it says."""
        return type(self), ({target: _portable(cause) for target, cause in self.causes.items()},)


def _said(cause: BaseException, target: str) -> str:
    """What a cause says, its target's name not said again."""
    return harmless(str(cause)).removeprefix(f"{target} ").removesuffix(".") or type(cause).__name__


def _portable(cause: BaseException) -> BaseException:
    if isinstance(cause, RateLimiterError) or type(cause).__module__ == "builtins":
        return cause
    return RateLimiterError(f"{type(cause).__name__}: {harmless(str(cause))}")
