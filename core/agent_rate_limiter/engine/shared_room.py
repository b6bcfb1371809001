"""Everybody who waits in this process for limits that others draw on, too. Used under the engine's lock.

The order is the waiting room's own. But whether a call is admitted, only the store can say: a newcomer whom nobody
precedes here is asked for, and of each queue the head; the answer comes later. A head that is refused stands in
the store's line as well, and asks again when it was told to, or when something was given back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heapify, heappush
from typing import NamedTuple

from agent_rate_limiter.admission import Bucket, Refusal
from agent_rate_limiter.engine.port import Hold, Store
from agent_rate_limiter.engine.queue import ADMITTED, Outcome, Waiter, WaitQueue
from agent_rate_limiter.engine.waiting_room import WaitingRoom, busy_elsewhere, hopeless, queued

_PATIENCE = 5_000
"""Milliseconds after which a head asks again, however long it was told to wait: others may have given back."""
_UNTOLD = 1_000
"""The same where nobody knows when something comes back; news of it comes sooner."""
SLOW = "The store did not answer within the call's timeout: it is slow, or this machine is; or give more time."
_ANSWER = 5_000
"""Milliseconds after which a call that does not wait gives up on the store's answer."""
_GRACE = 500
"""Milliseconds that a place in the store's line is kept for a head that is late."""


class Told(NamedTuple):
    """What a head was told when it asked last."""

    waiter: Waiter
    until: int
    ahead: int


class Wishes:
    """What the room wants of the engine.

    Args:
        ask: send a call's wish to be admitted; with the limit in whose line it stands, and its rank.
        stand: let a head stand in a limit's line, for milliseconds.
        leave: give up the place in a limit's line.
        open: a call was admitted.
        undo: give back what a call was given that is not there any more.
        waits: a call has to wait, for what binds it.
        late: the store has not answered within a call's timeout.
    """

    __slots__ = ("ask", "late", "leave", "open", "stand", "undo", "waits")

    def __init__(  # noqa: PLR0917 - one for each wish
        self,
        ask: Callable[[Waiter, Bucket | None, int], None],
        stand: Callable[[Waiter, WaitQueue, int, int], None],
        leave: Callable[[Bucket], None],
        opened: Callable[[Hold, int], None],
        undo: Callable[[Hold, int], None],
        waits: Callable[[Waiter, Refusal, int], None],
        late: Callable[[Waiter, int], object],
    ) -> None:
        self.waits = waits
        self.late = late
        self.ask = ask
        self.stand = stand
        self.leave = leave
        self.open = opened
        self.undo = undo


class SharedRoom(WaitingRoom):
    """Places waiters, asks for them in order, and hears the answers."""

    __slots__ = ("_asked", "_told", "_wishes", "blind")

    def __init__(self, store: Store, ageing: int, wishes: Wishes, bounds: Mapping[int | None, int]) -> None:
        super().__init__(store, ageing, wishes.open, wishes.undo, bounds)
        self._wishes = wishes
        self._asked: set[Waiter] = set()
        self._told: dict[WaitQueue, Told] = {}
        self.blind = False  # the store is lost: the copies say nothing

    @property
    def busy(self) -> bool:
        """Whether anybody waits for anything."""
        return self.waiting > 0 or bool(self._asked)

    @property
    def everybody(self) -> int:
        """How many wait, in a queue or for the store's answer alone."""
        return self.waiting + sum(waiter.queue is None for waiter in self._asked)

    def place(self, waiter: Waiter, now: int) -> None:
        """Ask for a call; or let it wait where others wait before it."""
        if waiter.deadline is not None and waiter.deadline <= now:  # it does not wait at all
            waiter.outcome = self.behind(waiter.hold, waiter.priority, now)
            if waiter.outcome is not None:
                return
        elif self.waiting and (busy := busy_elsewhere(waiter.hold)) is not None:
            amount = waiter.hold.amounts[waiter.hold.path.index(busy)]
            ahead = busy.queue.ahead_of(waiter.priority, waiter.flow)
            self._wishes.waits(waiter, queued(busy, amount, ahead, now), now)
            self._park(waiter, busy, now)
            return
        if waiter.deadline is not None:
            ends = now + _ANSWER if waiter.deadline <= now else waiter.deadline
            heappush(self._deadlines, (ends, waiter.sequence, waiter))
            self._tidy()
        self._ask(waiter, now)

    def answered(self, waiter: Waiter, refusal: Refusal | None, ahead: int, now: int) -> None:
        """The store has decided on a call.

        Args:
            waiter: the call.
            refusal: what binds; None: it was admitted.
            ahead: units of those in other processes who go before it.
            now: epoch milliseconds.
        """
        if waiter not in self._asked:  # it is not waited for any more
            if refusal is None:
                self._wishes.open(waiter.hold, now)
                self._wishes.undo(waiter.hold, now)
            return
        self._asked.discard(waiter)
        if refusal is None:
            self._wishes.open(waiter.hold, now)
            self._dismiss(waiter, ADMITTED, now)
        elif hopeless(waiter, refusal, now):
            self._dismiss(waiter, refusal, now)
        else:
            self._wait_on(waiter, refusal, ahead, now)

    def unanswered(self, waiter: Waiter, outcome: Outcome, now: int) -> None:
        """The store is lost, and the call with it."""
        if waiter in self._asked:
            self._asked.discard(waiter)
            self._dismiss(waiter, outcome, now)

    def standing(self, queue: WaitQueue, waiter: Waiter, ahead: int, now: int) -> None:
        """The store has said how many units go before a head: it is told anew when to come back."""
        told = self._told.get(queue)
        if told is None or told.waiter is not waiter or told.ahead >= ahead:
            return
        bucket = queue.bucket
        wait = bucket.strategy.wait(bucket.state, waiter.amount + ahead, now)
        self._tell(queue, waiter, wait, ahead, now)

    def reconsider(self, queue: WaitQueue, now: int) -> None:
        """Something was given back, by anybody: ask for the head, if it may fit by now."""
        told = self._told.get(queue)
        head = queue.head(now)
        if told is None or head is None or head in self._asked:
            return
        if _may_fit(queue.bucket, head.amount, told.ahead, now):
            del self._told[queue]
            self._pump(queue, now)

    def called(self, queue: WaitQueue, now: int) -> None:
        """The store says that it is our turn: ask at once, whatever the head was told before."""
        self._told.pop(queue, None)
        self._pump(queue, now)

    def serve_freed(self, hold: Hold, now: int) -> None:
        """Something was given back while the store is lost."""
        for bucket in hold.path:
            if bucket.queue is not None:
                self._told.pop(bucket.queue, None)
                self._pump(bucket.queue, now)

    def recall_all(self, now: int) -> None:
        """Ask for every head again: what it was told holds no more."""
        self._told.clear()
        self.serve_all(now)

    def shift(self, by: int) -> None:
        """The store's time is later than was thought, by milliseconds: everybody may wait as long as before."""
        for waiter in self._asked.union(entry[2] for entry in self._deadlines):
            waiter.shift(by)
        self._deadlines = [(at + by, number, waiter) for at, number, waiter in self._deadlines]

    def queues(self) -> list[WaitQueue]:
        """Every queue that somebody stands in."""
        return list(self._queues)

    def abandon_all(self, outcome: Outcome, now: int) -> None:
        """Send everybody away, asked for or not."""
        for waiter in list(self._asked):
            self.unanswered(waiter, outcome, now)
        self.clear(outcome, now)

    def withdraw(self, waiter: Waiter, now: int) -> None:
        """Take out a waiter that has not been served."""
        self._asked.discard(waiter)
        super().withdraw(waiter, now)

    def _ask(self, waiter: Waiter, now: int) -> None:
        waiter.renew()
        self._asked.add(waiter)
        rank = waiter.priority if waiter.queue is None else waiter.queue.rank(waiter, now)
        self._wishes.ask(waiter, None if waiter.queue is None else waiter.queue.bucket, rank)

    def _wait_on(self, waiter: Waiter, refusal: Refusal, ahead: int, now: int) -> None:
        left = waiter.queue
        if left is not None and left.bucket is not refusal.bucket:
            self._leave(waiter, now, served=True)
            waiter.moved = True
        if waiter.queue is None:
            self._wishes.waits(waiter, refusal, now)
        queue = waiter.queue or self._enter(waiter, refusal.bucket, now)
        if queue is not None and queue.head(now) is waiter:
            self._tell(queue, waiter, refusal.wait, ahead, now)
        if left is not None and left is not queue and not left.empty:
            self._pump(left, now)  # whoever stood behind it comes next

    def _tell(self, queue: WaitQueue, waiter: Waiter, wait: int | None, ahead: int, now: int) -> None:
        wait = _UNTOLD if wait is None else min(max(1, wait), _PATIENCE)
        self._told[queue] = Told(waiter, now + wait, ahead)
        self._retry_at(queue, now + wait)
        self._wishes.stand(waiter, queue, queue.rank(waiter, now), wait + _GRACE)

    def _left(self, waiter: Waiter) -> bool:
        return waiter.queue is None and waiter not in self._asked

    def _tidy(self) -> None:
        """Forget the deadlines of those who have left, when they become the most of them."""
        if len(self._deadlines) > 64 and len(self._deadlines) > 2 * (self.waiting + len(self._asked)):  # noqa: PLR2004
            self._deadlines = [entry for entry in self._deadlines if not self._left(entry[2])]
            heapify(self._deadlines)

    def _turn_away(self, waiter: Waiter, refusal: Refusal) -> None:
        super()._turn_away(waiter, refusal)
        waiter.ring(waiter.bell)

    def _expire(self, waiter: Waiter, now: int) -> None:
        if waiter.queue is not None:
            super()._expire(waiter, now)
        elif waiter in self._asked:
            self._wishes.late(waiter, now)

    def _pump(self, queue: WaitQueue, now: int) -> None:
        """Ask for a queue's head, unless it was told to wait."""
        while (waiter := queue.head(now)) is not None and waiter not in self._asked:
            told = self._told.get(queue)
            if told is not None and told.waiter is waiter and now < told.until:
                self._retry_at(queue, told.until)
                return
            if not waiter.moved and (busy := busy_elsewhere(waiter.hold, queue)) is not None:
                self._move(waiter, busy, now)
                continue
            self._ask(waiter, now)

    def _close(self, queue: WaitQueue) -> None:
        super()._close(queue)
        if self._told.pop(queue, None) is not None:
            self._wishes.leave(queue.bucket)

    def _finish(self, waiter: Waiter, outcome: Outcome, now: int) -> None:
        self._asked.discard(waiter)
        super()._finish(waiter, outcome, now)

    def _dismiss(self, waiter: Waiter, outcome: Outcome, now: int) -> None:
        """A call's outcome is known; whoever stood behind it comes next."""
        queue = waiter.queue
        if queue is None:
            waiter.outcome = outcome
            if not waiter.ring(waiter.bell) and outcome is ADMITTED:
                self._undo(waiter.hold, now)
            return
        if outcome is ADMITTED:
            self._told.pop(queue, None)  # the store has let it out of its line
        self._finish(waiter, outcome, now)
        self._next(queue, now)

    def _next(self, queue: WaitQueue, now: int) -> None:
        """Let the next head stand at once, where it is plain that it has to wait; otherwise ask for it."""
        while (head := queue.head(now)) is not None:
            refusal = None if self.blind or head in self._asked else self._store.refusal(head.hold, now)
            if refusal is None or refusal.bucket is not queue.bucket:
                self._pump(queue, now)
                return
            if not hopeless(head, refusal, now):
                self._tell(queue, head, refusal.wait, 0, now)
                return
            self._finish(head, refusal, now)


def _may_fit(bucket: Bucket, amount: int, ahead: int, now: int) -> bool:
    """Whether to ask for a head, after units that went before it when the store was asked last.

    Where nobody knows when units come back (slots), those before it may have had theirs long since: the store knows.
    """
    strategy, state = bucket.strategy, bucket.state
    if strategy.take(state, amount + ahead, now) is not None:
        return True
    return strategy.wait(state, amount + ahead, now) is None and strategy.take(state, amount, now) is not None
