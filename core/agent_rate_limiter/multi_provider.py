"""`MultiProviderLimiter`: many providers and models, their limits and budgets, in one place."""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from agent_rate_limiter.alerts import Alerts, Sinks
from agent_rate_limiter.base_limiter import Limiter
from agent_rate_limiter.budgets import DEFAULT_THRESHOLDS, Budget, budgets_of, limits_of
from agent_rate_limiter.calls.attempts import Attempts
from agent_rate_limiter.calls.choice import FALLBACK_AFTER, Chooser, Elsewhere
from agent_rate_limiter.calls.decorator import P, R, Size, Terms, limited
from agent_rate_limiter.calls.fallback import Limited
from agent_rate_limiter.calls.pending import Pending
from agent_rate_limiter.calls.reservation import Reservation
from agent_rate_limiter.checks import check_seconds, check_thresholds, listed, make_estimate
from agent_rate_limiter.cost_tracker import CostTracker
from agent_rate_limiter.decision import Decision
from agent_rate_limiter.declared import (
    DeclaredTarget,
    by_name,
    declared_of,
    elsewhere_of,
    fallbacks_of,
    make_ready,
    named_elsewhere,
    one_target,
    with_thresholds,
)
from agent_rate_limiter.engine.port import Clock, SharedStore, Store
from agent_rate_limiter.limits import Target
from agent_rate_limiter.provider import Provider
from agent_rate_limiter.reports.snapshot import Advice, Explanation, advise
from agent_rate_limiter.retry import RetryStrategy
from agent_rate_limiter.usage import Estimate


class MultiProviderLimiter(Limiter):
    """The limits and budgets of all providers that a program calls.

    Example:
        ```python
        limiter = MultiProviderLimiter([Provider("openai", {"gpt-4": {"rpm": 500, "tpm": 10_000}})], budget_limit=100)
        with limiter.reserve("openai:gpt-4", input_tokens=800, max_output_tokens=400) as call:
            call.settle(client.chat.completions.create(model=call.model, ...))
        ```

    Args:
        providers: what is called; without any, every target is allowed and only budgets bind.
        budget_limit: dollars that all calls may cost per `budget_period`.
        budget_period: "day" unless said; "week", "month", "total", another word, or seconds.
        timezone: where the budget's periods begin, as an IANA name.
        alert_threshold: the share of a budget, or of another limit on dollars, at which to alert, or several.
        limit_alert_threshold: the same for limits on requests, tokens and concurrency; none unless given.
        budgets: further budgets, for scopes or other periods.
        on_alert: who is told of an `Alert` besides the log: a function or coroutine function that takes it, a
            `Webhook`, a `logging.Logger`, or a list of these, each told by a thread of its own.
        store: where the limits live: "memory://" is this process, "sqlite:///agents.db" every process on this machine,
            "redis://host:6379/0" many machines.
        on_store_error: while a shared store cannot be reached, "fail_closed" raises StoreUnavailable, "fail_open"
            admits every call, "local" admits by this process's share of the limits.
        clock: tells the time; the system's unless given.
        lease: seconds after which a reservation that nobody ends is taken for lost.
        ageing: seconds after which a priority that was passed over counts as one level more urgent.
        retry: what is tried again, where the limiter makes the calls (decorator, wrapped clients).
        on_unknown_price: what to do about a model without a price, neither configured nor in the price table:
            "warn" logs it once and books $0, marked "unpriced"; "block" refuses its calls; "zero" says nothing.
        max_queue: how many calls may wait for one limit, the least urgent are sent away first: a number; or
            priority → a number for each.
        fallbacks: target → the targets that may serve its calls instead, in order; besides those of its model.
        policy: how one of several targets is chosen: "in_order", "cheapest", "fastest" or "least_loaded".
        fallback_after: seconds that a call without a timeout waits for a target before the next one is looked at.
        ledger: where the books are kept: a URI such as "sqlite:///costs.db", or a `CostTracker`; unless given, in
            the store's file if it has one, else in memory.
        lease_tokens: with a store that processes share, how many tokens this one may take of limits at once, to serve
            calls from memory for a second; at least four times what a call uses. docs/stores.md states the error.

    Raises:
        ConfigError: a value makes no sense; the message names it and the fix.
    """

    def __init__(
        self,
        providers: Iterable[Provider] = (),
        *,
        budget_limit: float | None = None,
        budget_period: float | str = "day",
        timezone: str = "UTC",
        alert_threshold: float | Sequence[float] = DEFAULT_THRESHOLDS,
        limit_alert_threshold: float | Sequence[float] = (),
        budgets: Iterable[Budget | Mapping[str, Any]] = (),
        on_alert: Sinks = None,
        store: str | Store | SharedStore = "memory://",
        on_store_error: str = "fail_closed",
        clock: Clock | None = None,
        lease: float = 600.0,
        ageing: float = 1.0,
        retry: RetryStrategy | Mapping[str, Any] | None = None,
        on_unknown_price: str = "warn",
        max_queue: int | Mapping[int, int] | None = None,
        fallbacks: Mapping[str, Sequence[str | Target]] | None = None,
        policy: str = "in_order",
        fallback_after: float = FALLBACK_AFTER,
        ledger: str | CostTracker | None = None,
        lease_tokens: int | None = None,
    ) -> None:
        self.providers = by_name(providers)
        thresholds = check_thresholds(alert_threshold)
        wanted = budgets_of(budget_limit, budget_period, timezone, budgets)
        self.budgets = tuple(with_thresholds(budget, thresholds) for budget in wanted)
        self._budget_limits = tuple(("budget", limit) for limit in limits_of(self.budgets))
        alerts = Alerts(on_alert, thresholds, check_thresholds(limit_alert_threshold, "limit_alert_threshold"))
        self._fallbacks = fallbacks_of(fallbacks)
        self._elsewheres: dict[Target, Elsewhere] = {}
        check_seconds("fallback_after", fallback_after)
        super().__init__(
            self._declared,
            store=store,
            on_store_error=on_store_error,
            clock=clock,
            lease=lease,
            ageing=ageing,
            retry=retry,
            max_queue=max_queue,
            alerts=alerts,
            on_unknown_price=on_unknown_price,
            ledger=ledger,
            lease_tokens=lease_tokens,
            chooser=Chooser(self._elsewhere, policy, fallback_after),
        )
        elsewhere = named_elsewhere(self.providers, self._fallbacks)
        self._reroutes = bool([self._target(other) for other in elsewhere])  # refused now, and not when one is needed
        make_ready(self.providers.values())

    @classmethod
    def from_config(cls, source: str | Path | Mapping[str, Any], **overrides: Any) -> MultiProviderLimiter:
        """Make a limiter of a YAML or JSON file, or of a mapping with the same keys.

        Args:
            source: the file's path, or the mapping.
            overrides: arguments that a file cannot hold (`on_alert`, `clock`) or that win over it.

        Raises:
            ConfigError: something in it is unknown or makes no sense; every problem is named with its place.
        """
        from agent_rate_limiter.config import load_config

        return cls(**{**load_config(source).to_options(), **overrides})

    def acquire(
        self,
        target: str | Target,
        estimate: Estimate | None = None,
        *,
        fallbacks: Sequence[str | Target] = (),
        priority: int | None = None,
        timeout: float | None = None,
        **counts: int,
    ) -> Reservation:
        """Wait until the call is admitted, blocking the thread.

        Args:
            target: where it goes, as `provider:model`; where it has fallbacks, the reservation's own `target`
                says which was chosen.
            estimate: what the call will use; or give its counts as keywords (input_tokens=…).
            fallbacks: where it may go instead, in order; before those that are configured.
            priority: lower goes first.
            timeout: seconds it may wait; None waits for ever.
            counts: requests, input_tokens, output_tokens, max_output_tokens.

        Raises:
            ConfigError: the target is not configured, or a number makes no sense.
            LimitExceeded: it can never be admitted, or not within the timeout.
            AllTargetsFailed: so it is at every target, where there are several.
        """
        if estimate is None or counts:
            estimate = make_estimate(estimate, counts)
        where = self._target(target)
        if fallbacks or self._reroutes:
            return self._anywhere(where, estimate, fallbacks, priority, timeout).acquire()
        return self._calls.acquire(where, estimate, priority, timeout)

    def acquire_async(
        self,
        target: str | Target,
        estimate: Estimate | None = None,
        *,
        fallbacks: Sequence[str | Target] = (),
        priority: int | None = None,
        timeout: float | None = None,
        **counts: int,
    ) -> Coroutine[Any, Any, Reservation]:
        """Wait until the call is admitted, letting the event loop run. As `acquire`."""
        if estimate is None or counts:
            estimate = make_estimate(estimate, counts)
        where = self._target(target)
        if fallbacks or self._reroutes:
            return self._anywhere(where, estimate, fallbacks, priority, timeout).acquire_async()
        return self._calls.acquire_async(where, estimate, priority, timeout)

    def _anywhere(
        self,
        target: Target,
        estimate: Estimate,
        fallbacks: Iterable[str | Target],
        priority: int | None,
        timeout: float | None,
    ) -> Attempts:
        """One call whose maker looks at the target chosen."""
        return self.attempts(
            target, estimate, fallbacks=fallbacks, serves=lambda _: True, priority=priority, timeout=timeout
        )

    def try_acquire(
        self,
        target: str | Target,
        estimate: Estimate | None = None,
        *,
        fallbacks: Sequence[str | Target] = (),
        priority: int | None = None,
        **counts: int,
    ) -> Reservation | Decision:
        """Admit the call now, or return a falsy Decision: which limit refuses, and when it frees. As `acquire`.

        Where there are fallbacks, it is the first target's that admits it, or else of the one that frees first.
        """
        estimate = make_estimate(estimate, counts)
        where = self._target(target)
        if not (fallbacks or self._reroutes):
            return self._calls.try_acquire(where, estimate, priority)
        return self._anywhere(where, estimate, fallbacks, priority, None).try_acquire()

    def reserve(
        self,
        target: str | Target,
        estimate: Estimate | None = None,
        *,
        fallbacks: Sequence[str | Target] = (),
        priority: int | None = None,
        timeout: float | None = None,
        **counts: int,
    ) -> Pending:
        """Admit the call on entering the block (`with` or `async with`), and end it on leaving. As `acquire`."""
        estimate = make_estimate(estimate, counts)
        where = self._target(target)
        begin = None
        if fallbacks or self._reroutes:
            self._anywhere(where, estimate, fallbacks, priority, timeout)  # refuse now what makes no sense
            begin = partial(self._anywhere, where, estimate, fallbacks, priority, timeout)
        return Pending(self._calls, where, estimate, priority, timeout, begin)

    def limit(
        self,
        *,
        target: str | Target | None = None,
        provider: str | None = None,
        model: str | None = None,
        estimate: Size = None,
        fallbacks: Sequence[str | Target] = (),
        priority: int | None = None,
        timeout: float | None = None,
        **counts: int,
    ) -> Callable[[Callable[P, R]], Limited[P, R]]:
        """Decorate a function, coroutine, generator or async generator: each call is admitted first.

        A parameter of it named `target`, `model` or `provider` is given the one chosen; then the fallbacks that
        are configured serve its calls too: any, or with `model` alone those of the same provider. A result that states
        its usage (an SDK's response, or a `Usage`) settles the call; otherwise the estimate is charged.

        Args:
            target: where calls go, as `provider:model`; or give both of the next two.
            provider: the provider's name.
            model: the model's name.
            estimate: what each call will use, or a function of its arguments that says so.
            fallbacks: where the function itself can send them instead, in order.
            priority: lower goes first.
            timeout: seconds a call may wait.
            counts: requests, input_tokens, output_tokens, max_output_tokens.

        Raises:
            ConfigError: the target is missing or not configured, or the function cannot be told of a fallback.
        """
        where = self._target(one_target(target, provider, model))
        others = tuple(map(self._target, listed("fallbacks", fallbacks, "targets")))
        terms = Terms.checked(
            self._calls, where, estimate, priority=priority, timeout=timeout, counts=counts, fallbacks=others
        )
        return lambda function: limited(function, terms, self._target)

    def target_for(self, provider: str, model: str) -> Target:
        """Return the target, if it is configured.

        Raises:
            ConfigError: it is not.
        """
        return self._target(Target(provider, model))

    def explain(self, target: str | Target, estimate: Estimate | None = None, **counts: int) -> Explanation:
        """Say whether such a call would be admitted now, and what binds. Arguments as of `acquire`."""
        return self._explain(self._target(target), make_estimate(estimate, counts))

    def advice(self, target: str | Target, estimate: Estimate | None = None, **counts: int) -> Advice:
        """Say what an agent needs to plan: how long such a call would wait, what may be spent. As `acquire`."""
        return advise(self.explain(target, estimate, **counts))

    def _checked(self, target: str | Target) -> Target:
        return self._target(target)

    def _elsewhere(self, target: Target) -> Elsewhere:
        found = self._elsewheres.get(target)
        if found is None:
            others = self._fallbacks.get(target, ())
            found = self._elsewheres[target] = elsewhere_of(self.providers.get(target.provider), target, others)
        return found

    def _target(self, text: str | Target) -> Target:
        try:
            target = self._targets.get(text)
        except TypeError:  # nothing that could be a target: parse() says so
            target = None
        if target is None:
            target = Target.parse(text)
            self._declared(target)  # refuse unknown ones before anything waits
            self._targets[text] = self._targets[target] = target
        return target

    def _declared(self, target: Target) -> DeclaredTarget:
        return declared_of(self.providers, target, self._budget_limits)

    def __repr__(self) -> str:
        """State providers and budgets."""
        providers = ", ".join(f"{p.name} ({len(p.models)})" for p in self.providers.values()) or "any provider"
        budgets = "".join(f", {budget.as_limit().name}" for budget in self.budgets)
        return f"MultiProviderLimiter({providers}{budgets})"
