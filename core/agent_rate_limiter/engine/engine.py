"""The engine: every call passes here, under one lock, in one step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from threading import Lock
from types import MappingProxyType
from typing import TypeVar
from weakref import WeakSet

from agent_rate_limiter.admission import Bucket, Refusal
from agent_rate_limiter.engine.lock_driver import insist
from agent_rate_limiter.engine.port import Clock, Hold, Store, VirtualClock, Waker
from agent_rate_limiter.engine.queue import Waiter
from agent_rate_limiter.engine.waiting_room import WaitingRoom
from agent_rate_limiter.errors import LimiterClosed, ReservationError
from agent_rate_limiter.forks import around_fork

T = TypeVar("T")

FORKED = (
    "This limiter was made in another process, before a fork: its limits would count twice. "
    "Make the limiter in each process, or share one with store='sqlite:///...' or 'redis://...'."
)
CLOSED = "This limiter is closed. Make a new one."
LAST = 1 << 30
"""A priority behind everybody's."""


class Engine:
    """Reservations and the queue. Never sleeps; drivers wait, and wakers call `advance` when time has come.

    Args:
        store: where the limits' states live.
        clock: tells the time.
        lease: milliseconds after which a reservation that nobody settled is taken for lost.
        ageing: milliseconds after which a waiting priority rises by one level.
        bounds: how many may wait for one limit, by priority; under None all together.
    """

    passing = 0
    """Units that a call takes from a gate that is known to be open: nobody counts them here."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        lease: int,
        ageing: int,
        bounds: Mapping[int | None, int] = MappingProxyType({}),
    ) -> None:
        self.store = store
        self.clock = clock
        self._now: Callable[[], int] = clock.now
        self._lock = Lock()
        self._unusable: str | None = None
        self._room = WaitingRoom(store, ageing, self._open, self._undo, bounds)
        self._reserve, self._settle = store.reserve, store.settle  # bound once, for the hot path
        self._lease = lease
        self._admitted = 0
        self._live: dict[int, Hold] = {}  # by age, as all leases are of one length
        self._none_expires_before = 0
        self._dropped: deque[Hold] = deque()  # by their owner, perhaps while our own lock was held
        self._wakers: dict[Hashable, Waker] = {}
        self.clock_wakes = isinstance(clock, VirtualClock)
        if isinstance(clock, VirtualClock):
            self._wakers["clock"] = clock.waker(self.advance)
        _engines.add(self)

    # -- calls ---------------------------------------------------------------------------------------------

    def reserve(self, hold: Hold, priority: int) -> Refusal | None:
        """Admit a call now, or say what binds. Never waits, and never overtakes anybody who does."""
        lock = self._lock
        if not lock.acquire(False):  # noqa: FBT003 - a keyword takes half as long again
            insist(lock)
        try:
            if self._unusable is not None:
                raise LimiterClosed(self._unusable)
            now = self._now()
            if now >= self._none_expires_before and self._live:
                self._collect(now)
            refusal = self._room.behind(hold, priority, now) if self._room.waiting else None
            if refusal is None:
                refusal = self._reserve(hold, now)
                if refusal is None:  # as in _open, without a call
                    hold.id = self._admitted = number = self._admitted + 1
                    hold.taken_at = now
                    hold.expires_at = now + self._lease
                    hold.open = True
                    self._live[number] = hold
        finally:
            lock.release()
        if self._dropped:
            self.advance()
        return refusal

    def enqueue(self, waiter: Waiter) -> None:
        """Let a call wait. Its outcome may be known at once: admitted, or refused for good."""
        with self._lock:
            if self._unusable is not None:
                raise LimiterClosed(self._unusable)
            now = self._now()
            self._collect(now)
            self._room.place(waiter, now)
            self._rearm()
        if self._dropped:
            self.advance()

    def withdraw(self, waiter: Waiter) -> None:
        """Take out a call that is no longer waited for. Leaves no trace, even if it was admitted meanwhile."""
        with self._lock:
            now = self._now()
            if waiter.hold.open:
                self._undo(waiter.hold, now)
                self._room.freed([waiter.hold], now)
            else:
                self._room.withdraw(waiter, now)
            self._rearm()
        if self._dropped:
            self.advance()

    def settle(self, hold: Hold, used: Sequence[int]) -> int:
        """End a reservation with what was used; return when that was, in epoch milliseconds.

        Raises:
            ReservationError: it has been settled before.
        """
        lock = self._lock
        if not lock.acquire(False):  # noqa: FBT003 - as above
            insist(lock)
        try:
            now = self._now()
            if self._unusable is FORKED:
                raise LimiterClosed(FORKED)
            if hold.open:
                hold.open = False
                del self._live[hold.id]
                self._settle(hold, used, now)
            elif hold.lost:
                self._correct(hold, used, now)
            else:
                message = f"Reservation {hold.id} was settled before. End each once."
                raise ReservationError(message)
            if self._room.waiting:
                self._advance(now, hold)
        finally:
            lock.release()
        if self._dropped:
            self.advance()
        return now

    def abandon(self, hold: Hold) -> None:
        """Note that nobody can settle this hold any more. Safe anywhere, even in a finalizer under our lock."""
        if self._unusable is FORKED:
            return  # the parent's
        self._dropped.append(hold)
        if self._lock.acquire(blocking=False):  # otherwise whoever holds the lock looks after it
            self._lock.release()
            self.advance()

    # -- drivers -------------------------------------------------------------------------------------------

    def advance(self, *, everybody: bool = False) -> None:
        """Admit whoever can be admitted by now, and end what has run out.

        Args:
            everybody: look at every queue, as limits themselves have changed.
        """
        while True:
            with self._lock:
                now = self._now()
                if everybody:
                    self._room.serve_all(now)
                self._advance(now)
            if not self._dropped:
                return

    def attach(self, key: Hashable, make: Callable[[], Waker]) -> Waker:
        """Return the waker of that key, made on first use."""
        waker = self._wakers.get(key)  # of a loop, only its own thread makes one and takes it away
        if waker is None:
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
        if not self._room.waiting:
            return None
        at = self._room.next_time()
        if self._live:
            expiry = next(iter(self._live.values())).expires_at
            at = expiry if at is None or expiry < at else at
        return at

    def read(self, look: Callable[[int], T]) -> T:
        """Call `look(now)` while nothing changes."""
        with self._lock:
            found = look(self._now())
        if self._dropped:
            self.advance()
        return found

    # -- reports -------------------------------------------------------------------------------------------

    def verdict(self, hold: Hold, now: int) -> Refusal | None:
        """Say what a newcomer would be told; inside `read`."""
        return self._room.behind(hold, LAST, now) or self.store.refusal(hold, now)

    def newest_first(self) -> Iterable[Hold]:
        """Return the calls in flight, the last admitted first; inside `read`."""
        return reversed(self._live.values())

    @property
    def place(self) -> str:
        """Where the limits live, if others share them."""
        return ""

    def refresh(self, buckets: Callable[[], Iterable[Bucket]]) -> None:
        """Have the copies of these limits' states brought up to date, where they are copies."""

    def recall(self, key: str) -> str | None:
        """Return the text that is remembered under a key; it may do I/O."""
        return self.store.recall(key)

    @property
    def pauses(self) -> Engine:
        """Where backoffs wait."""
        return self

    @property
    def admitted(self) -> int:
        """How many reservations there ever were."""
        return self._admitted

    @property
    def in_flight(self) -> int:
        """Reservations that are not settled yet."""
        return len(self._live)

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return self._room.waiting

    # -- the end -------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Refuse every further call, and those that wait."""
        with self._lock:
            self._unusable = self._unusable or CLOSED
            self._room.clear(CLOSED, self._now())

    def before_fork(self) -> None:
        """Let nothing be under way in another thread that the child would find half done."""

    def after_fork_here(self) -> None:
        """Go on in the parent."""

    def after_fork(self) -> None:
        """Refuse to work in the child: its threads, waiters and calls in flight stayed with the parent."""
        self._lock = Lock()  # whoever held the old one is not here to release it
        self._unusable = FORKED
        self._live.clear()
        self._dropped.clear()
        self._wakers.clear()

    # -- one step, under the lock --------------------------------------------------------------------------

    def _open(self, hold: Hold, now: int) -> None:
        number = hold.id = self._admitted = self._admitted + 1
        hold.taken_at = now
        hold.expires_at = now + self._lease
        hold.open = True
        self._live[number] = hold

    def _close(self, hold: Hold, used: Sequence[int], now: int) -> None:
        hold.open = False
        del self._live[hold.id]
        self.store.settle(hold, used, now)

    def _correct(self, hold: Hold, used: Sequence[int], now: int) -> None:
        hold.lost = False
        self.store.correct(hold, [new - old for new, old in zip(used, hold.amounts, strict=False)], now)

    def _undo(self, hold: Hold, now: int) -> None:
        self._close(hold, hold.nothing, now)

    def _collect(self, now: int) -> list[Hold]:
        """Settle what was lost with its estimate, or what is known of it: it may well have been sent."""
        lost = [self._dropped.popleft() for _ in range(len(self._dropped))]
        for hold in lost:
            if hold.lost and hold.final is not None:
                self._correct(hold, hold.final, now)
        for hold in self._live.values():
            self._none_expires_before = hold.expires_at
            if now < hold.expires_at:
                break
            lost.append(hold)
        lost = [hold for hold in dict.fromkeys(lost) if hold.open]
        for hold in lost:
            self._close(hold, hold.amounts if hold.final is None else hold.final, now)
            hold.lost = hold.final is None
        return lost

    def _advance(self, now: int, freed: Hold | None = None) -> None:
        released = self._collect(now)
        if freed is not None:
            released.append(freed)
        if self._room.waiting:
            self._room.freed(released, now)
            self._room.due(now)
            self._rearm()

    def _rearm(self) -> None:
        if self._wakers:
            self._arm(self.next_event())

    def _arm(self, at: int | None) -> None:
        for waker in list(self._wakers.values()):
            waker.arm(at)


_engines: WeakSet[Engine] = WeakSet()


def _each(method: str) -> Callable[[], None]:
    def call() -> None:
        for engine in list(_engines):
            getattr(engine, method)()

    return call


around_fork(_each("before_fork"), _each("after_fork_here"), _each("after_fork"))
