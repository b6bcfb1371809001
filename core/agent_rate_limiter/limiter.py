"""`RateLimiter`: the limits of one provider's one model."""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, cast

from agent_rate_limiter.alerts import Alerts, Sinks
from agent_rate_limiter.base_limiter import Limiter
from agent_rate_limiter.calls.decorator import P, R, Size, Terms, limited
from agent_rate_limiter.calls.fallback import Limited
from agent_rate_limiter.calls.pending import Pending
from agent_rate_limiter.calls.reservation import Reservation
from agent_rate_limiter.checks import check_thresholds, make_estimate
from agent_rate_limiter.cost_tracker import CostTracker
from agent_rate_limiter.decision import Decision
from agent_rate_limiter.engine.port import Clock, SharedStore, Store
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.limit_text import shorthand
from agent_rate_limiter.limits import Limit, Target
from agent_rate_limiter.pricing import Price
from agent_rate_limiter.reports.snapshot import Advice, Explanation, advise
from agent_rate_limiter.retry import RetryStrategy
from agent_rate_limiter.usage import Estimate

_NOBODY = Target("default", "default")


class RateLimiter(Limiter):
    """The limits of one provider's one model.

    Example: `RateLimiter(rpm=500, tpm=10_000)`, then `with limiter.reserve(input_tokens=800) as call: ...`

    Args:
        limits: `Limit`s, or texts such as "40 requests/week".
        target: what messages and reports call it, as `provider:model`.
        price: for limits on cost and for reports; without it, the price table's for the target.
        store: see Limiter; so are on_store_error, clock, lease, ageing, retry, on_unknown_price, ledger.
        alert_threshold: the share of a limit at which to alert, or several; none unless given.
        on_alert: who is told, see MultiProviderLimiter.
        max_queue: how many calls may wait for one limit: a number, or priority → a number for each.
        lease_tokens: see MultiProviderLimiter.
        shorthands: rpm, rps, rpd, tpm, tpd, itpm, otpm, concurrency.

    Raises:
        ConfigError: a value makes no sense; the message names it and the fix.
    """

    def __init__(
        self,
        limits: Iterable[Limit | str] | Limit | str = (),
        *,
        target: str | Target = _NOBODY,
        price: Price | None = None,
        store: str | Store | SharedStore = "memory://",
        on_store_error: str = "fail_closed",
        clock: Clock | None = None,
        lease: float = 600.0,
        ageing: float = 1.0,
        retry: RetryStrategy | Mapping[str, Any] | None = None,
        on_unknown_price: str = "warn",
        alert_threshold: float | Sequence[float] = (),
        on_alert: Sinks = None,
        max_queue: int | Mapping[int, int] | None = None,
        ledger: str | CostTracker | None = None,
        lease_tokens: int | None = None,
        **shorthands: float,
    ) -> None:
        self.target = Target.parse(target)
        parsed = _limits(limits)
        parsed += [shorthand(name, amount) for name, amount in shorthands.items()]
        self.limits = tuple(parsed)
        if price is not None:
            from agent_rate_limiter.pricing import check_price

            check_price("price", price)
        self.price = price
        kind = None if self.target == _NOBODY else self.target.provider
        known = _Known(tuple((str(self.target), limit) for limit in self.limits), price, kind)
        shares = check_thresholds(alert_threshold)
        super().__init__(
            lambda _: known,
            store=store,
            on_store_error=on_store_error,
            clock=clock,
            lease=lease,
            ageing=ageing,
            retry=retry,
            alerts=Alerts(on_alert, shares, shares),
            on_unknown_price=on_unknown_price,
            max_queue=max_queue,
            ledger=ledger,
            lease_tokens=lease_tokens,
        )
        if kind is not None and price is None:
            from agent_rate_limiter.costs.price_table import load_prices

            load_prices()  # here, and not at the first call, on somebody's event loop

    def acquire(
        self,
        estimate: Estimate | None = None,
        *,
        priority: int | None = None,
        timeout: float | None = None,
        **counts: int,
    ) -> Reservation:
        """Wait until the call is admitted, blocking the thread.

        Args:
            estimate: what the call will use; or give its counts as keywords (input_tokens=…).
            priority: lower goes first.
            timeout: seconds it may wait; None waits for ever.
            counts: requests, input_tokens, output_tokens, max_output_tokens.

        Raises:
            LimitExceeded: it can never be admitted, or not within the timeout.
        """
        if estimate is None or counts:
            estimate = make_estimate(estimate, counts)
        return self._calls.acquire(self.target, estimate, priority, timeout)

    def acquire_async(
        self,
        estimate: Estimate | None = None,
        *,
        priority: int | None = None,
        timeout: float | None = None,
        **counts: int,
    ) -> Coroutine[Any, Any, Reservation]:
        """Wait until the call is admitted, letting the event loop run. As `acquire`."""
        if estimate is None or counts:
            estimate = make_estimate(estimate, counts)
        return self._calls.acquire_async(self.target, estimate, priority, timeout)

    def try_acquire(
        self, estimate: Estimate | None = None, *, priority: int | None = None, **counts: int
    ) -> Reservation | Decision:
        """Admit the call now, or return a falsy Decision: which limit refuses, and when it frees. As `acquire`."""
        return self._calls.try_acquire(self.target, make_estimate(estimate, counts), priority)

    def reserve(
        self,
        estimate: Estimate | None = None,
        *,
        priority: int | None = None,
        timeout: float | None = None,
        **counts: int,
    ) -> Pending:
        """Admit the call on entering the block (`with` or `async with`), and end it on leaving. As `acquire`."""
        return Pending(self._calls, self.target, make_estimate(estimate, counts), priority, timeout)

    def limit(
        self, *, estimate: Size = None, priority: int | None = None, timeout: float | None = None, **counts: int
    ) -> Callable[[Callable[P, R]], Limited[P, R]]:
        """Decorate a function, coroutine, generator or async generator: each call is admitted first.

        Args:
            estimate: what each call will use, or a function of its arguments that says so.
            priority: lower goes first.
            timeout: seconds a call may wait.
            counts: requests, input_tokens, output_tokens, max_output_tokens.
        """
        terms = Terms.checked(self._calls, self.target, estimate, priority=priority, timeout=timeout, counts=counts)
        return lambda function: limited(function, terms)

    def target_for(self, provider: str, model: str) -> Target:  # noqa: ARG002 - one target serves all
        """Return this limiter's one target."""
        return self.target

    def explain(self, estimate: Estimate | None = None, **counts: int) -> Explanation:
        """Say whether such a call would be admitted now, and what binds. Arguments as of `acquire`."""
        return self._explain(self.target, make_estimate(estimate, counts))

    def advice(self, estimate: Estimate | None = None, **counts: int) -> Advice:
        """Say what an agent needs to plan: how long such a call would wait, what may be spent. As `acquire`."""
        return advise(self.explain(estimate, **counts))

    def __repr__(self) -> str:
        """State the limits."""
        return f"RateLimiter({', '.join(str(limit) for limit in self.limits) or 'no limits'})"


class _Known:
    rated = True  # whoever makes a RateLimiter says what the limits are

    def __init__(self, limits: tuple[tuple[str, Limit], ...], price: Price | None, kind: str | None) -> None:
        self.limits = limits
        self.price = price
        self.kind = kind


def _limits(limits: object) -> list[Limit]:
    if isinstance(limits, Mapping) or not isinstance(limits, (Limit, str, Iterable)):
        raise ConfigError(f"limits is {limits!r}: give Limit(...) objects, or texts such as '40 requests/week'.")
    several = [limits] if isinstance(limits, (Limit, str)) else cast("Any", limits)
    parsed: list[Any] = [Limit.parse(limit) if isinstance(limit, str) else limit for limit in several]
    for place, limit in enumerate(parsed):
        if not isinstance(limit, Limit):
            raise ConfigError(f"limits hold {limit!r}: give Limit(...) objects, or texts such as '40 requests/week'.")
        if any(other.name == limit.name and other.scope == limit.scope and other != limit for other in parsed[:place]):
            raise ConfigError(f"limits hold two different ones named {limit.name!r}: give one a name of its own.")
    return parsed
