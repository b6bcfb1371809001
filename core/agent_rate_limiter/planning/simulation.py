"""A workload on the real engine, in virtual time; and what held it up, exactly."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from agent_rate_limiter.costs.quotes import UNPRICED
from agent_rate_limiter.decision import Decision
from agent_rate_limiter.errors import AllTargetsFailed, ConfigError, LimitExceeded
from agent_rate_limiter.limits import Limit, Resource, Target
from agent_rate_limiter.multi_provider import MultiProviderLimiter
from agent_rate_limiter.planning.workload import Call, Lane, Workload
from agent_rate_limiter.provider import ANY_MODEL
from agent_rate_limiter.testing.clock import START, ManualClock
from agent_rate_limiter.testing.loop import run_virtual
from agent_rate_limiter.usage import Estimate, Usage


class Name(NamedTuple):
    """A limit, for all scopes that have it.

    Args:
        owner: what it belongs to: a target, a provider, "budget".
        limit: its name.
    """

    owner: str
    limit: str


@dataclass
class Outcome:
    """What happened.

    Args:
        seconds: from the beginning to the end of the last call.
        cost: dollars.
        waits: seconds that each served call waited.
        refused: calls that each limit refused.
        reasons: a refusal of each of these in words.
        bound: when each limit held calls up, as (from, to) in seconds.
        done: (seconds, calls ended, dollars) after each call.
        waiting: (seconds, calls that wait) after each change.
        tokens: input and output.
        unpriced: targets that have no price.
        targets: calls that each target served.
    """

    seconds: float = 0.0
    cost: float = 0.0
    waits: list[float] = field(default_factory=list[float])
    refused: Counter[Name] = field(default_factory=Counter[Name])
    reasons: dict[Name, str] = field(default_factory=dict[Name, str])
    bound: dict[Name, list[tuple[float, float]]] = field(default_factory=dict[Name, list[tuple[float, float]]])
    done: list[tuple[float, int, float]] = field(default_factory=list[tuple[float, int, float]])
    waiting: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    tokens: tuple[int, int] = (0, 0)
    unpriced: tuple[str, ...] = ()
    targets: Counter[str] = field(default_factory=Counter[str])


class _Clock(ManualClock):
    """Tells the limiter how long things stayed as they were, before it moves on."""

    watcher: PlannedLimiter | None = None

    def advance_to(self, moment: int) -> None:
        if self.watcher is not None and moment > self.now():
            self.watcher.stayed(self.now(), moment)
        super().advance_to(moment)


class PlannedLimiter(MultiProviderLimiter):
    """A limiter that notes which of its limits hold calls up.

    Args:
        raised: a limit to raise.
        factor: by how much.
        options: MultiProviderLimiter's.
    """

    def __init__(self, raised: Name | None, factor: float, **options: Any) -> None:
        self._raised = raised
        self._factor = factor
        self.bound: dict[Name, list[tuple[int, int]]] = {}
        self.waiting: list[tuple[int, int]] = []
        super().__init__(**options)
        self.alerts.silent = True

    def stayed(self, since: int, until: int) -> None:
        """Note what holds calls up between two moments, in epoch milliseconds: nothing changes between them."""
        engine = self._calls.engine
        if not self.waiting or self.waiting[-1][1] != engine.waiting:
            self.waiting.append((since, engine.waiting))
        if not engine.waiting:
            return
        for name in {_name(bucket) for bucket in engine.store.buckets() if bucket.queue is not None}:
            spans = self.bound.setdefault(name, [])
            if spans and spans[-1][1] == since:
                spans[-1] = (spans[-1][0], until)
            else:
                spans.append((since, until))

    def first_target(self) -> str:
        """Return the target of calls that name none."""
        for provider in self.providers.values():
            for model in provider.models:
                if model != ANY_MODEL:
                    return f"{provider.name}:{model}"
        raise ConfigError("workload names no target, and the configuration no model: add 'to provider:model' to it.")

    def check_target(self, target: str, where: str) -> None:
        """Refuse a target that is not configured.

        Raises:
            ConfigError: it is not; the message names its place in the workload.
        """
        try:
            self._target(target)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    def unpriced(self) -> tuple[str, ...]:
        """Return the targets that were called and have no price."""
        rows = self.costs.report(by=("provider", "model", "price")).to_dicts()
        return tuple(f"{row['provider']}:{row['model']}" for row in rows if row["price"] == UNPRICED)

    def name_of(self, decision: Decision) -> Name:
        """Name the limit that refused a call."""
        limit = decision.limit
        assert limit is not None  # noqa: S101 - a refusal has one
        declared = super()._declared(Target.parse(decision.target)).limits
        owner = next((owner for owner, other in declared if other.name == limit.name), decision.target)
        return Name(owner, limit.name)

    def _declared(self, target: Any) -> Any:
        declared = super()._declared(target)
        if self._raised is not None:
            declared.limits = tuple((owner, self._raise(owner, limit)) for owner, limit in declared.limits)
        return declared

    def _raise(self, owner: str, limit: Limit) -> Limit:
        if (owner, limit.name) != self._raised:
            return limit
        return replace(
            limit, amount=_times(limit, limit.amount, self._factor), burst=_times(limit, limit.burst, self._factor)
        )


def _times(limit: Limit, amount: Any, factor: float) -> Any:
    if amount is None:
        return None
    return amount * factor if limit.resource is Resource.COST else max(1, round(amount * factor))


def _name(bucket: Any) -> Name:
    return Name(bucket.key.partition("|")[0], bucket.limit.name)


def simulate(
    options: Mapping[str, Any], workload: Workload, raised: Name | None = None, factor: float = 2.0
) -> Outcome:
    """Run a workload in virtual time.

    Args:
        options: the limiter's.
        workload: what is to be done.
        raised: a limit to raise, to see what that brings.
        factor: by how much.

    Raises:
        ConfigError: the workload names a target that is not configured.
    """
    clock = _Clock(START if workload.begins is None else round(workload.begins * 1000))
    limiter = PlannedLimiter(raised, factor, **{**options, "clock": clock})
    targets = {(call.target, call.where) for lane in workload.lanes for call in lane.calls}
    default = limiter.first_target() if any(not target for target, _ in targets) else ""
    for target, where in sorted(targets):
        limiter.check_target(target or default, where)
    clock.watcher = limiter
    run = _Run(limiter, clock, default)
    _in_own_loop(run.all(workload.lanes), clock)
    return run.outcome()


class _Run:
    def __init__(self, limiter: PlannedLimiter, clock: ManualClock, default: str) -> None:
        self._limiter = limiter
        self._clock = clock
        self._default = default
        self._zero = clock.now()
        self._found = Outcome()
        self._sent = self._produced = self._ended = 0

    async def all(self, lanes: Iterable[Lane]) -> None:
        await asyncio.gather(*map(self._lane, lanes))

    async def _lane(self, lane: Lane) -> None:
        if lane.start:
            await asyncio.sleep(lane.start)  # noqa: TID251 - on virtual time
        labels: Any = lane.labels
        with self._limiter.scope(**labels):
            for call in lane.calls:
                await self._call(call)

    async def _call(self, call: Call) -> None:
        estimate = Estimate(1, call.input_tokens, call.output_tokens, call.max_output_tokens)
        found = self._found
        try:
            reservation = await self._limiter.acquire_async(
                call.target or self._default, estimate, priority=call.priority, timeout=call.timeout
            )
        except (LimitExceeded, AllTargetsFailed) as error:
            self._refused(error)
            return
        found.waits.append(reservation.waited)
        found.targets[str(reservation.target)] += 1
        await asyncio.sleep(call.seconds)  # noqa: TID251 - on virtual time
        reservation.settle(Usage(1, call.input_tokens, call.output_tokens, call.cached_input_tokens))
        found.cost += reservation.cost or 0.0
        self._sent += call.input_tokens
        self._produced += call.output_tokens
        self._ended += 1
        found.seconds = (self._clock.now() - self._zero) / 1000
        found.done.append((found.seconds, self._ended, found.cost))

    def _refused(self, error: LimitExceeded | AllTargetsFailed) -> None:
        causes = error.causes.values() if isinstance(error, AllTargetsFailed) else [error]
        decision = next(cause.decision for cause in causes if isinstance(cause, LimitExceeded))
        name = self._limiter.name_of(decision)
        self._found.refused[name] += 1
        self._found.reasons.setdefault(name, str(error))

    def outcome(self) -> Outcome:
        """Sum up."""
        found, zero = self._found, self._zero
        found.tokens = (self._sent, self._produced)
        found.bound = {
            name: [((since - zero) / 1000, (until - zero) / 1000) for since, until in spans]
            for name, spans in self._limiter.bound.items()
        }
        found.unpriced = self._limiter.unpriced()
        found.waiting = [((at - zero) / 1000, number) for at, number in self._limiter.waiting]
        return found


def _in_own_loop(main: Coroutine[Any, Any, None], clock: ManualClock) -> None:
    """Run it; in a notebook a loop is running already, so in a thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        run_virtual(main, clock)
        return
    failed: list[BaseException] = []

    def work() -> None:
        try:
            run_virtual(main, clock)
        except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
            failed.append(error)

    thread = threading.Thread(target=work, name="agent-rate-limiter-plan")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
