"""The machinery that all limiters share."""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from agent_rate_limiter.admission import Bucket
from agent_rate_limiter.alerts import Alerts
from agent_rate_limiter.calls import context
from agent_rate_limiter.calls.attempts import Attempts
from agent_rate_limiter.calls.choice import NOWHERE, Chooser
from agent_rate_limiter.calls.reservation import Reservation
from agent_rate_limiter.calls.routing import Declared
from agent_rate_limiter.checks import check_estimate, check_priority, check_queue, check_span, listed
from agent_rate_limiter.cost_tracker import CostTracker
from agent_rate_limiter.costs.quotes import Quotes
from agent_rate_limiter.decision import Decision
from agent_rate_limiter.engine.port import Clock, Hold, SharedStore, Store
from agent_rate_limiter.errors import ConfigError, QuotaExhausted
from agent_rate_limiter.events import AlertRaised, Events
from agent_rate_limiter.limits import Target
from agent_rate_limiter.machinery import calls_for, make_engine
from agent_rate_limiter.reports.holders import holders_of, in_flight, recently_used
from agent_rate_limiter.reports.snapshot import Explanation, Snapshot, shown, status_of
from agent_rate_limiter.reports.verdict import decision_of
from agent_rate_limiter.retry import RetryStrategy
from agent_rate_limiter.scopes import label_texts, labels_text
from agent_rate_limiter.usage import Estimate

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class Limiter:
    """The machinery that all limiters share: scopes, the books, reports, the end.

    Args:
        declared: what is known of a target; raises ConfigError for one that is not known.
        store: where the limits live: a URI such as "memory://" or "sqlite:///agents.db", or a store.
        on_store_error: what happens while a shared store cannot be reached: "fail_closed" raises StoreUnavailable,
            "fail_open" admits every call, "local" admits by this process's share of the limits.
        clock: tells the time; the system's unless given.
        lease: seconds after which a reservation that nobody ends is taken for lost: its slot comes back and
            its estimate stays charged.
        ageing: seconds after which a priority that was passed over counts as one level more urgent.
        retry: what is tried again, where the limiter makes the calls (decorator, wrapped clients).
        max_queue: how many calls may wait for one limit: a number, or priority → a number for each.
        lease_tokens: with a shared store, the tokens that this process may take at once, to serve calls from memory.
        alerts: who is told of limits that run low.
        on_unknown_price: what to do about a target without a price: "warn", "block" or "zero".
        ledger: where the books are kept: a URI such as "sqlite:///costs.db", or a `CostTracker`; unless given, in
            the store's file if it has one, else in memory.
        chooser: puts the targets that can serve a call in order.

    Attributes:
        costs: the books.
        events: tells whoever subscribes of everything that happens to calls.
    """

    def __init__(
        self,
        declared: Callable[[Target], Declared],
        *,
        store: str | Store | SharedStore = "memory://",
        on_store_error: str = "fail_closed",
        clock: Clock | None = None,
        lease: float = 600.0,
        ageing: float = 1.0,
        retry: RetryStrategy | Mapping[str, Any] | None = None,
        max_queue: int | Mapping[int, int] | None = None,
        alerts: Alerts | None = None,
        on_unknown_price: str = "warn",
        chooser: Chooser | None = None,
        ledger: str | CostTracker | None = None,
        lease_tokens: int | None = None,
    ) -> None:
        engine = make_engine(
            store,
            clock,
            lease=check_span("lease", lease),
            ageing=check_span("ageing", ageing),
            bounds=check_queue(max_queue),
            on_store_error=on_store_error,
            lease_tokens=lease_tokens,
        )
        self.alerts = alerts or Alerts()
        self.alerts.keep_in(engine.store)
        quotes = Quotes(on_unknown_price, engine.clock.now)
        self.costs = _books(ledger, store, engine.clock, must_open=on_store_error == "fail_closed")
        self._own_costs = self.costs is not ledger
        self.events = Events()
        self.alerts.hear(lambda alert: self.events.emit(AlertRaised(alert.at, alert=alert)))
        chooser = chooser or Chooser(lambda _: NOWHERE)
        self._calls = calls_for(engine)(
            engine, declared, self.costs, RetryStrategy.of(retry), self.alerts, quotes, self.events, chooser
        )
        self._targets: dict[str | Target, Target] = {}  # as written → checked

    # -- scopes --------------------------------------------------------------------------------------------

    @contextmanager
    def scope(
        self,
        *,
        budget: float | context.ScopeBudget | None = None,
        priority: int | None = None,
        max_calls: int | None = None,
        max_tokens: int | None = None,
        max_steps: int | None = None,
        **labels: object,
    ) -> Generator[None]:
        """Label every call in the block, tasks started in it included, and guard it; scopes nest.

        Args:
            budget: dollars that all calls in the block may cost together; a ScopeBudget lasts for several blocks.
            priority: for calls that do not state one.
            max_calls: requests that all calls in the block may make together.
            max_tokens: input and output tokens that they may use together.
            max_steps: how often `limiter.step()` may be called in the block.
            labels: who is calling: agent, run, team, … Limits can be set for them, and costs are reported by them.

        Raises:
            ConfigError: a label without a value, or a budget, a priority or a number that makes no sense.
        """
        limits = context.scope_guards(max_calls, max_tokens)
        if budget is not None:
            shared = budget if isinstance(budget, context.ScopeBudget) else context.ScopeBudget(budget)
            limits = (shared.limit, *limits)
        if max_steps is not None:
            context.check_most("max_steps", max_steps)
        steps = () if max_steps is None else (context.Steps(max_steps),)
        for name in ("provider", "model"):
            if name in labels:
                raise ConfigError(
                    f"scope label {name} is {labels[name]!r}: calls say themselves where they go; rename it."
                )
        urgency = None if priority is None else check_priority(priority)
        inner = context.current_scope().inner(label_texts(labels), limits, urgency, steps)
        token = context.enter_scope(inner)
        try:
            yield
        finally:
            context.leave_scope(token)
            for limit in limits:
                self._calls.forget_scope(limit.name)

    def step(self) -> None:
        """Note that an agent begins a step (a turn of its loop): a guard against loops that never end.

        Raises:
            QuotaExhausted: a scope around has had its `max_steps`.
        """
        steps = context.take_step()
        if steps is not None:
            who = labels_text(context.current_scope().labels)
            reason = f"max_steps {steps.most:,} are taken{f' ({who})' * bool(who)}: end the agent, or allow more."
            raise QuotaExhausted(Decision(admitted=False, scope=who, reason=reason))

    # -- reports -------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Say how every limit stands, and how many calls are in flight and waiting."""
        engine = self._calls.engine
        engine.refresh(engine.store.buckets)
        spend, estimates = self.costs.spent, self._calls.learned.report()

        def look(now: int) -> Snapshot:
            limits = tuple(
                sorted(
                    (status_of(b, now) for b in engine.store.buckets() if shown(b, now)),
                    key=lambda s: (s.owner, s.name),
                )
            )
            return Snapshot(now / 1000, limits, engine.in_flight, engine.waiting, spend, estimates, engine.place)

        return engine.read(look)

    def _explain(self, target: Target, estimate: Estimate) -> Explanation:
        check_estimate(estimate)
        calls = self._calls
        route = calls.route(target)
        hold = Hold(route.path, route.reserved(estimate, asking=True))
        calls.engine.refresh(lambda: route.path)

        def look(now: int) -> tuple[Explanation, Bucket | None, dict[str, float]]:
            refusal = calls.engine.verdict(hold, now)
            decision = Decision(True, str(target)) if refusal is None else decision_of(target, refusal, now)  # noqa: FBT003
            limits = tuple(status_of(bucket, now) for bucket in route.path if shown(bucket, now))
            held = {} if refusal is None else in_flight(refusal.bucket, calls.engine.newest_first())
            return Explanation(str(target), decision, limits), refusal and refusal.bucket, held

        explanation, binding, held = calls.engine.read(look)
        if binding is None:
            return explanation
        used = recently_used(binding, self.costs, target, calls.seconds())
        return replace(explanation, holders=holders_of(held, used))

    # -- for adapters --------------------------------------------------------------------------------------

    def target_for(self, provider: str, model: str) -> Target:
        """Return the target of a call that an adapter sees go to a provider's model.

        Raises:
            ConfigError: it is not configured.
        """
        raise NotImplementedError

    def claim(self, target: Target) -> Reservation | None:
        """Take over the reservation that an outer layer (decorator, `with` block, other adapter) has made for
        this very call; None when there is none, or another inner call took it: then make your own.

        Whoever claims a reservation settles it.
        """  # noqa: D205 - one sentence needs two lines
        return self._calls.claim(target)

    def track(self, target: Target, estimate: Estimate) -> Reservation:
        """Follow a call to a target of `target_for` that is made anyway, as something else than us decides it.

        It is never refused and never waits; what it used is charged when it is settled. A layer inside that makes the
        same call under its limits counts it instead: then this reservation is cancelled.
        """
        return self._calls.track(target, estimate)

    def attempts(
        self,
        target: Target,
        estimate: Estimate,
        *,
        fallbacks: Iterable[str | Target] = (),
        serves: Callable[[Target], bool] | None = None,
        priority: int | None = None,
        timeout: float | None = None,
    ) -> Attempts:
        """Return one logical call to a target of `target_for`, to be attempted until it succeeds.

        Args:
            target: where it goes.
            estimate: what each attempt is expected to use.
            fallbacks: where else the caller can send it, in order.
            serves: whether the caller can send it to a target; then those that are configured as the target's
                fallbacks, and the one that it degrades to, are candidates too. None: nowhere else.
            priority: lower goes first; None takes the scope's.
            timeout: seconds it may wait, all attempts together.

        Raises:
            ConfigError: a fallback is not configured.
        """
        others = [self._checked(fallback) for fallback in listed("fallbacks", fallbacks, "targets")]
        return self._calls.attempts(target, estimate, priority, timeout, fallbacks=others, serves=serves)

    def _checked(self, target: str | Target) -> Target:
        """Return a target, if it is configured."""
        return Target.parse(target)

    # -- wrapping and the end ------------------------------------------------------------------------------

    def wrap(self, client: T, **options: Any) -> T:
        """Return a limited twin of an SDK client, a model, an agent or a crew; the original stays as it is.

        Args:
            client: anything that an installed adapter knows.
            options: the adapter's own, such as `priority` and `timeout`.

        Raises:
            ConfigError: no adapter knows it, or an option makes no sense.
        """
        from agent_rate_limiter.wrapping import adapter_for, check_options

        adapter = adapter_for(client)
        check_options(adapter, options)
        wrapped: T = adapter(client, self, **options)
        return wrapped

    def can_wrap(self, client: object) -> bool:
        """Whether an installed adapter knows what `wrap` would be given, or its class."""
        from agent_rate_limiter.wrapping import find_adapter

        return find_adapter(client) is not None

    def close(self) -> None:
        """Refuse every further call, and those that wait. Calls in flight can still be settled."""
        self._calls.learned.save()
        self._calls.engine.close()
        if self._own_costs:
            self.costs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __copy__(self) -> Self:
        """Return itself, as whoever holds a copy is under the same limits."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> Any:
        """Refuse to be pickled: locks, threads and connections belong to one process."""
        raise TypeError(
            f"A {type(self).__name__} cannot be pickled: make one in each process, with the same "
            "store='sqlite:///agents.db' or 'redis://host:6379/0', and they share their limits."
        )


def _books(
    ledger: str | CostTracker | None, store: str | Store | SharedStore, clock: Clock, *, must_open: bool
) -> CostTracker:
    if isinstance(ledger, CostTracker):
        return ledger
    if ledger is None and isinstance(store, str) and store.startswith("sqlite://"):  # lost and found with it
        return CostTracker(store, clock=clock, must_open=must_open)
    return CostTracker("memory://" if ledger is None else ledger, clock=clock)
