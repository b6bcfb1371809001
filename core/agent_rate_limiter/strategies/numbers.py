"""States as whole numbers, which any database keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_rate_limiter.strategies import Concurrency, FixedWindow, Gate, SlidingWindow, Strategy, TokenBucket
from agent_rate_limiter.strategies.gate import State as GateState


def pack(strategy: Strategy, state: Any) -> list[int]:
    """Return a state as whole numbers; a token bucket's begin with the fractions that it counts a unit in."""
    if isinstance(strategy, TokenBucket):
        return [strategy.unit, *state]
    if isinstance(strategy, Concurrency):
        return [state]
    if isinstance(strategy, SlidingWindow):
        return [state[0], state[2], *(number for slot in state[1] for number in slot)]
    return list(state)


def digits(strategy: Strategy, state: Any) -> str:
    """Return the same, written out with commas."""
    if isinstance(strategy, TokenBucket):
        return f"{strategy.unit}, {state[0]}, {state[1]}"
    if isinstance(strategy, FixedWindow):
        return str(state)[1:-1]
    return str(pack(strategy, state))[1:-1]


def unpack(strategy: Strategy, numbers: Sequence[int]) -> Any:
    """Return the state that these numbers stand for; a debt counted in other fractions is counted anew."""
    if isinstance(strategy, TokenBucket):
        unit, debt, last = numbers
        return (debt if unit == strategy.unit else -(-debt * strategy.unit // unit), last)
    if isinstance(strategy, Concurrency):
        return numbers[0]
    if isinstance(strategy, SlidingWindow):
        return (numbers[0], tuple(zip(numbers[2::2], numbers[3::2], strict=True)), numbers[1])
    return GateState(*numbers) if isinstance(strategy, Gate) else tuple(numbers)


def lost_with_its_member(strategy: Strategy, state: Any) -> bool:
    """Whether a call that nobody can settle any more would hold something for ever."""
    if isinstance(strategy, TokenBucket):
        return False
    if isinstance(strategy, Gate):
        return strategy.counts(state)
    return isinstance(strategy, (Concurrency, FixedWindow)) or (
        isinstance(strategy, SlidingWindow) and strategy.refunds
    )
