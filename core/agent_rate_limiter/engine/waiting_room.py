"""Everybody who waits, in the queues of the limits that bind them. Used under the engine's lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush

from agent_rate_limiter.admission import Bucket, Refusal, refused
from agent_rate_limiter.engine.port import Hold, Store
from agent_rate_limiter.engine.queue import ADMITTED, Outcome, Waiter, WaitQueue
from agent_rate_limiter.limits import Resource


class WaitingRoom:
    """Places waiters, serves them in order, and knows when to look again.

    Args:
        store: where the limits' states live.
        ageing: milliseconds after which a waiting priority rises by one level.
        admit: told of each hold that was reserved for a waiter, with the time.
        undo: gives back the hold of a waiter that nobody heard being admitted.
        bounds: how many may wait for one limit: under a priority those of that priority, under None all together.
    """

    __slots__ = ("_admit", "_ageing", "_bounds", "_deadlines", "_queues", "_retries", "_store", "_undo", "waiting")

    def __init__(
        self,
        store: Store,
        ageing: int,
        admit: Callable[[Hold, int], None],
        undo: Callable[[Hold, int], None],
        bounds: Mapping[int | None, int],
    ) -> None:
        self._bounds = bounds
        self.waiting = 0
        self._store = store
        self._ageing = ageing
        self._admit = admit
        self._undo = undo
        self._queues: dict[WaitQueue, None] = {}
        self._retries: list[tuple[int, int, WaitQueue]] = []
        self._deadlines: list[tuple[int, int, Waiter]] = []

    def place(self, waiter: Waiter, now: int) -> None:
        """Let a call wait where it is bound; or decide it at once."""
        refusal = self._store.refusal(waiter.hold, now)
        if refusal is not None:
            if hopeless(waiter, refusal, now):
                waiter.outcome = refusal
            else:
                self._park(waiter, refusal.bucket, now)
        elif (busy := busy_elsewhere(waiter.hold)) is not None:
            self._park(waiter, busy, now)
        else:
            self._store.reserve(waiter.hold, now)
            self._admit(waiter.hold, now)
            waiter.outcome = ADMITTED

    def withdraw(self, waiter: Waiter, now: int) -> None:
        """Take out a waiter that has not been served."""
        queue = waiter.queue
        if queue is None:
            return
        was_head = queue.head(now) is waiter
        self._leave(waiter, now, served=False)
        if was_head:
            self._pump(queue, now)

    def freed(self, holds: Iterable[Hold], now: int) -> None:
        """Serve the queues of limits that something was given back to."""
        for hold in holds:
            for bucket in hold.path:
                if bucket.queue is not None:
                    self._pump(bucket.queue, now)

    def serve_all(self, now: int) -> None:
        """Serve every queue: limits were corrected."""
        for queue in list(self._queues):
            if queue in self._queues:
                self._pump(queue, now)

    def due(self, now: int) -> None:
        """Serve the queues whose limits have room by now, and end the waits whose deadline has come."""
        while self._retries and self._retries[0][0] <= now:
            at, _, queue = heappop(self._retries)
            if queue.retry_at == at:
                queue.retry_at = None
                self._pump(queue, now)
        while self._deadlines and self._deadlines[0][0] <= now:
            waiter = heappop(self._deadlines)[2]
            self._expire(waiter, now)

    def next_time(self) -> int | None:
        """Epoch milliseconds at which `due` has something to do; None: time alone changes nothing."""
        while self._retries and self._retries[0][2].retry_at != self._retries[0][0]:
            heappop(self._retries)
        while self._deadlines and self._left(self._deadlines[0][2]):
            heappop(self._deadlines)
        return min((heap[0][0] for heap in (self._retries, self._deadlines) if heap), default=None)

    def _left(self, waiter: Waiter) -> bool:
        """Whether a call waits no more."""
        return waiter.queue is None

    def behind(self, hold: Hold, priority: int, now: int) -> Refusal | None:
        """Say whom a newcomer would overtake if it were admitted now."""
        for bucket, amount in zip(hold.path, hold.amounts, strict=False):
            queue: WaitQueue | None = bucket.queue
            if amount and queue is not None and queue.blocks(priority, now):
                return queued(bucket, amount, queue.ahead_of(priority, ""), now)
        return None

    def clear(self, why: Outcome, now: int) -> None:
        """Send everybody away."""
        for queue in list(self._queues):
            while (waiter := queue.head(now)) is not None:
                self._finish(waiter, why, now)

    def _park(self, waiter: Waiter, bucket: Bucket, now: int) -> None:
        queue = self._enter(waiter, bucket, now)
        if queue is not None and queue.head(now) is waiter:
            self._pump(queue, now)

    def _enter(self, waiter: Waiter, bucket: Bucket, now: int) -> WaitQueue | None:
        """Let a waiter into a limit's queue; None if it cannot wait there."""
        queue: WaitQueue = bucket.queue or WaitQueue(bucket, self._ageing)
        newcomer = not (waiter.moved or waiter.returns_to(bucket))
        if newcomer and (refusal := _too_late(waiter, queue, now) or self._crowded(waiter, queue, now)):
            self._turn_away(waiter, refusal)
            return None
        if bucket.queue is None:
            bucket.queue = queue
            self._queues[queue] = None
        if waiter.deadline is not None and not waiter.timed:
            waiter.timed = True
            heappush(self._deadlines, (waiter.deadline, waiter.sequence, waiter))
        queue.push(waiter)
        self.waiting += 1
        return queue

    def _turn_away(self, waiter: Waiter, refusal: Refusal) -> None:
        """Refuse a newcomer, whose driver looks at once."""
        waiter.outcome = refusal

    def _crowded(self, waiter: Waiter, queue: WaitQueue, now: int) -> Refusal | None:
        """Refuse a newcomer to a full queue, or send away a less urgent waiter for it."""
        own = self._bounds.get(waiter.priority)
        if own is not None and queue.waiting_at(waiter.priority) >= own:
            return _crowd(queue, waiter, now)
        most = self._bounds.get(None)
        if most is None or queue.waiting < most:
            return None
        last = queue.last() if most else waiter
        if last.priority <= waiter.priority:
            return _crowd(queue, waiter, now)
        shed = _crowd(queue, last, now)
        self._leave(last, now, served=False)
        last.outcome = shed
        last.ring(last.bell)
        return None

    def _leave(self, waiter: Waiter, now: int, *, served: bool) -> None:
        queue = waiter.queue
        assert queue is not None  # noqa: S101 - callers have looked
        queue.remove(waiter, now, served=served)
        self.waiting -= 1
        if queue.empty:
            self._close(queue)

    def _close(self, queue: WaitQueue) -> None:
        queue.bucket.queue = queue.retry_at = None
        del self._queues[queue]

    def _pump(self, queue: WaitQueue, now: int) -> None:
        """Serve a queue from its head until the head has to wait."""
        while (waiter := queue.head(now)) is not None:
            if not waiter.moved and (busy := busy_elsewhere(waiter.hold, queue)) is not None:
                self._move(waiter, busy, now)
                continue
            waiter.renew()
            refusal = self._store.reserve(waiter.hold, now)
            if refusal is None:
                self._admit(waiter.hold, now)
                self._finish(waiter, ADMITTED, now)
            elif hopeless(waiter, refusal, now):
                self._finish(waiter, refusal, now)
            elif refusal.bucket is not queue.bucket:
                self._move(waiter, refusal.bucket, now)
            else:
                self._retry_at(queue, None if refusal.wait is None else now + refusal.wait)
                return

    def _move(self, waiter: Waiter, bucket: Bucket, now: int) -> None:
        """Let the head of one queue wait on for another limit, where it comes first: it has had its turn."""
        self._leave(waiter, now, served=True)
        waiter.moved = True
        self._park(waiter, bucket, now)

    def _retry_at(self, queue: WaitQueue, at: int | None) -> None:
        if queue.retry_at != at:
            queue.retry_at = at
            if at is not None:
                heappush(self._retries, (at, id(queue), queue))

    def _finish(self, waiter: Waiter, outcome: Outcome, now: int) -> None:
        self._leave(waiter, now, served=True)
        waiter.outcome = outcome
        if not waiter.ring(waiter.bell) and outcome is ADMITTED:  # its event loop is gone: it will never be sent
            self._undo(waiter.hold, now)

    def _expire(self, waiter: Waiter, now: int) -> None:
        """A deadline has come; the call may be gone by then."""
        queue = waiter.queue
        if queue is None:
            return
        was_head = queue.head(now) is waiter
        refusal = self._store.refusal(waiter.hold, now) or queued(queue.bucket, waiter.amount, 0, now)
        self._finish(waiter, refusal, now)
        if was_head:
            self._pump(queue, now)


def busy_elsewhere(hold: Hold, but: WaitQueue | None = None) -> Bucket | None:
    """Return a limit on the path that others already wait for."""
    for bucket, amount in zip(hold.path, hold.amounts, strict=False):
        if amount and bucket.queue is not None and bucket.queue is not but:
            return bucket
    return None


def hopeless(waiter: Waiter, refusal: Refusal, now: int) -> bool:
    """Whether waiting is in vain: it never fits, not before the deadline, or only after a budget's reset."""
    if refusal.never or (waiter.deadline is not None and waiter.deadline <= now):
        return True
    if refusal.may_free or waiter.stays:
        return False
    if refusal.wait is None:
        return True
    if waiter.deadline is not None:
        return now + refusal.wait > waiter.deadline
    return refusal.bucket.limit.resource is Resource.COST


def _too_late(waiter: Waiter, queue: WaitQueue, now: int) -> Refusal | None:
    """Say so if those ahead alone take longer than the newcomer can wait."""
    if waiter.deadline is None or waiter.stays or queue.empty:
        return None
    amount = waiter.hold.amounts[waiter.hold.path.index(queue.bucket)]
    refusal = queued(queue.bucket, amount, queue.ahead_of(waiter.priority, waiter.flow), now)
    return refusal if refusal.wait is not None and now + refusal.wait > waiter.deadline else None


def _crowd(queue: WaitQueue, waiter: Waiter, now: int) -> Refusal:
    ahead = queue.ahead_of(waiter.priority, waiter.flow) if queue.waiting else 0
    amount = waiter.hold.amounts[waiter.hold.path.index(queue.bucket)]
    return queued(queue.bucket, amount, ahead, now)._replace(crowd=queue.waiting)


def queued(bucket: Bucket, amount: int, ahead: int, now: int) -> Refusal:
    """Return the refusal of a call that has others before it."""
    return refused(bucket, amount, now, may_free=False, ahead=ahead)
