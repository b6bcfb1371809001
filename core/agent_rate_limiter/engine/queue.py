"""Who goes next: priority, then fair share among agents by tokens, then arrival.

A waiter stands in the queue of the limit that binds it. Within a priority the order is start-time fair
queueing (Goyal, Vin, Cheng: "Start-time Fair Queueing", 1996): each flow (agent) owns a line of tags that
advances by what its calls weigh, and the lowest tag goes first. Whoever is at the head stays there until
served, so a big call is not overtaken by small ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final, Protocol

from agent_rate_limiter.admission import Bucket, Path, Refusal
from agent_rate_limiter.engine.port import Hold

ADMITTED: Final = "admitted"

Outcome = str | Refusal
"""ADMITTED, a refusal, or why the limiter was closed."""

_sequence = count().__next__


class Sizing(Protocol):
    """What a waiting call takes, by what is known when it is tried."""

    @property
    def path(self) -> Path:
        """The limits it is under."""
        ...

    def amounts(self) -> Sequence[int]:
        """Units to take from each."""
        ...


_APART = 1_000
"""Milliseconds between a call's beginning and its wait that only a change of the clock explains."""


def _nobody(_: object) -> bool:
    return False


class Place:
    """Where a call stood in a queue: when it comes back there, it stands there again."""

    __slots__ = ("bucket", "sequence", "start")

    def __init__(self) -> None:
        self.bucket: Bucket | None = None
        self.start = self.sequence = 0


class Waiter:
    """One call in a queue.

    Args:
        hold: what it wants to take.
        priority: lower goes first.
        flow: whose fair share it draws on; the agent's name.
        weight: tokens (or requests) that it draws.
        since: epoch milliseconds at which it began to wait.
        deadline: epoch milliseconds at which it gives up; None waits for ever.
        sizing: where the hold's path and amounts come from; a limit that is learned meanwhile joins them.
        moved: it has had its turn before, at another limit or in an attempt that failed: it goes to the front.
        stays: it waits until its deadline, however late it may be served.
        place: where it stood before, and stands now.

    Attributes:
        ring: called once with `bell`, when the outcome is known; False when nobody is there any more to hear it.
    """

    __slots__ = (
        "amount",
        "bell",
        "deadline",
        "flow",
        "hold",
        "moved",
        "number",
        "outcome",
        "place",
        "priority",
        "queue",
        "ring",
        "sequence",
        "since",
        "sizing",
        "start",
        "stays",
        "timed",
        "weight",
    )

    def __init__(
        self,
        hold: Hold,
        *,
        priority: int,
        flow: str,
        weight: int,
        since: int,
        deadline: int | None,
        sizing: Sizing,
        moved: bool = False,
        stays: bool = False,
        place: Place | None = None,
    ) -> None:
        self.hold = hold
        self.priority = priority
        self.flow = flow
        self.weight = weight
        self.since = since
        self.deadline = deadline
        self.sizing = sizing
        self.bell: Any = None
        self.ring: Callable[[Any], bool] = _nobody  # the driver's
        self.number = self.sequence = _sequence()  # who it is, and when it came
        self.outcome: Outcome | None = None
        self.moved = moved
        self.stays = stays
        self.place = place
        self.timed = False  # its deadline is looked after
        self.queue: WaitQueue | None = None
        self.start = 0
        self.amount = 0  # units of the bucket whose queue it stands in

    def returns_to(self, bucket: Bucket) -> bool:
        """Whether it stood in that limit's queue before."""
        return self.place is not None and self.place.bucket is bucket

    def join(self, now: int) -> None:
        """It begins to wait: where it began long ago, or later, the store's time has become known meanwhile."""
        if abs(now - self.since) > _APART:
            self.shift(now - self.since)

    def shift(self, by: int) -> None:
        """Its times were told by a clock that was late by milliseconds: it may wait as long as before."""
        self.since += by
        if self.deadline is not None:
            self.deadline += by

    def renew(self) -> None:
        """Follow the limits that the path has by now."""
        if self.sizing.path is not self.hold.path:
            self.hold.path, self.hold.amounts = self.sizing.path, self.sizing.amounts()


class WaitQueue:
    """Everybody who waits for one bucket.

    Args:
        bucket: the limit that they wait for.
        ageing: milliseconds after which a priority that was passed over counts as one level more urgent;
            so the least urgent still progress, and the urgent hardly notice.
    """

    __slots__ = ("_ageing", "_classes", "bucket", "retry_at")

    def __init__(self, bucket: Bucket, ageing: int) -> None:
        self.bucket = bucket
        self.retry_at: int | None = None  # when the head may fit by time alone
        self._ageing = ageing
        self._classes: dict[int, _PriorityClass] = {}

    @property
    def empty(self) -> bool:
        """Nobody waits here."""
        return not self._classes

    @property
    def waiting(self) -> int:
        """How many wait here."""
        return sum(group.waiting for group in self._classes.values())

    def waiting_at(self, priority: int) -> int:
        """How many of a priority wait here."""
        group = self._classes.get(priority)
        return 0 if group is None else group.waiting

    def last(self) -> Waiter:
        """Return who goes last: of the least urgent the one whose turn is the latest."""
        return self._classes[max(self._classes)].last()

    def push(self, waiter: Waiter) -> None:
        """Let a waiter in; one that comes from another queue has had its turn, and goes to the front."""
        path, amounts = waiter.hold.path, waiter.hold.amounts
        waiter.queue, waiter.amount = self, amounts[path.index(self.bucket)]
        group = self._classes.get(waiter.priority)
        if group is None:
            group = self._classes[waiter.priority] = _PriorityClass(waiter.priority)
        group.push(waiter, self.bucket)

    def head(self, now: int) -> Waiter | None:
        """Return who goes next."""
        group = self._leading(now)
        return None if group is None else group.head()

    def remove(self, waiter: Waiter, now: int, *, served: bool) -> None:
        """Let a waiter out: it was served, or gave up, or moved on."""
        waiter.queue = None
        group = self._classes[waiter.priority]
        group.remove(waiter, now, served=served)
        if not group.waiting:
            del self._classes[waiter.priority]

    def ahead_of(self, priority: int, flow: str) -> int:
        """Estimate the units that a newcomer has to let pass first."""
        units = 0
        for group in self._classes.values():
            if group.priority < priority:
                units += group.units
            elif group.priority == priority:
                units += group.ahead_of(flow)
        return units

    def rank(self, waiter: Waiter, now: int) -> int:
        """How urgent a waiter is, the time included that its class was passed over."""
        return self._classes[waiter.priority].rank(now, self._ageing)[0]

    def blocks(self, priority: int, now: int) -> bool:
        """Whether somebody is waiting who goes before a newcomer of that priority."""
        group = self._leading(now)
        return group is not None and group.rank(now, self._ageing) <= (priority, priority)

    def _leading(self, now: int) -> _PriorityClass | None:
        if len(self._classes) <= 1:  # the usual case
            return next(iter(self._classes.values()), None)
        return min(self._classes.values(), key=lambda group: group.rank(now, self._ageing))


class _PriorityClass:
    """The waiters of one priority, in fair order."""

    __slots__ = ("_clock", "_finish", "_flows", "_head", "_heap", "_served_at", "priority", "units", "waiting")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.waiting = 0
        self.units = 0
        self._heap: list[tuple[int, int, int, Waiter]] = []
        self._head: Waiter | None = None
        self._clock = 0  # virtual time: how far every active flow has been served
        self._finish: dict[str, int] = {}  # where each flow's next tag begins
        self._flows: dict[str, list[int]] = {}  # each flow's waiters and their units
        self._served_at = 0

    def push(self, waiter: Waiter, bucket: Bucket) -> None:
        place = waiter.place
        if waiter.moved:
            waiter.start = -1
        elif place is not None and place.bucket is bucket:
            waiter.start, waiter.sequence = place.start, place.sequence
            self._yield_to(waiter)
        else:
            waiter.start = max(self._clock, self._finish.get(waiter.flow, 0))
            self._finish[waiter.flow] = waiter.start + _tag(waiter)
        if place is not None:
            place.bucket, place.start, place.sequence = bucket, waiter.start, waiter.sequence
        heappush(self._heap, (waiter.start, waiter.sequence, waiter.number, waiter))
        flow = self._flows.setdefault(waiter.flow, [0, 0])
        flow[0] += 1
        flow[1] += waiter.amount
        self.waiting += 1
        self.units += waiter.amount

    def _yield_to(self, waiter: Waiter) -> None:
        """Let one that comes back to its place before the head go before it again."""
        head = self._head
        if head is not None and (waiter.start, waiter.sequence) < (head.start, head.sequence):
            heappush(self._heap, (head.start, head.sequence, head.number, head))
            self._head = None

    def head(self) -> Waiter:
        """The one whose turn it is. It keeps its place, even if a lower tag comes in later."""
        while self._head is None:
            waiter = heappop(self._heap)[3]
            if waiter.queue is not None:  # the others have left, from the middle
                self._head = waiter
        return self._head

    def last(self) -> Waiter:
        """The one whose turn comes after everybody's."""
        behind = max((entry for entry in self._heap if entry[3].queue is not None), default=None)
        return self.head() if behind is None else behind[3]

    def remove(self, waiter: Waiter, now: int, *, served: bool) -> None:
        if self._head is waiter:
            self._head = None
        self.waiting -= 1
        self.units -= waiter.amount
        if served:
            self._served_at = now
            self._clock = max(self._clock + _tag(waiter) // len(self._flows), waiter.start)
        flow = self._flows[waiter.flow]
        flow[0] -= 1
        flow[1] -= waiter.amount
        if not flow[0]:
            del self._flows[waiter.flow]
        self._tidy()

    def rank(self, now: int, ageing: int) -> tuple[int, int]:
        """How urgent the class is: its priority, less a level for each `ageing` ms that it was passed over."""
        passed_over = now - max(self._served_at, self.head().since)
        return (self.priority - max(0, passed_over) // ageing, self.priority)

    def ahead_of(self, flow: str) -> int:
        """Fair order lets each other flow pass as much as this one has waiting, and the head in any case."""
        waiting = self._flows.get(flow)
        if waiting is None:
            return self.head().amount
        return min(self.units, waiting[1] * len(self._flows))

    def _tidy(self) -> None:
        # Those who left from the middle stay in the heap until they come up, unless they become the most of it.
        if len(self._heap) > 64 and len(self._heap) > 2 * self.waiting:  # noqa: PLR2004
            self._heap = sorted(
                entry for entry in self._heap if entry[3].queue is not None and entry[3] is not self._head
            )
        if len(self._finish) > 64 and len(self._finish) > 2 * len(self._flows):  # noqa: PLR2004
            self._finish = {f: tag for f, tag in self._finish.items() if f in self._flows or tag > self._clock}


def _tag(waiter: Waiter) -> int:
    """What a call weighs in virtual time, in fractions fine enough to be shared among many flows."""
    return max(1, waiter.weight) << 20
