"""One target, called from one scope: the limits on its path, and how a call's size maps onto them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from operator import itemgetter

from agent_rate_limiter.admission import Path
from agent_rate_limiter.alerts import Watch
from agent_rate_limiter.calls.context import CallScope
from agent_rate_limiter.costs.accounts import Account
from agent_rate_limiter.estimates import UNSTATED_OUTPUT
from agent_rate_limiter.learning.sizes import Caller
from agent_rate_limiter.limits import NANO_PER_DOLLAR, Limit, Resource, Target
from agent_rate_limiter.strategies import GATE, NARROW_GATE
from agent_rate_limiter.strategies.gate import FREE, OPEN
from agent_rate_limiter.usage import Estimate, Usage

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


class Route:
    """One target, called from one scope: the limits on its path, and how a call's size maps onto them.

    Args:
        target: where calls go.
        scope: who makes them.
        path: the limits; the first is the target's gate.
        account: the books of this target and scope, which know its price.
        watched: the limits on the path that somebody wants to hear of.
        caller: what its calls usually use.
        kind: whose way of counting its limits follow, where that matters.
        searching: whether nobody configured a rate: then successes and refusals teach it.
        passing: whether a gate that seems open is to be asked (1): others may have closed it.
        unstated: hears of budgets that cannot know what a call costs at most.
    """

    __slots__ = (
        "_burndown",
        "_capped",
        "_costed",
        "_kind",
        "_larger",
        "_passing",
        "_pick",
        "_purse",
        "_uncached",
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
        self._kind = kind
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
        self._uncached = _uncached(self._kind, self.target.provider, path) if self._kind else ()
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

    def reserved(self, estimate: Estimate, *, asking: bool = False) -> Sequence[int]:
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
                    cost = self._cautious(requests, given, cost, asking=asking)
        gate = self.gate.state
        open_ = gate is FREE or (gate[1] >= OPEN and not gate[0])
        passing = self._passing if open_ else 1  # nobody counts who passes an open gate
        capped = 0
        if self._capped:
            capped = max(given, at_most) if self._larger else given + at_most
        return self._pick((requests, given, expected, given + expected, cost, 1, at_most, capped, passing))

    def _cautious(self, requests: int, given: int, least: int, *, asking: bool) -> int:
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
        if cost > least and not asking:  # whoever only asks makes no call
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
        used = self._pick((usage.requests, given, produced, given + produced, nano, 0, at_most, capped, 0))
        if self._uncached and usage.cached_input_tokens:
            free = usage.cached_input_tokens
            return [amount - free if place in self._uncached else amount for place, amount in enumerate(used)]
        return used


def _burndown(model: str) -> int:
    from agent_rate_limiter.providers.counting import burndown

    return burndown(model)


def _uncached(kind: str, provider: str, path: Path) -> Collection[int]:
    """Which limits of the provider's own do not count what was read from its cache."""
    from agent_rate_limiter.providers.counting import FREE_READS

    free = FREE_READS.get(kind, ())
    own = [bucket.limit.resource in free and not bucket.scope and bucket.key.startswith(provider) for bucket in path]
    return frozenset(place for place, is_free in enumerate(own) if is_free)


def _field(limit: Limit) -> int:
    if limit is GATE or limit is NARROW_GATE:
        return _GATE
    if limit.counts == "max_tokens":
        return _AT_MOST.get(limit.resource, _FIELD[limit.resource])
    return _FIELD[limit.resource]


def _picker(fields: list[int]) -> Callable[[tuple[int, ...]], Sequence[int]]:
    return itemgetter(*fields) if len(fields) > 1 else itemgetter(slice(fields[0], fields[0] + 1))
