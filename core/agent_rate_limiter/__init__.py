"""Limits, retries and budgets for AI agents: calls are admitted exactly as fast as every limit allows.

```python
limiter = MultiProviderLimiter([Provider("openai", {"gpt-4": {"rpm": 500, "tpm": 10_000}})], budget_limit=100)
client = limiter.wrap(OpenAI())  # a limited twin of an SDK's client, a framework's model, a crew
```

`MultiProviderLimiter` limits what a program calls, `RateLimiter` one model; `CostTracker` keeps books of any calls,
`plan` says how long a workload takes. Everything else is what these take, return, or raise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_rate_limiter.lazy import lazy

if TYPE_CHECKING:
    from agent_rate_limiter.alerts import Alert as Alert
    from agent_rate_limiter.alerts import Webhook as Webhook
    from agent_rate_limiter.budgets import Budget as Budget
    from agent_rate_limiter.calls.attempts import Attempts as Attempts
    from agent_rate_limiter.calls.context import ScopeBudget as ScopeBudget
    from agent_rate_limiter.calls.reservation import Reservation as Reservation
    from agent_rate_limiter.cost_tracker import CostTracker as CostTracker
    from agent_rate_limiter.costs.report import CostReport as CostReport
    from agent_rate_limiter.decision import Decision as Decision
    from agent_rate_limiter.errors import AcquireTimeout as AcquireTimeout
    from agent_rate_limiter.errors import AllTargetsFailed as AllTargetsFailed
    from agent_rate_limiter.errors import BudgetExceeded as BudgetExceeded
    from agent_rate_limiter.errors import ConfigError as ConfigError
    from agent_rate_limiter.errors import LimiterClosed as LimiterClosed
    from agent_rate_limiter.errors import LimitExceeded as LimitExceeded
    from agent_rate_limiter.errors import QueueFull as QueueFull
    from agent_rate_limiter.errors import QuotaExhausted as QuotaExhausted
    from agent_rate_limiter.errors import RateLimiterError as RateLimiterError
    from agent_rate_limiter.errors import RequestTooLarge as RequestTooLarge
    from agent_rate_limiter.errors import ReservationError as ReservationError
    from agent_rate_limiter.errors import StoreUnavailable as StoreUnavailable
    from agent_rate_limiter.events import Admitted as Admitted
    from agent_rate_limiter.events import AlertRaised as AlertRaised
    from agent_rate_limiter.events import Degraded as Degraded
    from agent_rate_limiter.events import Event as Event
    from agent_rate_limiter.events import Events as Events
    from agent_rate_limiter.events import FellBack as FellBack
    from agent_rate_limiter.events import LimitLearned as LimitLearned
    from agent_rate_limiter.events import Paused as Paused
    from agent_rate_limiter.events import Queued as Queued
    from agent_rate_limiter.events import Refused as Refused
    from agent_rate_limiter.events import Retried as Retried
    from agent_rate_limiter.events import Settled as Settled
    from agent_rate_limiter.events import StoreFound as StoreFound
    from agent_rate_limiter.events import StoreLost as StoreLost
    from agent_rate_limiter.limiter import RateLimiter as RateLimiter
    from agent_rate_limiter.limits import Limit as Limit
    from agent_rate_limiter.limits import Priority as Priority
    from agent_rate_limiter.limits import Resource as Resource
    from agent_rate_limiter.limits import Target as Target
    from agent_rate_limiter.multi_provider import MultiProviderLimiter as MultiProviderLimiter
    from agent_rate_limiter.planning import Plan as Plan
    from agent_rate_limiter.planning import plan as plan
    from agent_rate_limiter.pricing import Price as Price
    from agent_rate_limiter.provider import Model as Model
    from agent_rate_limiter.provider import Pool as Pool
    from agent_rate_limiter.provider import Provider as Provider
    from agent_rate_limiter.reports.holders import Holder as Holder
    from agent_rate_limiter.reports.snapshot import Advice as Advice
    from agent_rate_limiter.reports.snapshot import Explanation as Explanation
    from agent_rate_limiter.reports.snapshot import LimitStatus as LimitStatus
    from agent_rate_limiter.reports.snapshot import Snapshot as Snapshot
    from agent_rate_limiter.retry import RetryBudget as RetryBudget
    from agent_rate_limiter.retry import RetryStrategy as RetryStrategy
    from agent_rate_limiter.scopes import EACH as EACH
    from agent_rate_limiter.scopes import Scope as Scope
    from agent_rate_limiter.usage import Estimate as Estimate
    from agent_rate_limiter.usage import Usage as Usage

_HOME = {
    "alerts": ("Alert", "Webhook"),
    "budgets": ("Budget",),
    "calls.attempts": ("Attempts",),
    "calls.context": ("ScopeBudget",),
    "calls.reservation": ("Reservation",),
    "cost_tracker": ("CostTracker",),
    "costs.report": ("CostReport",),
    "decision": ("Decision",),
    "errors": (
        "AcquireTimeout",
        "AllTargetsFailed",
        "BudgetExceeded",
        "ConfigError",
        "LimitExceeded",
        "LimiterClosed",
        "QueueFull",
        "QuotaExhausted",
        "RateLimiterError",
        "RequestTooLarge",
        "ReservationError",
        "StoreUnavailable",
    ),
    "events": (
        "Admitted",
        "AlertRaised",
        "Degraded",
        "Event",
        "Events",
        "FellBack",
        "LimitLearned",
        "Paused",
        "Queued",
        "Refused",
        "Retried",
        "Settled",
        "StoreFound",
        "StoreLost",
    ),
    "limiter": ("RateLimiter",),
    "limits": ("Limit", "Priority", "Resource", "Target"),
    "multi_provider": ("MultiProviderLimiter",),
    "planning": ("Plan", "plan"),
    "pricing": ("Price",),
    "provider": ("Model", "Pool", "Provider"),
    "reports.holders": ("Holder",),
    "reports.snapshot": ("Advice", "Explanation", "LimitStatus", "Snapshot"),
    "retry": ("RetryBudget", "RetryStrategy"),
    "scopes": ("EACH", "Scope"),
    "usage": ("Estimate", "Usage"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__version__ = "0.1.0"
__all__ = [*sorted(_MODULE), "__version__"]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]

if not TYPE_CHECKING:  # type checkers see the imports above, and so whether a name is there
    __getattr__, __dir__ = lazy(__name__, _MODULE, __all__)
