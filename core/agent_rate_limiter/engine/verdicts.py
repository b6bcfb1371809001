"""What a shared store's answers mean for the copies that a process keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agent_rate_limiter.admission import Bucket, Refusal, refused, severity
from agent_rate_limiter.engine.port import Hold, Rule
from agent_rate_limiter.strategies import Gate, Strategy, strategy_for
from agent_rate_limiter.strategies.gate import State as GateState
from agent_rate_limiter.strategies.numbers import pack, unpack


def refusal_of(hold: Hold, ahead: Sequence[int], now: int) -> tuple[Refusal, int]:
    """Say which limit refused, and how many units of others go before; from the states of the same step.

    Args:
        hold: what was asked for.
        ahead: units that go before in each limit that it takes from.
        now: epoch milliseconds of the step.
    """
    wanted = [(bucket, amount) for bucket, amount in zip(hold.path, hold.amounts, strict=False) if amount]
    refusals = [
        (_refusal(bucket, amount, before, now), before)
        for (bucket, amount), before in zip(wanted, ahead, strict=True)
        if bucket.strategy.take(bucket.state, amount + before, now) is None
    ]
    if refusals:
        return max(refusals, key=lambda found: severity(found[0]))
    bucket, amount = wanted[0]  # room was made in the same batch, after the answer: ask again
    return Refusal(bucket, amount, bucket.strategy.available(bucket.state, now), 1, never=False, may_free=True), 0


def _refusal(bucket: Bucket, amount: int, ahead: int, now: int) -> Refusal:
    may_free = ahead > 0 or bucket.strategy.may_free(bucket.state, amount, now)
    return refused(bucket, amount, now, may_free=may_free, ahead=ahead)


def obey(bucket: Bucket, rule: Rule) -> None:
    """Follow a rule that another process has learned."""
    bucket.obey(replace(rule.limit, scope=bucket.configured.scope), strategy_for(rule.limit))
    bucket.rev = rule.rev


def translated(state: Any, old: Strategy, new: Strategy) -> Any:
    """Return a state of one rule as the next one counts it."""
    return state if type(old) is not type(new) else unpack(new, pack(old, state))


def merged(current: Any, before: Any, after: Any, strategy: Strategy, now: int) -> Any:
    """Apply to a state what somebody changed who did not know it yet.

    Args:
        current: the state as it is.
        before: as it was when the change was made.
        after: what was made of it.
        strategy: how all three are counted.
        now: epoch milliseconds.
    """
    if isinstance(strategy, Gate):
        return _merged_gate(GateState(*current), before, after)
    excess = strategy.available(before, now) - strategy.available(after, now)
    return strategy.settle(current, 0, excess, now, now)


def _merged_gate(current: GateState, before: GateState, after: GateState) -> GateState:
    if after.closed_at != before.closed_at:  # closed, by both perhaps: the longer and the narrower counts
        return after._replace(
            closed_until=max(after.closed_until, current.closed_until),
            strikes=max(after.strikes, current.strikes),
            closed_at=max(after.closed_at, current.closed_at),
        )
    if current.closed_at != before.closed_at:  # closed by another: a success before that tells nothing new
        return current
    return after._replace(in_flight=max(0, current.in_flight + after.in_flight - before.in_flight))
