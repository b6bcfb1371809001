"""The engine: every call passes here, under one lock, in one step."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from heapq import heappop, heappush
from itertools import count
from threading import Lock
from typing import TypeVar
from weakref import WeakSet

from agent_rate_limiter.admission import Bucket, Refusal
from agent_rate_limiter.engine.port import Clock, Hold, Store, Waker
from agent_rate_limiter.engine.queue import ADMITTED, Outcome, Waiter, WaitQueue
from agent_rate_limiter.errors import LimiterClosed, ReservationError
from agent_rate_limiter.limits import Resource

T = TypeVar("T")
LAST = 1 << 30
"""A priority behind everybody's."""

FORKED = (
    "This limiter was made in another process, before a fork: its limits would count twice. "
    "Make the limiter in each process, or share one with store='sqlite:///...' or 'redis://...'."
)
CLOSED = "This limiter is closed. Make a new one."


class Engine:
    """Reservations and the queue. Never sleeps; drivers wait, and wakers call `advance` when time has come.

    Args:
        store: where the limits' states live.
        clock: tells the time.
        lease: milliseconds after which a reservation that nobody settled is taken for lost.
        ageing: milliseconds after which a waiting priority rises by one level.
    """

    def __init__(self, store: Store, clock: Clock, *, lease: int, ageing: int) -> None:
        self.store = store
        self.clock = clock
        self._now: Callable[[], int] = clock.now
        self._lease = lease
        self._ageing = ageing
        self._lock = Lock()
        self._unusable: str | None = None
        self._ids = count(1).__next__
        self._live: dict[int, Hold] = {}  # by age, as leases are all of one length
        self._expiry = 0  # no hold expires before
        self._orphans: deque[Hold] = deque()  # dropped by their owner, perhaps under our own lock
        self._waiting = 0
        self._queues: dict[WaitQueue, None] = {}
        self._retries: list[tuple[int, int, WaitQueue]] = []
        self._deadlines: list[tuple[int, int, Waiter]] = []
        self._wakers: dict[Hashable, Waker] = {}
        self.clock_wakes = hasattr(clock, "waker")  # a virtual clock: time passes when it says so
        if self.clock_wakes:
            self._wakers["clock"] = clock.waker(self.advance)
        _engines.add(self)

    # -- calls ---------------------------------------------------------------------------------------------

    def reserve(self, hold: Hold, priority: int) -> Refusal | None:
        """Admit a call now, or say what binds. Never waits, and never overtakes anybody who does."""
        with self._lock:
            now = self._enter()
            refusal = self._behind(hold, priority, now) if self._waiting else None
            if refusal is None:
                refusal = self.store.reserve(hold, now)
                if refusal is None:
                    self._register(hold, now)
        if self._orphans:
            self.advance()
        return refusal

    def enqueue(self, waiter: Waiter) -> None:
        """Let a call wait. Its outcome may be known at once: admitted, or refused for good."""
        with self._lock:
            now = self._enter()
            self._place(waiter, now)
            self._rearm()
        if self._orphans:
            self.advance()

    def withdraw(self, waiter: Waiter) -> None:
        """Take out a call that is no longer waited for. Leaves no trace, even if it was admitted meanwhile."""
        with self._lock:
            now = self._now()
            if waiter.outcome is ADMITTED:
                self._release(waiter.hold, waiter.hold.nothing, now)
                self._advance(now, waiter.hold)
            elif waiter.queue is not None:
                self._leave(waiter, now, served=False)
                self._rearm()
        if self._orphans:
            self.advance()

    def settle(self, hold: Hold, used: Sequence[int]) -> None:
        """End a reservation with what was used.

        Raises:
            ReservationError: it has been settled before.
        """
        with self._lock:
            now = self._now()
            if hold.open:
                self._release(hold, used, now)
            elif hold.lost:  # its lease had run out, and its estimate was charged
                hold.lost = False
                self.store.correct(hold, [new - old for new, old in zip(used, hold.amounts, strict=True)], now)
            else:
                message = f"Reservation {hold.id} was settled before. End each once."
                raise ReservationError(message)
            if self._waiting:
                self._advance(now, hold)
        if self._orphans:
            self.advance()

    def abandon(self, hold: Hold) -> None:
        """Note that nobody can settle this hold any more. Safe anywhere, even in a finalizer under our lock."""
        self._orphans.append(hold)
        if self._lock.acquire(blocking=False):  # otherwise whoever holds the lock looks after it
            self._lock.release()
            self.advance()

    def advance(self) -> None:
        """Admit whoever can be admitted by now, and end what has run out."""
        while True:
            with self._lock:
                self._advance(self._now())
            if not self._orphans:
                return

    # -- drivers -------------------------------------------------------------------------------------------

    def attach(self, key: Hashable, make: Callable[[], Waker]) -> Waker:
        """Return the waker of that key, made on first use."""
        with self._lock:
            waker = self._wakers.get(key)
            if waker is None:
                waker = self._wakers[key] = make()
            return waker

    def detach(self, key: Hashable) -> None:
        """Forget a waker: nobody waits there any more."""
        with self._lock:
            self._wakers.pop(key, None)

    def next_event(self) -> int | None:
        """Epoch milliseconds of the next thing to do while somebody waits; None: nothing by time alone."""
        if not self._waiting:
            return None
        while self._retries and self._retries[0][2].retry_at != self._retries[0][0]:
            heappop(self._retries)
        while self._deadlines and self._deadlines[0][2].queue is None:
            heappop(self._deadlines)
        times = [heap[0][0] for heap in (self._retries, self._deadlines) if heap]
        if self._live:
            times.append(next(iter(self._live.values())).expires_at)
        return min(times, default=None)

    def read(self, look: Callable[[int], T]) -> T:
        """Call `look(now)` while nothing changes."""
        with self._lock:
            found = look(self._now())
        if self._orphans:
            self.advance()
        return found

    # -- reports -------------------------------------------------------------------------------------------

    def verdict(self, hold: Hold, now: int) -> Refusal | None:
        """Say what a newcomer would be told; inside `read`."""
        return self._behind(hold, LAST, now) or self.store.refusal(hold, now)

    @property
    def in_flight(self) -> int:
        """Reservations that are not settled yet."""
        return len(self._live)

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return self._waiting

    # -- the end -------------------------------------------------------------------------------------------

    def close(self, why: str = CLOSED) -> None:
        """Refuse every further call, and those that wait."""
        with self._lock:
            self._unusable = why
            now = self._now()
            for queue in list(self._queues):
                while (waiter := queue.head(now)) is not None:
                    self._finish(waiter, why, now)

    def after_fork(self) -> None:
        """Refuse to work in the child: its threads, waiters and calls in flight stayed with the parent."""
        self._lock = Lock()
        self._unusable = FORKED
        self._waiting = 0
        self._live.clear()
        self._orphans.clear()
        self._wakers.clear()

    # -- one step, under the lock --------------------------------------------------------------------------

    def _enter(self) -> int:
        if self._unusable is not None:
            raise LimiterClosed(self._unusable)
        now = self._now()
        if now >= self._expiry and self._live:
            self._collect(now)
        return now

    def _register(self, hold: Hold, now: int) -> None:
        hold.id = self._ids()
        hold.taken_at = now
        hold.expires_at = now + self._lease
        hold.open = True
        self._live[hold.id] = hold

    def _release(self, hold: Hold, used: Sequence[int], now: int) -> None:
        hold.open = False
        self._live.pop(hold.id, None)
        self.store.settle(hold, used, now)

    def _collect(self, now: int) -> list[Hold]:
        """Settle what was lost with its estimate: it may well have been sent."""
        lost = []
        while self._orphans:
            lost.append(self._orphans.popleft())
        for hold in self._live.values():
            self._expiry = hold.expires_at
            if now < self._expiry:
                break
            lost.append(hold)
        lost = [hold for hold in lost if hold.open]
        for hold in lost:
            self._release(hold, hold.amounts, now)
            hold.lost = True
        return lost

    def _advance(self, now: int, freed: Hold | None = None) -> None:
        released = self._collect(now)
        if freed is not None:
            released.append(freed)
        for hold in released:
            for bucket in hold.path:
                if bucket.queue is not None:
                    self._pump(bucket.queue, now)
        while self._retries and self._retries[0][0] <= now:
            at, _, queue = heappop(self._retries)
            if queue.retry_at == at:
                queue.retry_at = None
                self._pump(queue, now)
        while self._deadlines and self._deadlines[0][0] <= now:
            waiter = heappop(self._deadlines)[2]
            if waiter.queue is not None:
                self._time_out(waiter, now)
        self._rearm()

    def _rearm(self) -> None:
        if self._wakers:
            at = self.next_event()
            for waker in list(self._wakers.values()):
                waker.arm(at)

    # -- the queue, under the lock -------------------------------------------------------------------------

    def _place(self, waiter: Waiter, now: int) -> None:
        refusal = self.store.refusal(waiter.hold, now)
        if refusal is not None:
            if self._hopeless(waiter, refusal, now):
                waiter.outcome = refusal
            else:
                self._park(waiter, refusal.bucket, now)
        elif (busy := _busy(waiter.hold)) is not None:
            self._park(waiter, busy, now)
        else:
            self.store.reserve(waiter.hold, now)
            self._register(waiter.hold, now)
            waiter.outcome = ADMITTED

    def _park(self, waiter: Waiter, bucket: Bucket, now: int) -> None:
        queue: WaitQueue | None = bucket.queue
        if queue is None:
            queue = bucket.queue = WaitQueue(bucket, self._ageing)
            self._queues[queue] = None
        elif not waiter.moved and (refusal := self._too_late(waiter, queue, now)):
            waiter.outcome = refusal
            return
        if waiter.deadline is not None and not waiter.moved:
            heappush(self._deadlines, (waiter.deadline, waiter.sequence, waiter))
        queue.push(waiter)
        self._waiting += 1
        if queue.head(now) is waiter:
            self._pump(queue, now)

    def _leave(self, waiter: Waiter, now: int, *, served: bool) -> None:
        queue = waiter.queue
        assert queue is not None  # noqa: S101 - callers have looked
        was_head = queue.head(now) is waiter
        queue.remove(waiter, now, served=served)
        self._waiting -= 1
        if queue.empty:
            queue.bucket.queue = queue.retry_at = None
            del self._queues[queue]
        elif was_head and not served:
            self._pump(queue, now)

    def _pump(self, queue: WaitQueue, now: int) -> None:
        """Serve a queue from its head until the head has to wait."""
        while (waiter := queue.head(now)) is not None:
            if not waiter.moved and (busy := _busy(waiter.hold, queue)) is not None:
                self._move(waiter, busy, now)
                continue
            refusal = self.store.reserve(waiter.hold, now)
            if refusal is None:
                self._register(waiter.hold, now)
                self._finish(waiter, ADMITTED, now)
            elif self._hopeless(waiter, refusal, now):
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
        if not waiter.signal() and outcome is ADMITTED:  # its event loop is gone: it will never be sent
            self._release(waiter.hold, waiter.hold.nothing, now)

    def _time_out(self, waiter: Waiter, now: int) -> None:
        assert waiter.queue is not None  # noqa: S101 - the caller has looked
        queue = waiter.queue
        refusal = self.store.refusal(waiter.hold, now) or self._queued_behind(waiter.hold, queue, waiter.amount, now)
        was_head = queue.head(now) is waiter
        self._finish(waiter, refusal, now)
        if was_head and not queue.empty:
            self._pump(queue, now)

    # -- verdicts, under the lock --------------------------------------------------------------------------

    def _hopeless(self, waiter: Waiter, refusal: Refusal, now: int) -> bool:
        """Whether waiting is in vain: it never fits, not before the deadline, or only after a budget's reset."""
        if refusal.never:
            return True
        if refusal.may_free:
            return False
        if refusal.wait is None:
            return True
        if waiter.deadline is not None:
            return now + refusal.wait > waiter.deadline
        return refusal.bucket.limit.resource is Resource.COST

    def _too_late(self, waiter: Waiter, queue: WaitQueue, now: int) -> Refusal | None:
        """Whether those ahead alone take longer than the newcomer can wait."""
        if waiter.deadline is None:
            return None
        amount = waiter.hold.amounts[waiter.hold.path.index(queue.bucket)]
        ahead = queue.ahead_of(waiter.priority, waiter.flow)
        refusal = self._queued_behind(waiter.hold, queue, amount, now, ahead)
        return refusal if refusal.wait is not None and now + refusal.wait > waiter.deadline else None

    def _behind(self, hold: Hold, priority: int, now: int) -> Refusal | None:
        for bucket, amount in zip(hold.path, hold.amounts, strict=True):
            queue: WaitQueue | None = bucket.queue
            if amount and queue is not None and queue.blocks(priority, now):
                return self._queued_behind(hold, queue, amount, now, queue.ahead_of(priority, ""))
        return None

    @staticmethod
    def _queued_behind(hold: Hold, queue: WaitQueue, amount: int, now: int, ahead: int = 0) -> Refusal:
        bucket = queue.bucket
        strategy, state = bucket.strategy, bucket.state
        wait = strategy.wait(state, amount + ahead, now)
        available = strategy.available(state, now) - ahead
        return Refusal(bucket, amount, available, wait, never=amount > strategy.capacity, may_free=False)


def _busy(hold: Hold, but: WaitQueue | None = None) -> Bucket | None:
    """Return a limit on the path that others already wait for."""
    for bucket, amount in zip(hold.path, hold.amounts, strict=True):
        if amount and bucket.queue is not None and bucket.queue is not but:
            return bucket
    return None


_engines: WeakSet[Engine] = WeakSet()


def _after_fork() -> None:
    for engine in list(_engines):
        engine.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
