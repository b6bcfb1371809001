"""From a target and a scope to the limits on the call's path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from operator import itemgetter
from typing import Protocol

from agent_rate_limiter.admission import Bucket, Path
from agent_rate_limiter.alerts import Alerts, Watch
from agent_rate_limiter.calls.context import CallScope, ScopeKey
from agent_rate_limiter.cost_tracker import CostTracker
from agent_rate_limiter.costs.accounts import Account
from agent_rate_limiter.costs.quotes import Quotes
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.estimates import UNSTATED_OUTPUT
from agent_rate_limiter.learning.sizes import Caller, Learned
from agent_rate_limiter.limits import NANO_PER_DOLLAR, Limit, Resource, Target
from agent_rate_limiter.pricing import Price
from agent_rate_limiter.strategies import GATE, NARROW_GATE
from agent_rate_limiter.strategies.gate import FREE, OPEN
from agent_rate_limiter.usage import Estimate, Usage

_ROUTES = 4_096
"""Compiled routes that are kept; beyond, those whose limits are all idle are forgotten."""

_CROWD = 8
"""Calls that may be in flight on a budget whose answers nobody knows anything of."""

_FIELD = {
    Resource.REQUESTS: 0,
    Resource.INPUT_TOKENS: 1,
    Resource.OUTPUT_TOKENS: 2,
    Resource.TOKENS: 3,
    Resource.COST: 4,
    Resource.CONCURRENCY: 5,
}
_AT_MOST = {Resource.OUTPUT_TOKENS: 6, Resource.TOKENS: 7}
"""Where limits that count `max_tokens` look."""
_GATE = 8


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


class Route:
    """One target, called from one scope: the limits on its path, and how a call's size maps onto them.

    Args:
        target: where calls go.
        scope: who makes them.
        path: the limits; the first is the target's gate.
        account: the books of this target and scope, which know its price.
        watched: the limits on the path that somebody wants to hear of.
        caller: what its calls usually use.
        kind: whose way of counting `max_tokens` its limits follow.
        searching: whether nobody configured a rate: then successes and refusals teach it.
        passing: whether a gate that seems open is to be asked (1): others may have closed it.
        unstated: hears of budgets that cannot know what a call costs at most.
    """

    __slots__ = (
        "_burndown",
        "_capped",
        "_costed",
        "_larger",
        "_passing",
        "_pick",
        "_purse",
        "_unstated",
        "account",
        "caller",
        "flow",
        "gate",
        "labels",
        "path",
        "rated",
        "searching",
        "target",
        "watched",
    )

    def __init__(
        self,
        target: Target,
        scope: CallScope,
        path: Path,
        account: Account,
        *,
        watched: tuple[Watch, ...],
        caller: Caller,
        kind: str,
        searching: bool,
        passing: int = 0,
        unstated: Callable[[Sequence[str]], None] = lambda _: None,
    ) -> None:
        self.target = target
        self.labels = scope.labels
        self.gate = path[0]
        self.account = account
        self.watched = watched
        self.caller = caller
        self._larger = kind == "openai"  # of input and max_tokens, not their sum (provider docs, November 2026)
        self._burndown = _burndown(target.model) if kind == "bedrock" else 0
        self.searching = searching
        self._passing = passing
        self._unstated = unstated
        self.flow = scope.labels.get("agent", "")
        self.follow(path)

    def follow(self, path: Path) -> None:
        """Take over a path that has grown at its end; calls in flight keep the part they know."""
        fields = [_field(bucket.limit) for bucket in path]
        self._costed = _FIELD[Resource.COST] in fields
        self._purse = [bucket for bucket in path if bucket.limit.resource is Resource.COST and bucket.limit.enforced]
        self._capped = not set(fields).isdisjoint(_AT_MOST.values())
        self._pick = _picker(fields)
        self.rated = any(bucket.limit.resource is not Resource.COST for bucket in path[1:])  # what it is paced by
        self.path = path

    def expects(self, estimate: Estimate) -> tuple[int, int, int]:
        """Tokens of input, of output, and of output at most: as stated, else as such calls usually use."""
        given, expected, at_most = estimate.input_tokens, estimate.output_tokens, estimate.max_output_tokens
        if not estimate.exact:
            given = self.caller.input.corrected(given)
        if expected:
            return given, expected, max(expected, at_most)
        usual = self.caller.usual
        if at_most:
            return given, usual if 0 < usual < at_most else at_most, at_most
        return (given, 0, 0) if estimate.exact else (given, usual, usual)

    def reserved(self, estimate: Estimate) -> Sequence[int]:
        """Units to take from each limit on the path: what is expected, and of money the worst case."""
        requests, given = estimate.requests, estimate.input_tokens
        expected, at_most = estimate.output_tokens, estimate.max_output_tokens
        if not estimate.exact:
            given, expected, at_most = self.expects(estimate)
        elif expected:  # as in expects, without a call
            if expected > at_most:  # noqa: PLR1730 - max() is slower, and this is the hot path
                at_most = expected
        else:
            usual = self.caller.usual
            expected = usual if 0 < usual < at_most else at_most
        cost = 0
        if self._costed:
            if estimate.cost is not None:
                cost = round(estimate.cost * NANO_PER_DOLLAR)
            else:
                cost = self.account.worst(requests, given, at_most)
                if not at_most and requests and self._purse:
                    cost = self._cautious(requests, given, cost)
        gate = self.gate.state
        open_ = gate is FREE or (gate[1] >= OPEN and not gate[0])
        passing = self._passing if open_ else 1  # nobody counts who passes an open gate
        capped = 0
        if self._capped:
            capped = max(given, at_most) if self._larger else given + at_most
        return self._pick((requests, given, expected, given + expected, cost, 1, at_most, capped, passing))

    def _cautious(self, requests: int, given: int, least: int) -> int:
        """What hard budgets are to be ready for where nobody states the output, in nano-dollars.

        As much as usual; until that is known, UNSTATED_OUTPUT or an eighth of the smallest budget, and the longest
        answer so far at least: then a first crowd cannot overrun it, and learns.
        """
        usual, longest, worst = self.caller.usual, self.caller.longest, self.account.worst
        if usual or longest == 0:
            cost = worst(requests, given, usual)
        else:
            share = min(bucket.strategy.capacity for bucket in self._purse) // _CROWD
            first = min(share, worst(requests, given, UNSTATED_OUTPUT))
            cost = max(least, first, worst(requests, given, longest or 0))
        if cost > least:
            self._unstated([bucket.limit.name for bucket in self._purse])
        return cost

    def expected_cost(self, estimate: Estimate) -> float:
        """What a call is expected to cost, in nano-dollars; infinite when its price is not known."""
        if not self.account.priced:
            self.account.find_price()
        return float("inf") if self.account.price is None else self.account.expected(estimate)

    def used(self, estimate: Estimate, usage: Usage, nano: int) -> Sequence[int]:
        """Units that a call really used of each limit; those that count `max_tokens` keep that."""
        given = usage.input_tokens
        produced = at_most = usage.output_tokens
        capped = 0
        if self._burndown:  # what was used is settled, and not what was reserved
            capped = given - usage.cached_input_tokens + self._burndown * produced
        elif self._capped:
            at_most = max(produced, estimate.max_output_tokens or estimate.output_tokens)
            charged = max(given, self.expects(estimate)[0])
            capped = max(charged, at_most) if self._larger else charged + at_most
        return self._pick((usage.requests, given, produced, given + produced, nano, 0, at_most, capped, 0))


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
        self._crowd = _ROUTES
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
                scoped.kept[self] = self._bucket(f"{scoped.name}|{scoped.limit.key}", scoped.limit, "", now)
            path.append(scoped.kept[self])
        path += self._learned.get(target, ())
        if len(self.routes) >= self._crowd:
            self._forget_idle(now)
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

    def _forget_idle(self, now: int) -> None:
        """Drop routes whose limits are as good as fresh; of shared ones these are copies, that may go at any time."""
        for key, route in list(self.routes.items()):
            if all(b.queue is None and (self._passing or b.strategy.idle_in(b.state, now) == 0) for b in route.path):
                del self.routes[key]
        self._crowd = max(_ROUTES, 2 * len(self.routes))  # so that a look at all of them is rare, however many are busy


def _money(path: Sequence[Bucket]) -> tuple[str, ...]:
    return tuple(bucket.limit.name for bucket in path if bucket.limit.resource is Resource.COST)


def _counting(kind: str, path: Sequence[Bucket]) -> str:
    """Whose way of counting `max_tokens` matters: the provider's dialect, where a limit counts it."""
    if all(bucket.limit.counts != "max_tokens" for bucket in path):
        return ""
    from agent_rate_limiter.providers.kinds import known_kind

    return known_kind(kind) or ""


def _burndown(model: str) -> int:
    from agent_rate_limiter.providers.bedrock import burndown

    return burndown(model)


def _field(limit: Limit) -> int:
    if limit is GATE or limit is NARROW_GATE:
        return _GATE
    if limit.counts == "max_tokens":
        return _AT_MOST.get(limit.resource, _FIELD[limit.resource])
    return _FIELD[limit.resource]


def _picker(fields: list[int]) -> Callable[[tuple[int, ...]], Sequence[int]]:
    return itemgetter(*fields) if len(fields) > 1 else itemgetter(slice(fields[0], fields[0] + 1))


def unknown_target(target: Target, known: Sequence[str]) -> ConfigError:
    """Return the error for a target that nobody configured, with the nearest names."""
    from difflib import get_close_matches

    near = get_close_matches(str(target), known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    names = ", ".join(f"'{name}'" for name in known[:8]) + (", …" if len(known) > 8 else "")  # noqa: PLR2004
    have = f"Configured: {names}. " if known else "No model is. "
    fix = "Add it to its Provider's models, or a model '*' for all others."
    return ConfigError(f"target is '{target}': {hint}It is not configured. {have}{fix}")
