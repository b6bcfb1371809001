"""What calls really use, learned per model and caller: it takes the place of guesses.

Input that was guessed from a text is corrected by what the model really counted; output that nobody expects is
taken as a high quantile of what this model gave this caller. All of it is bounded, and remembered by the store.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from threading import Lock
from typing import Any, cast

from agent_rate_limiter.errors import StoreUnavailable
from agent_rate_limiter.learning.tallies import ENOUGH, MEMORY, Counted, Mean, Sizes
from agent_rate_limiter.limits import Target
from agent_rate_limiter.redaction import one_line
from agent_rate_limiter.usage import Estimate, Usage

_dice = Random()  # noqa: S311 - no secrets; our own, so that a program that seeds the module keeps its numbers
_log = logging.getLogger("agent_rate_limiter")

_QUANTILE = 0.9
"""Of ten calls, so many need no more output than is reserved; budgets and `max_tokens` limits reserve the worst."""
_SAMPLED = 24
"""Of so many calls, one is learned from, at random, once there were `MEMORY` of them: so it costs next to nothing."""
_CALLERS = 512
"""Callers (a model and an agent) that are kept."""
_REMEMBERED = 64
"""Agents of a model that the store remembers."""
_SAVE_EVERY = 60_000
"""Milliseconds."""


@dataclass(frozen=True)
class EstimateStatus:
    """How good the estimates of one caller are.

    Args:
        target: the model, as `provider:model`.
        agent: who calls; empty for those without a name.
        calls: that were learned from.
        input_ratio: what the model counts, in terms of what is guessed from a text; None while too little is known.
        input_error: how far corrected guesses are off, as a share of what was counted: 0.1 is a tenth.
        output_tokens: what is reserved for an answer whose length nobody states; None while too little is known.
        output_within: the share of answers that needed no more than what was reserved; None before there was one.
        output_error: how far that is off, as a share of what was used: mostly too much, as it is a high quantile.
    """

    target: str
    agent: str
    calls: int
    input_ratio: float | None
    input_error: float
    output_tokens: int | None
    output_within: float | None
    output_error: float

    def __str__(self) -> str:
        """On one line."""
        who = f" ({one_line(self.agent)})" if self.agent else ""
        calls = f"{self.calls:,} call{'' if self.calls == 1 else 's'}"
        given = "" if self.input_ratio is None else f", input {self.input_ratio:.2f} x guessed ±{self.input_error:.0%}"
        fit = "" if self.output_within is None else f" ({self.output_within:.0%} fit)"
        produced = "" if self.output_tokens is None else f", output {self.output_tokens:,}{fit}"
        return f"{self.target}{who}: {calls}{given}{produced}"


class Caller:
    """What one caller of one model uses.

    Attributes:
        usual: output tokens to reserve where nobody states them; 0 while too little is known.
        input: how the model counts.
        longest: the longest answer so far; None before there was one.
        skip: calls that are not looked at before the next one is.
    """

    __slots__ = ("agent", "error", "input", "longest", "sizes", "skip", "target", "usual", "within")

    def __init__(
        self, target: Target, agent: str, counted: Counted, usual: int = 0, longest: int | None = None
    ) -> None:
        self.target = target
        self.agent = agent
        self.input = counted
        self.sizes = Sizes()
        self.error = Mean()
        self.within = Mean()
        self.usual = usual  # another's, until there is something of its own
        self.longest = longest
        self.skip = 0

    def learn(self, estimate: Estimate, usage: Usage) -> None:
        """Take in one call."""
        used = usage.output_tokens
        if not estimate.exact:
            self.input.add(estimate.input_tokens, usage.input_tokens)
        if used and self.usual:
            reserved = min(estimate.max_output_tokens or self.usual, self.usual)
            self.error.add(abs(reserved - used) / used)
            self.within.add(used <= reserved)
        self.take(used)
        if self.sizes.total > MEMORY // 4:
            self.skip = int(_dice.random() * 2 * _SAMPLED)  # no pattern in the calls may be hit

    def begin_with(self, known: Caller) -> None:
        """Take over what was known all along: calls were made before it was heard."""
        if self.sizes.total < known.sizes.total:
            self.sizes, self.error, self.within, self.usual = known.sizes, known.error, known.within, known.usual
        self.input.begin_with(known.input)

    def take(self, used: int) -> None:
        """Take in the size of one answer; that some have none says nothing of the others."""
        self.longest = max(self.longest or 0, used)
        if not used:
            return
        self.sizes.add(used)
        if self.sizes.total >= ENOUGH:
            self.usual = self.sizes.quantile(_QUANTILE)

    def status(self) -> EstimateStatus:
        """How good its estimates are."""
        return EstimateStatus(
            str(self.target),
            self.agent,
            max(self.sizes.total, self.input.counted.count),
            self.input.ratio,
            self.input.error.value,
            self.usual or None,
            self.within.value if self.within.count else None,
            self.error.value,
        )


class Learned:
    """All callers; those that were not heard of for longest are forgotten.

    Args:
        recall: returns the text that is remembered under a key, or None.
        remember: keeps a text under a key.
    """

    def __init__(self, recall: Callable[[str], str | None], remember: Callable[[str, str], None]) -> None:
        self._recall, self._remember = recall, remember
        self._callers: OrderedDict[tuple[Target, str], Caller] = OrderedDict()
        self.loaded: set[Target] = set()  # of these it is known by now, or asked at this moment
        self._changed: set[Target] = set()
        self._saved_at = 0
        self._lock = Lock()

    def load(self, target: Target) -> None:
        """Recall what is known of a model, once. It may do I/O: never under a lock, nor on a call's way."""
        if target in self.loaded:
            return
        self.loaded.add(target)
        try:
            text = self._recall(_key(target))
            known = _parsed(target, text) if text else []
        except StoreUnavailable:
            self.loaded.discard(target)  # it is asked again when it is back
            return
        except Exception:  # noqa: BLE001 - a store that fails, or a text that is not ours, costs only what was learned
            _log.warning("What was learned of %s cannot be recalled.", target, exc_info=True)
            return
        with self._lock:
            for caller in known:
                mine = self._callers.setdefault((target, caller.agent), caller)
                if mine is not caller:
                    mine.begin_with(caller)
            for caller in self._of(target) if known else ():
                caller.usual = caller.usual or self._model(target).usual

    def caller(self, target: Target, agent: str) -> Caller:
        """Return a caller, made on first use: it begins with what is known of the model."""
        with self._lock:
            found = self._callers.get((target, agent))
            if found is None:
                model = self._model(target)
                found = model if not agent else self._new(target, agent, model.input, model.usual, model.longest)
            self._callers.move_to_end((target, agent))
            return found

    def _model(self, target: Target) -> Caller:
        """All callers of a model together; also those without a name."""
        model = self._callers.get((target, "")) or self._new(target, "", Counted(), 0)
        self._callers.move_to_end((target, ""))
        return model

    def _new(self, target: Target, agent: str, counted: Counted, usual: int, longest: int | None = None) -> Caller:
        caller = self._callers[target, agent] = Caller(target, agent, counted, usual, longest)
        while len(self._callers) > _CALLERS:
            self._callers.popitem(last=False)
        return caller

    def learn(self, caller: Caller, estimate: Estimate, usage: Usage, now: int) -> None:
        """Learn from a call; from time to time, have the store remember it.

        Args:
            caller: who made it.
            estimate: what it was expected to use.
            usage: what it did use.
            now: epoch milliseconds, about.
        """
        if not usage.output_tokens and estimate.exact and caller.longest is not None:
            return
        with self._lock:
            caller.learn(estimate, usage)
            if caller.agent:
                self._model(caller.target).take(usage.output_tokens)
            self._changed.add(caller.target)
            if not self._saved_at:
                self._saved_at = now
            due = now - self._saved_at >= _SAVE_EVERY
            if due:
                self._saved_at = now
        if due:
            self.save()

    def save(self) -> None:
        """Have the store remember what has changed. It may do I/O: never under the engine's lock."""
        with self._lock:
            changed, self._changed = self._changed, set()
            texts = {target: _text(self._of(target)) for target in changed}
        for target, text in texts.items():
            try:
                self._remember(_key(target), text)
            except Exception:  # noqa: BLE001, PERF203 - a store that fails breaks no call
                _log.warning("What was learned of %s cannot be saved.", target, exc_info=True)

    def _of(self, target: Target) -> list[Caller]:
        mine = [caller for caller in self._callers.values() if caller.target == target]
        return [caller for caller in mine if not caller.agent] + [c for c in mine if c.agent][-_REMEMBERED:]

    def report(self) -> tuple[EstimateStatus, ...]:
        """How good all estimates are, of those that learned anything."""
        with self._lock:
            found = [caller.status() for caller in self._callers.values()]
        return tuple(sorted((status for status in found if status.calls), key=lambda it: (it.target, it.agent)))


def _key(target: Target) -> str:
    return f"learned|{target}"


def _text(callers: Iterable[Caller]) -> str:
    """What is remembered of a model: the callers, and with the first how it counts input."""
    rows = [
        {
            "agent": caller.agent,
            "input": [
                [mean.value, mean.count] for mean in (caller.input.counted, caller.input.guessed, caller.input.error)
            ],
            "sizes": list(caller.sizes.counts.items()),
            "error": [[mean.value, mean.count] for mean in (caller.error, caller.within)],
        }
        for caller in callers
    ]
    return json.dumps(rows, separators=(",", ":"))


def _parsed(target: Target, text: str) -> list[Caller]:
    rows = cast("list[dict[str, Any]]", json.loads(text))
    counted = Counted(*(Mean(*pair) for pair in rows[0]["input"])) if rows else Counted()
    callers: list[Caller] = []
    for row in rows:
        caller = Caller(target, row["agent"], counted)
        caller.sizes = Sizes({int(place): int(count) for place, count in row["sizes"]})
        caller.error, caller.within = (Mean(*pair) for pair in row["error"])
        model = callers[0].usual if callers else 0
        caller.usual = caller.sizes.quantile(_QUANTILE) if caller.sizes.total >= ENOUGH else model
        caller.longest = caller.sizes.quantile(1.0) if caller.sizes.total else None
        callers.append(caller)
    return callers
