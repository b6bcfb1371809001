"""How an engine talks to a store that others share: one batch at a time, and never under the lock.

What stands here are copies: of each limit's state, as of the store's last answer. They say what may be asked for,
and when; only the store admits.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from threading import Event, Lock, RLock
from typing import Any, Protocol
from weakref import ReferenceType, ref

from agent_rate_limiter.admission import Bucket
from agent_rate_limiter.engine.engine import Engine
from agent_rate_limiter.engine.loss import Loss
from agent_rate_limiter.engine.outbox import Outbox, Parcel
from agent_rate_limiter.engine.port import Answer, Batch, Clock, Rule, SharedStore, Store, VirtualClock
from agent_rate_limiter.engine.shared_room import SharedRoom, Wishes
from agent_rate_limiter.engine.store_clock import StoreClock
from agent_rate_limiter.engine.verdicts import obey
from agent_rate_limiter.errors import StoreUnavailable

_MOST_READ = 500
"""Limits that a report asks the store about."""
_PATIENCE = 5.0
"""Seconds that a report waits for the store."""
_NEVER = 1 << 62
_TURNS = 4
"""Batches that a thread sends, for others as well, before it looks after itself, and the courier goes on."""
_log = logging.getLogger("agent_rate_limiter")
MEMBER_LEASE = 10_000
"""Milliseconds after which a process that was not heard of counts as dead: its slots come back."""


class Known(Store, Protocol):
    """The copies; asked for anything else, they ask the store."""

    io: Any
    """A lock: the store serves one thread at a time."""
    errands: dict[str, str]
    """Texts that the store is to remember."""
    released: Callable[[], object]
    """Called when `io` was held by somebody who sends nothing else."""


def nobody(*, urgent: bool) -> None:
    """Stand in for a courier."""


def _delivery(engine: ReferenceType[Exchange]) -> Callable[[], None]:
    """Return what delivers, without keeping the engine alive."""

    def deliver() -> None:
        found = engine()
        if found is not None:
            found.deliver(urgent=False)

    return deliver


class Exchange(Engine):
    """The half of a shared engine that does the I/O; what to say, the other half knows.

    Args:
        store: does the I/O.
        known: the copies, and what is remembered.
        clock: tells the time.
        lease: milliseconds after which a reservation that nobody settled is taken for lost.
        ageing: milliseconds after which a waiting priority rises by one level.
        bounds: how many may wait for one limit, by priority; under None all together.
        own_time: whether the store's own time counts; False: the clock's.
        loss: what happens while the store cannot be reached.
    """

    passing = 1

    def __init__(
        self,
        store: SharedStore,
        known: Known,
        clock: Clock,
        *,
        lease: int,
        ageing: int,
        bounds: Mapping[int | None, int],
        own_time: bool,
        loss: Loss,
    ) -> None:
        told = StoreClock(clock, own=own_time)
        super().__init__(known, told, lease=lease, ageing=ageing)
        self._bounds = bounds
        self.outside: Callable[[], object] = lambda: None  # called after answers, when no lock is held
        self.told = told
        self._known = known
        known.released = _delivery(ref(self))
        self.loss = loss
        self.teach: Callable[[str, Rule, int], Bucket | None] = lambda key, rule, now: None  # noqa: ARG005
        self.is_adaptive: Callable[[Bucket], bool] = lambda bucket: False  # noqa: ARG005
        self.hire: Callable[[], Callable[..., None]] = lambda: nobody
        self.may_block: Callable[[], bool] = lambda: False  # whether this thread may do the I/O; the drivers know
        self._pauses = Engine(known, clock, lease=lease, ageing=ageing)
        self._shared = store
        self._ageing = ageing
        self._member_lease = min(lease, MEMBER_LEASE)
        self.clock_wakes = isinstance(clock, VirtualClock)
        if isinstance(clock, VirtualClock):
            self._wakers["clock"] = clock.waker(self.advance)
        self._begin()

    @property
    def pauses(self) -> Engine:
        """Where backoffs wait: in this process alone."""
        return self._pauses

    def _begin(self) -> None:
        self._lock = Lock()
        self._io = self._known.io = RLock()  # whoever has it does the I/O, for everybody
        self._outbox = Outbox(f"{os.getpid()}-{secrets.token_hex(6)}", self._member_lease)
        self._sending = False
        self._parcel: Parcel | None = None  # on its way; after a loss, until the store is back
        self._live.clear()
        self._none_expires_before = 0
        self._kept: set[int] = set()  # holds that the store keeps a record of
        self._dropped.clear()
        self._beaten_at = 0
        self._looked_at = 0
        self._planned = _NEVER  # when the courier comes by itself
        self._line = SharedRoom(self.store, self._ageing, self._wishes(), self._bounds)
        self._room = self._line
        self._courier: Callable[..., None] | None = None  # wakes whoever does the I/O

    def _wishes(self) -> Wishes:
        """What the waiting room says, and to whom."""
        raise NotImplementedError

    def _clear_up(self, now: int) -> None:
        """End what has run out."""
        raise NotImplementedError

    def _charge(self, rows: list[tuple[Bucket, int]], taken_at: int) -> None:
        """Have units charged."""
        raise NotImplementedError

    # -- I/O ----------------------------------------------------------------------------------------------------

    @property
    def place(self) -> str:
        """Where the limits live, and whether it is lost."""
        if self.loss.since is None:
            return self._shared.name
        return f"{self._shared.name} (lost: {self.loss.reason})"

    def refresh(self, buckets: Callable[[], Iterable[Bucket]]) -> None:
        """Ask the store how these limits stand. Blocks for one round trip; while the store is lost, not at all."""
        heard = Event()

        def hear(*_: object) -> bool:
            heard.set()
            return False

        with self._lock:
            if self.loss.since is not None:
                return
            self._outbox.read(list(buckets())[:_MOST_READ], hear, hear)
        self.pump()
        if not heard.is_set() and not self.clock_wakes:  # somebody else was sending
            self._call_courier(urgent=True)
            heard.wait(_PATIENCE)

    def deliver(self, *, urgent: bool = True) -> None:
        """See that the outbox is emptied: here, where nobody else is held up by that, or by the courier.

        Args:
            urgent: somebody waits for the answer; what nobody waits for goes with what is sent next, or in a moment.
        """
        if self.clock_wakes or (urgent and self.may_block()):
            self.pump()
        if self.clock_wakes:
            return
        late = self._oversleeps()
        if late or self._outbox.wishes or self._room.waiting or self.unsent:
            self._call_courier(urgent=urgent or late)

    def _call_courier(self, *, urgent: bool) -> None:
        if self._courier is None:
            self._courier = self.hire()
        self._courier(urgent=urgent)

    def _oversleeps(self) -> bool:
        """Whether the courier, if there is one, would come too late for the next chore: it has not heard of it."""
        at = self._next_chore()
        return at is not None and at < self._planned

    def _next_chore(self) -> int | None:
        if self.loss.since is not None:
            return self.loss.retry_at
        beat = self._beaten_at + self._member_lease // 3
        if self._room.waiting and self._shared.look_every and not self.clock_wakes:
            return min(beat, self._looked_at + self._shared.look_every)
        return beat if self._kept or self._room.waiting else None

    def pump(self) -> bool:
        """Send what is noted, for a few turns; unless somebody else is at it. False when the store is lost."""
        turns = _TURNS
        while turns and self._due_out() and self._io.acquire(blocking=False):
            try:
                answered = self._exchange()
            finally:
                self._io.release()
            self.outside()
            if not answered:
                return False
            turns -= not self.clock_wakes
        if not turns and self._courier is not None:
            self._courier(urgent=True)
        return True

    def _due_out(self) -> bool:
        now = self.clock.now()
        if self.loss.since is not None:
            return now >= self.loss.retry_at
        beat = self._beaten_at + self._member_lease // 3
        return bool(self._outbox.wishes or self._parcel) or (now >= beat and bool(self._kept or self._room.waiting))

    def _exchange(self) -> bool:
        if self._sending:  # a finalizer, in the middle of this thread's own step: whoever sends looks again
            return False
        self._sending = True
        try:
            parcel, sent = self._pack()
            answer = self._run(parcel.batch, None if self.told.own else sent)
        except Exception as error:  # noqa: BLE001 - a store may do anything, but not break the call, nor the next one
            self._unanswered(error)
            return False
        finally:
            self._sending = False
        self._take_in(parcel, answer, sent)
        return True

    def _run(self, batch: Batch, now: int | None) -> Answer:
        return self._shared.run(batch, now)

    def _pack(self) -> tuple[Parcel, int]:
        with self._lock:
            parcel = self._parcel = self._parcel or self._outbox.pack()
            return parcel, self.clock.now()

    def _unanswered(self, error: Exception) -> None:
        if isinstance(error, StoreUnavailable):
            with self._lock:
                self._lose(error)
            return
        with self._lock:
            if self.loss.since is None:  # it is said once
                _log.error("%s gave an answer that was not expected", self._shared.name, exc_info=error)
            self._lose(StoreUnavailable(f"The store {self._shared.name} failed: {error!r}."))
            self._parcel = None

    def _take_in(self, parcel: Parcel, answer: Answer, sent: int) -> None:
        with self._lock:
            if moved := self.told.heard(answer.now, sent, self.clock.now()):
                self._line.shift(moved)
            self._parcel = None
            self._beaten_at = self.clock.now()
            owed = self.loss.owed(answer.now)
            found_again = self.loss.found(answer)
            self._hear(parcel, answer)
            if owed:
                self._charge(owed, answer.now)
            if found_again:
                self._line.blind = False
                self._line.recall_all(self.clock.now())
            self._rearm()

    # -- answers, under the lock ---------------------------------------------------------------------------

    def _hear(self, parcel: Parcel, answer: Answer) -> None:
        for key, rule in answer.rules.items():
            self._obey(key, rule, answer.now)
        for bucket, (rev, state) in zip(parcel.buckets, answer.states, strict=True):
            if rev == bucket.rev:
                bucket.state = state
        results = iter(answer.results)
        now = answer.now
        for wish in parcel.wishes:
            result = next(results) if wish.asks else None
            try:
                wish.hear(result, now)
            except Exception:  # noqa: BLE001 - the others wait for their answers, too
                _log.exception("An answer of %s could not be used", self._shared.name)

    def _obey(self, key: str, rule: Rule, now: int) -> None:
        bucket = next((b for b in self.store.buckets() if b.key == key), None)
        if bucket is None and rule.target:
            bucket = self.teach(key, rule, now)
        if bucket is not None and rule.rev > bucket.rev:
            obey(bucket, rule)

    def _lose(self, error: StoreUnavailable) -> None:
        now = self.clock.now()
        if not self.loss.lost(error, now):
            return  # as before
        parcel = self._parcel
        for wish in parcel.wishes if parcel is not None else ():
            wish.lost(now)
        unsent, self._outbox.wishes = self._outbox.wishes, deque()
        self._outbox.wishes.extendleft(w for w in reversed(unsent) if w.lost(now))
        self._line.blind = True
        self._line.recall_all(now)
        self._rearm()

    # -- reports -------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Calls in this process's queue, and those that the store is being asked about."""
        return self._line.everybody

    @property
    def sent(self) -> int:
        """How many batches were sent."""
        return self._outbox.number

    @property
    def unsent(self) -> bool:
        """Whether the store does not know everything yet."""
        return bool(self._outbox.wishes or self._parcel or self._dropped or self._known.errands)
