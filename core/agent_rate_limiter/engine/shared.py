"""The engine of limits that many processes share: commands go out, answers come in, and no lock is held meanwhile.

Order inside the process is the waiting room's, order among processes the store's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from agent_rate_limiter.admission import Bucket, Path, Refusal
from agent_rate_limiter.engine.changes import Changes
from agent_rate_limiter.engine.engine import CLOSED
from agent_rate_limiter.engine.loss import FAIL_OPEN
from agent_rate_limiter.engine.port import Correct, Hold, Leave, Stand
from agent_rate_limiter.engine.queue import Waiter, WaitQueue
from agent_rate_limiter.engine.shared_room import SLOW, Wishes
from agent_rate_limiter.engine.upkeep import Upkeep
from agent_rate_limiter.engine.verdicts import refusal_of
from agent_rate_limiter.engine.wishes import Asked, Ended
from agent_rate_limiter.errors import LimiterClosed, ReservationError


class Grown(Protocol):
    """A path that may be longer after something was learned: a route."""

    @property
    def path(self) -> Path:
        """The limits, by now."""
        ...


class SharedEngine(Upkeep):
    """As Engine, for a store that other processes draw on, too."""

    def _begin(self) -> None:
        self._numbers = 0
        self._listeners: dict[Waiter, Callable[[Refusal, int], None]] = {}
        self._apart: set[int] = set()  # holds that were admitted while the store was lost
        super()._begin()
        self._changes = Changes(self._outbox, lambda bucket: self.is_adaptive(bucket))  # noqa: PLW0108 - it is set later

    def _wishes(self) -> Wishes:
        return Wishes(self._ask, self._stand, self._leave, self._open, self._undo, self._waits, self._late)

    # -- calls ---------------------------------------------------------------------------------------------

    def enqueue(self, waiter: Waiter) -> None:
        """Let a call wait for the store's word, or for others first."""
        with self._lock:
            if self._unusable is not None:
                raise LimiterClosed(self._unusable)
            now = self.clock.now()
            waiter.join(now)
            self._clear_up(now)
            self._room.place(waiter, now)
            if waiter.outcome is not None:
                self._listeners.pop(waiter, None)
            if waiter.queue is not None or self.clock_wakes:
                self._rearm()
            elif waiter.deadline is not None:  # of all else the answer reminds
                self._arm(waiter.deadline)
        self.deliver()

    def hear_of(self, waiter: Waiter, listener: Callable[[Refusal, int], None]) -> None:
        """Call `listener` under the lock, with what binds, if this call has to wait."""
        self._listeners[waiter] = listener

    def _waits(self, waiter: Waiter, refusal: Refusal, now: int) -> None:
        listener = self._listeners.pop(waiter, None)
        if listener is not None:
            listener(refusal, now)

    def withdraw(self, waiter: Waiter) -> None:
        """Take out a call that is no longer waited for. Leaves no trace, even if it was admitted meanwhile."""
        with self._lock:
            self._listeners.pop(waiter, None)
            now = self.clock.now()
            if waiter.hold.open:
                self._undo(waiter.hold, now)
            else:
                self._room.withdraw(waiter, now)
            self._rearm()
        self.deliver()

    def track(self, hold: Hold) -> None:
        """Open a hold that takes nothing: nobody needs to be asked."""
        with self._lock:
            if self._unusable is not None:
                raise LimiterClosed(self._unusable)
            hold.id = self._numbers = self._numbers + 1
            self._open(hold, self.clock.now())

    def settle(self, hold: Hold, used: Sequence[int]) -> int:
        """End a reservation with what was used; return when that was. The store hears of it in a moment.

        Raises:
            ReservationError: it has been settled before, or in another process.
        """
        with self._lock:
            now = self.clock.now()
            if hold.id in self._live and self._live[hold.id] is hold:
                self._end(hold, used)
            elif hold.lost:
                self._amend(hold, used)
            else:
                message = f"Reservation {hold.id} was settled before, or made in another process. End each once, there."
                raise ReservationError(message)
            self._clear_up(now)
        self.deliver(urgent=False)
        return now

    def abandon(self, hold: Hold) -> None:
        """Note that nobody can settle this hold any more. Safe anywhere, even in a finalizer under our lock."""
        self._dropped.append(hold)
        if self._courier is not None:
            self._courier(urgent=False)
        elif not self._lock.locked():
            self.advance()

    def change(self, route: Grown, learn: Callable[[int], None]) -> None:
        """Let what a provider said change the limits on a path, once their states are fresh; for all processes."""
        with self._lock:
            self._change(route, learn)
        self.deliver(urgent=False)

    def look(self, path: Path, see: Callable[[], object]) -> None:
        """Call `see` under the lock, once the states of these limits are fresh; not while the store is lost."""
        with self._lock:
            if self.loss.since is None:
                self._outbox.read(path, lambda _, now: see())  # noqa: ARG005
        self.deliver(urgent=False)

    # -- drivers -------------------------------------------------------------------------------------------

    def advance(self, *, everybody: bool = False) -> None:
        """Ask for whoever may be admitted by now, and end what has run out."""
        with self._lock:
            now = self.clock.now()
            self._clear_up(now)
            if everybody:
                self._room.serve_all(now)
            self._room.due(now)
            self._rearm()
        self.deliver()

    def next_event(self) -> int | None:
        """Epoch milliseconds of the next thing to do while somebody waits; None: nothing by time alone."""
        times = [self._room.next_time()] if self._line.busy else []
        if self.clock_wakes:
            times.append(self._next_chore())
        if self._live and self._line.busy:
            times.append(self._none_expires_before)
        return min((at for at in times if at is not None), default=None)

    # -- what goes out, under the lock ---------------------------------------------------------------------

    def _change(self, route: Grown, learn: Callable[[int], None]) -> None:
        if self.loss.since is not None:
            self._learn(route, learn, self.clock.now(), keep=False)
            return
        once = iter([learn])  # a lost batch that is answered later teaches nothing twice
        self._outbox.read(
            route.path,
            lambda _, now: self._learn(route, next(once, None), now),
            lambda now: self._learn(route, next(once, None), now, keep=False),
        )

    def _ask(self, waiter: Waiter, standing: Bucket | None, rank: int) -> None:
        waiter.hold.id = number = self._numbers = self._numbers + 1
        if self.loss.since is None:
            self._outbox.wishes.append(Asked(self, waiter, number, standing, rank))
        else:
            self.without_store(waiter, self.clock.now())

    def _stand(self, waiter: Waiter, queue: WaitQueue, rank: int, lasting: int) -> None:
        if self.loss.since is not None:
            return
        bucket, amount, number = queue.bucket, waiter.amount, waiter.sequence
        self._outbox.put(
            lambda place: Stand(place(bucket), number, rank, waiter.flow, waiter.weight, amount, lasting),
            lambda ahead, now: self._line.standing(queue, waiter, ahead, now),
            lambda _: False,
        )

    def _leave(self, bucket: Bucket) -> None:
        if self.loss.since is None:
            self._outbox.put(lambda place: Leave(place(bucket)), None, lambda _: False)

    def _end(self, hold: Hold, used: Sequence[int]) -> None:
        hold.open = False
        del self._live[hold.id]
        if hold.id in self._apart:  # the store never knew of it
            now = self.clock.now()
            self._apart.discard(hold.id)
            self.loss.settle(hold, used, now)
            self._send_correction(hold, self.loss.unheard(hold, used))
            self._line.serve_freed(hold, now)
            return
        kept = hold.id in self._kept
        self._kept.discard(hold.id)
        if any(used) or any(hold.amounts):
            self._outbox.wishes.append(Ended(self, hold.id, kept, hold.taken_at, hold.path, hold.amounts, used))

    def _amend(self, hold: Hold, used: Sequence[int]) -> None:
        hold.lost = False
        self._send_correction(hold, [new - old for new, old in zip(used, hold.amounts, strict=False)])

    def _send_correction(self, hold: Hold, changes: Sequence[int]) -> None:
        rows = [(bucket, change) for bucket, change in zip(hold.path, changes, strict=False) if change]
        if rows:
            self._charge(rows, hold.taken_at)

    def _charge(self, rows: list[tuple[Bucket, int]], taken_at: int) -> None:
        self._outbox.put(
            lambda place: Correct(taken_at, tuple((place(bucket), change) for bucket, change in rows)),
            None,
            lambda _: True,
        )

    def _undo(self, hold: Hold, now: int) -> None:  # noqa: ARG002 - as the other engine's
        self._end(hold, hold.nothing)

    def _open(self, hold: Hold, now: int) -> None:
        self._admitted += 1
        hold.taken_at = now
        hold.expires_at = now + self._lease
        hold.open = True
        self._live[hold.id] = hold

    # -- what comes in, under the lock ---------------------------------------------------------------------

    def decided(self, asked: Asked, found: Any, now: int) -> None:
        """The store has decided on a call: a truth admits it, and is whether a record is kept of it."""
        waiter, number = asked.waiter, asked.number
        admitted = isinstance(found, bool)
        if waiter.hold.id != number:  # decided without the store meanwhile
            if admitted:
                nothing = [0] * len(asked.path)
                self._outbox.wishes.append(Ended(self, number, found, now, asked.path, asked.amounts, nothing))
            return
        if admitted:
            if found:
                self._kept.add(number)
            self._line.answered(waiter, None, 0, now)
        else:
            refusal, ahead = refusal_of(waiter.hold, found, now)
            self._line.answered(waiter, refusal, ahead, now)
        self._listeners.pop(waiter, None)

    def freed(self, path: Sequence[Bucket], now: int) -> None:
        """Something was given back to these limits."""
        for bucket in path if self._line.waiting else ():
            if bucket.queue is not None:
                self._line.reconsider(bucket.queue, now)

    def _learn(self, route: Grown, learn: Callable[[int], None] | None, now: int, *, keep: bool = True) -> bool:
        if learn is None:
            return False
        before = {bucket: (bucket.state, bucket.limit, bucket.strategy) for bucket in route.path}
        learn(now)
        for bucket in route.path if keep else ():
            was = before.get(bucket)
            if was is None or was[0] != bucket.state or was[1] is not bucket.limit:
                self._changes.note(bucket, was)
        if self._room.waiting:
            self._room.serve_all(now)
            for queue in self._line.queues():
                self._line.reconsider(queue, now)
        return False

    # -- loss ----------------------------------------------------------------------------------------------

    def without_store(self, waiter: Waiter, now: int) -> bool:
        """Decide a call while the store is lost, as the limiter was told to."""
        found = self.loss.decide(waiter.hold, now)
        if isinstance(found, str):
            self._line.unanswered(waiter, found, now)
            return False
        waiter.hold.id = self._numbers = self._numbers + 1  # should the store have admitted it, it will be given back
        if found is None:
            self._apart.add(waiter.hold.id)
        self._line.answered(waiter, found, 0, now)
        return False

    def _late(self, waiter: Waiter, now: int) -> None:
        """A call's time was up before the store's was: who goes on without a store goes on."""
        if self.loss.policy == FAIL_OPEN:
            self.without_store(waiter, now)
        else:
            self._line.unanswered(waiter, SLOW, now)

    # -- the end -------------------------------------------------------------------------------------------

    def let_go(self) -> None:
        """Give back what this process keeps for calls to come: nothing here."""

    def depart(self) -> None:
        """The process ends, and its calls in flight: their estimates stay charged, their slots come back at once."""
        self._dropped.extend([*self._live.values()])
        self.let_go()
        self.advance()

    def close(self) -> None:
        """Refuse every further call, and those that wait. Calls in flight can still be settled."""
        with self._lock:
            self._unusable = self._unusable or CLOSED
            self._line.abandon_all(CLOSED, self.clock.now())
        self.deliver()
        self._wind_up()

    def before_fork(self) -> None:
        """Let no I/O be under way: a database's own locks would never be released in the child."""
        self._io.acquire()

    def after_fork_here(self) -> None:
        """Go on in the parent."""
        with suppress(RuntimeError):  # made between, by another thread
            self._io.release()
        if self._outbox.wishes and not self.clock_wakes:  # whoever found it taken went away again
            self._call_courier(urgent=True)

    def after_fork(self) -> None:
        """Start anew in the child: its parent's calls in flight, waiters and connections stay with the parent."""
        self._shared.forked()
        self._wakers = {key: waker for key, waker in self._wakers.items() if key == "clock"}
        for queue in self._line.queues():
            queue.bucket.queue = None
        self._begin()

    def _clear_up(self, now: int) -> None:
        """Settle what was lost with its estimate, or what is known of it: it may well have been sent."""
        if not self._dropped and now < self._none_expires_before:
            return
        lost = [self._dropped.popleft() for _ in range(len(self._dropped))]
        for hold in lost:
            if hold.lost and hold.final is not None:
                self._amend(hold, hold.final)
        self._none_expires_before = now + self._lease
        for hold in self._live.values():
            if now < hold.expires_at:
                self._none_expires_before = hold.expires_at
                break
            lost.append(hold)
        for hold in dict.fromkeys(lost):
            if hold.open and self._live.get(hold.id) is hold:
                self._end(hold, hold.amounts if hold.final is None else hold.final)
                hold.lost = hold.final is None
