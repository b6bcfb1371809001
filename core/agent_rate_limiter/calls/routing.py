"""From a target and a scope to the limits on the call's path."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Protocol

from agent_rate_limiter.admission import Bucket
from agent_rate_limiter.alerts import Alerts, Watch
from agent_rate_limiter.calls.context import CallScope, ScopeKey
from agent_rate_limiter.calls.route import Route
from agent_rate_limiter.cost_tracker import CostTracker
from agent_rate_limiter.costs.quotes import Quotes
from agent_rate_limiter.learning.sizes import Learned
from agent_rate_limiter.limits import Limit, Resource, Target
from agent_rate_limiter.pricing import Price
from agent_rate_limiter.strategies import GATE, NARROW_GATE

_FREE_READS = re.compile("anthropic|claude|groq", re.IGNORECASE)
_ROUTES = 4_096
"""Compiled routes that are kept; beyond, those whose limits are all idle are forgotten."""
_MOST = 16 * _ROUTES
"""Beyond these, all are."""


class Declared(Protocol):
    """What a limiter knows of one target."""

    @property
    def limits(self) -> Sequence[tuple[str, Limit]]:
        """Every limit that a call to it is under, each with the name of what it belongs to."""
        ...

    @property
    def rated(self) -> bool:
        """Whether its limits are known; else it starts slowly, and they are learned."""
        ...

    @property
    def price(self) -> Price | None:
        """What the user says that it costs."""
        ...

    @property
    def kind(self) -> str | None:
        """Whose price list it is on otherwise; None: nobody's."""
        ...


class Router:
    """Compiles routes, and keeps them.

    Args:
        declared: what is known of a target; raises ConfigError for one that is not known.
        bucket: the store's bucket of a key.
        costs: the books.
        alerts: who watches limits.
        quotes: who knows prices.
        usual: what calls usually use.
        passing: as a Route's.
    """

    def __init__(  # noqa: PLR0917 - all that a route is made of
        self,
        declared: Callable[[Target], Declared],
        bucket: Callable[[str, Limit, str, int], Bucket],
        costs: CostTracker,
        alerts: Alerts,
        quotes: Quotes,
        usual: Learned,
        *,
        passing: int = 0,
    ) -> None:
        self._passing = passing
        self._usual = usual
        self._quotes = quotes
        self._alerts = alerts
        self._costs = costs
        self._declared = lru_cache(_ROUTES)(declared)
        self._bucket = bucket
        self.routes: dict[tuple[Target, ScopeKey], Route] = {}
        self._through: dict[str, list[tuple[Target, ScopeKey]]] = {}  # a scope's limit → the routes that it is on
        self._crowd = self._most_busy = _ROUTES
        self._busy: dict[Bucket | Watch, Bucket] = {}  # limits, and those who watch them, whose routes were dropped
        self._learned: dict[Target, list[Bucket]] = {}
        self.adaptive: dict[Target, Bucket] = {}

    def find(self, target: Target, scope: CallScope) -> Route | None:
        """Return the route if it is compiled."""
        return self.routes.get((target, scope.key))

    def compile(self, target: Target, scope: CallScope, now: int) -> Route:
        """Return the route, made on first use. The engine's lock must be held.

        Raises:
            ConfigError: the target is not configured.
        """
        declared = self._declared(target)
        path = self._path(target, scope, declared, now)
        if len(self.routes) >= self._crowd:
            self._make_room(now)
        watched = self._alerts.watched(path)
        quote = partial(self._quotes.quote, target, declared.price, declared.kind, budgets=_money(path))
        account = self._costs.account(target, scope.labels, quote)
        route = Route(
            target,
            scope,
            tuple(path),
            account,
            watched=watched,
            caller=self._usual.caller(target, scope.labels.get("agent", "")),
            kind=_counting(self.kind(target), path),
            searching=not declared.rated or target in self.adaptive,
            passing=self._passing,
            unstated=partial(self._quotes.unstated, target),
        )
        self.routes[target, scope.key] = route
        for scoped in scope.limits:
            self._through.setdefault(scoped.name, []).append((target, scope.key))
        return route

    def _path(self, target: Target, scope: CallScope, declared: Declared, now: int) -> list[Bucket]:
        """Every limit that such a call is under, once: the gate, those declared, the scope's, those learned."""
        labels = {"provider": target.provider, "model": target.model, **scope.labels}
        path = [self._bucket(f"{target}|gate", GATE if declared.rated else NARROW_GATE, "", now)]
        for owner, limit in declared.limits:
            share = limit.scope.key(labels)
            if share is not None:
                key = "|".join(filter(None, (owner, limit.key, str(limit.scope), share)))
                bucket = self._bucket(key, limit, share, now)
                if bucket not in path:  # written twice, it counts once
                    path.append(bucket)
        for scoped in scope.limits:
            if self not in scoped.kept:
                scoped.kept[self] = self._bucket(f"{scoped.name}|{scoped.limit.key}", scoped.limit, scoped.whose, now)
            if scoped.kept[self] not in path:  # entered again inside, it counts once
                path.append(scoped.kept[self])
        path += [bucket for bucket in self._learned.get(target, ()) if bucket not in path]
        return path

    def kind(self, target: Target) -> str:
        """Return whose dialect a target most likely speaks."""
        return self._declared(target).kind or target.provider

    def check_price(self, target: Target) -> None:
        """Refuse a target without a price, where that is wanted. Not under a lock: it may load the price table.

        Raises:
            ConfigError: it has none.
        """
        if self._quotes.blocks:
            declared = self._declared(target)
            self._quotes.quote(target, declared.price, declared.kind or target.provider)

    def learn(self, target: Target, limit: Limit, now: int, *, adaptive: bool = False) -> Bucket:
        """Put a target under a limit that nobody configured. The engine's lock must be held."""
        bucket = self._bucket(f"{target}|{limit.name}", limit, "", now)
        bucket.learned = True
        self._learned.setdefault(target, []).append(bucket)
        if adaptive:
            self.adaptive[target] = bucket
        for route in self.routes.values():
            if route.target == target:
                route.follow((*route.path, bucket))
                route.watched += self._alerts.watched([bucket])
        return bucket

    def search(self, target: Target, bucket: Bucket) -> None:
        """Search for the rate of a configured limit, as its provider enforces less. The engine's lock must be held."""
        self.adaptive[target] = bucket
        for route in self.routes.values():
            route.searching = route.searching or route.target == target

    def forget_scope(self, name: str) -> None:
        """Drop the routes that lead through a scope's own limit. The engine's lock must be held."""
        for key in self._through.pop(name, ()):
            self.routes.pop(key, None)

    def _make_room(self, now: int) -> None:
        """Drop routes whose limits are as good as fresh; of shared ones these are copies, that may go at any time.

        When most are not, they go as well, for a route takes ten times the memory of a limit: then their limits stay
        by themselves. So do the routes that somebody waits on.
        """
        tight = len(self.routes) >= _MOST
        for key, route in list(self.routes.items()):
            busy = [] if self._passing else [bucket for bucket in route.path if _counts(bucket, now)]
            if any(bucket.queue is not None for bucket in route.path) or (busy and not tight):
                continue
            del self.routes[key]
            self._busy.update((bucket, bucket) for bucket in busy)
            self._busy.update((watch, watch.bucket) for watch in route.watched if watch.bucket in busy)
        self._crowd = max(_ROUTES, 2 * len(self.routes))  # so that a look at all of them is rare, however many are busy
        if len(self._busy) >= self._most_busy:
            self._busy = {kept: bucket for kept, bucket in self._busy.items() if _counts(bucket, now)}
            self._most_busy = max(_ROUTES, 2 * len(self._busy))


def _counts(bucket: Bucket, now: int) -> bool:
    """Whether a limit is not as good as fresh."""
    return bucket.strategy.idle_in(bucket.state, now) != 0


def _money(path: Sequence[Bucket]) -> tuple[str, ...]:
    return tuple(bucket.limit.name for bucket in path if bucket.limit.resource is Resource.COST)


def _counting(kind: str, path: Sequence[Bucket]) -> str:
    """Whose way of counting matters: the provider's, where a limit counts `max_tokens`, or cached input may be free."""
    if all(bucket.limit.counts != "max_tokens" for bucket in path) and not _FREE_READS.search(kind):
        return ""
    from agent_rate_limiter.providers.kinds import known_kind

    return known_kind(kind) or ""
