"""The engine of a shared store that is near: a step in it takes less time than to have another thread take it.

While nobody waits, whoever calls takes the step, event loops too, as it never blocks: where another thread or process
is in the way, the call goes the long way round. A settlement goes along with what else is written to the same place
(its row in the books), in one transaction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any, cast
from weakref import ReferenceType, ref

from agent_rate_limiter.admission import Bucket, Path
from agent_rate_limiter.engine.outbox import Parcel
from agent_rate_limiter.engine.port import Answer, Batch, Command, Hold, NearStore, Place, Reserve, Run, Settle
from agent_rate_limiter.engine.shared import SharedEngine
from agent_rate_limiter.engine.wishes import Ended
from agent_rate_limiter.errors import LimiterClosed

_MOST = 64
"""Settlements in one step."""
_BRIEFLY = 0.05
"""Seconds that a call's own thread tries, where another process is in the way."""
_End = tuple[Hold, Sequence[int], bool]
"""A hold that has ended, what was used, and whether the store keeps a record of it."""


def _offer(engine: ReferenceType[NearEngine]) -> Callable[[Run], Callable[[bool], None] | None]:
    """Return what takes steps within others' transactions, without keeping the engine alive."""

    def offer(run: Run) -> Callable[[bool], None] | None:
        found = engine()
        return None if found is None else found.ride(run)

    return offer


class _InTheWay(Exception):
    """The step could not be taken in a moment."""


class NearEngine(SharedEngine):
    """As SharedEngine, but calls take their steps themselves while nobody waits."""

    _shared: NearStore

    def __init__(self, store: NearStore, *parts: Any, **options: Any) -> None:
        super().__init__(store, *parts, **options)
        store.take_along(_offer(ref(self)))

    def _begin(self) -> None:
        super()._begin()
        self._ends: deque[_End] = deque()  # that wait for a ride
        self._patient = 0  # the thread that may wait for a locked file
        self._afoot = False  # it could not ride, and finds out why by itself

    # -- calls ---------------------------------------------------------------------------------------------

    def reserve_now(self, hold: Hold, priority: int) -> bool:
        """Admit a call at once. False: it does not fit, others wait, or somebody is in the way; then it is to enqueue.

        Raises:
            LimiterClosed: it is.
        """
        if self._unusable is not None:
            raise LimiterClosed(self._unusable)
        if not self._io.acquire(blocking=False):
            return False
        try:
            if self._sending or self._goes_round():
                return False
            admitted = self._take(hold, priority)
        finally:
            self._io.release()
            if self._outbox.wishes:  # of whoever found us at it, and went away again
                self.deliver()
        if admitted and self._kept and not self.clock_wakes and self._oversleeps():  # nobody would say that we live
            self._call_courier(urgent=False)
        return admitted

    def _goes_round(self) -> bool:
        """Whether anything goes the long way round: then all that comes after it does."""
        others = self._room.waiting or self._outbox.wishes or self._parcel or self._dropped
        return bool(others) or self._afoot or self.loss.since is not None

    def _take(self, hold: Hold, priority: int) -> bool:
        with self._lock:
            sent = self.clock.now()
            self._clear_up(sent)
            number = self._numbers = self._numbers + 1
        wanted = tuple([(place, amount) for place, amount in enumerate(hold.amounts) if amount])
        ends, commands, buckets = self._settlements(hold.path)
        commands.append(Reserve(number, priority, -1, wanted))
        answer = None
        try:
            answer = self._attempt(self._batch(buckets, commands), sent)
        finally:
            if answer is None:
                self._ends.extendleft(reversed(ends))
        if answer is None:
            return False
        with self._lock:
            now = answer.now
            if not sent <= now <= sent + 1:
                self.told.heard(now, sent, self.clock.now())
            self._learn_of(buckets, answer)
            admitted = answer.results[-1]
            if not isinstance(admitted, bool):
                return False
            hold.id = number
            if admitted:
                self._kept.add(number)
            self._open(hold, now)
        return True

    def _settlements(self, path: Path) -> tuple[list[_End], list[Command], Sequence[Bucket]]:
        """Take what has ended; return it with its commands, and the limits that they are about, a path's first."""
        if not self._ends:
            return [], [], path
        ends = [self._ends.popleft() for _ in range(min(_MOST, len(self._ends)))]
        places = {bucket: place for place, bucket in enumerate(path)}
        commands: list[Command] = [_settlement(end, places) for end in ends]
        return ends, commands, list(places)

    def _batch(self, buckets: Sequence[Bucket], commands: Sequence[Command]) -> Batch:
        """Its number says nothing: no answer of a near store gets lost. A bucket says of itself what a place does."""
        return Batch(self._outbox.member, 0, self._member_lease, cast("Sequence[Place]", buckets), commands)

    def _attempt(self, batch: Batch, sent: int) -> Answer | None:
        self._sending = True
        try:
            return self._shared.attempt(batch, None if self.told.own else sent)
        except Exception:  # noqa: BLE001 - who goes the long way round finds out, and does what there is to do
            self._afoot = True
            return None
        finally:
            self._sending = False

    def _learn_of(self, buckets: Sequence[Bucket], answer: Answer) -> None:
        self._beaten_at = answer.now
        self.loss.found(answer)
        for key, rule in answer.rules.items() if answer.rules else ():
            self._obey(key, rule, answer.now)
        for bucket, (rev, state) in zip(buckets, answer.states, strict=True):
            if rev == bucket.rev:
                bucket.state = state

    def settle(self, hold: Hold, used: Sequence[int]) -> int:
        """As ever, but the store hears of it only when it is offered a ride, or `deliver` is called."""
        number = hold.id
        with self._lock:
            now = self.clock.now()
            rides = self._live.get(number) is hold and number not in self._apart and self.loss.since is None
            if rides:
                hold.open = False
                del self._live[number]
                self._ends.append((hold, used, number in self._kept))
                self._kept.discard(number)
                self._clear_up(now)
        return now if rides else super().settle(hold, used)

    @property
    def unsettled(self) -> bool:
        """Whether the store has not heard of every end yet."""
        return bool(self._ends or self._outbox.wishes or self._parcel)

    def passed(self) -> None:
        """Have delivered what found no ride."""
        if self._ends or self._goes_round() or self._known.errands:
            self.deliver(urgent=self._room.waiting > 0)

    # -- what goes along -----------------------------------------------------------------------------------

    def ride(self, run: Run) -> Callable[[bool], None] | None:
        """Settle within a transaction that somebody else has begun, if there is anything, and nothing in the way.

        Returns what is to be told, in this thread, whether the transaction was kept: if not, all is settled again.
        """
        if not self._ends or not self._io.acquire(blocking=False):
            return None
        if self._sending or self._afoot or self.loss.since is not None:
            self._get_off()
            return None
        self._sending = True
        ends, commands, buckets = self._settlements(())
        try:
            answer = run(self._batch(buckets, commands), None if self.told.own else self.clock.now())
        except BaseException:
            self._afoot = True
            self._arrive(ends, buckets, None)
            raise
        return lambda kept: self._arrive(ends, buckets, answer if kept else None)

    def _arrive(self, ends: Sequence[_End], buckets: Sequence[Bucket], answer: Answer | None) -> None:
        try:
            with self._lock:
                if answer is None:
                    self._ends.extendleft(reversed(ends))
                    return
                self._learn_of(buckets, answer)
                if self._room.waiting:
                    self.freed(buckets, answer.now)
                    self._rearm()
        finally:
            self._sending = False
            self._get_off()

    def _get_off(self) -> None:
        """Let others do the I/O; those who found us at it went away again, and here nobody may wait for it."""
        self._io.release()
        if self._outbox.wishes and not self.clock_wakes:
            self._call_courier(urgent=True)

    # -- the long way round --------------------------------------------------------------------------------

    def chores(self) -> int | None:
        """As ever. Whoever does them has time."""
        self._patient = get_ident()
        return super().chores()

    def _run(self, batch: Batch, now: int | None) -> Answer:
        """As ever, but not for long in a thread whose call may have less time than that: then the courier does it."""
        if self.clock_wakes or self._patient == get_ident():
            return self._shared.run(batch, now)
        answer = self._shared.attempt(batch, now, _BRIEFLY)
        if answer is None:
            raise _InTheWay
        return answer

    def _unanswered(self, error: Exception) -> None:
        if isinstance(error, _InTheWay):
            self._call_courier(urgent=True)
        else:
            super()._unanswered(error)

    def deliver(self, *, urgent: bool = True) -> None:
        """As ever; what the caller would not do itself, it does if that takes no time."""
        alone = self.may_block() or not self._live  # else the loop's next call takes it along, or the courier
        if self._ends and alone and not (urgent or self._afoot or self.clock_wakes):
            self._shared.hasten()
        super().deliver(urgent=urgent)

    def pump(self) -> bool:
        """As ever; but not in a finalizer that runs in the middle of this thread's own step."""
        if self._shared.entered:
            if not self.clock_wakes:
                self._call_courier(urgent=True)
            return True
        return super().pump()

    def _part(self) -> None:
        """The connection is that of the file, and of everybody else who uses it here."""

    def _due_out(self) -> bool:
        return (bool(self._ends) and self.loss.since is None) or super()._due_out()

    @property
    def unsent(self) -> bool:
        """Whether the store does not know everything yet."""
        return bool(self._ends) or super().unsent

    def _pack(self) -> tuple[Parcel, int]:
        with self._lock:
            while self._ends:
                hold, used, kept = self._ends.popleft()
                if any(used) or any(hold.amounts):
                    end = Ended(self, hold.id, kept, hold.taken_at, hold.path, hold.amounts, used)
                    self._outbox.wishes.append(end)
        return super()._pack()

    def _take_in(self, parcel: Parcel, answer: Answer, sent: int) -> None:
        self._afoot = False
        super()._take_in(parcel, answer, sent)


def _settlement(end: _End, places: dict[Bucket, int]) -> Settle:
    """Return the command, and number the limits that it is about."""
    hold, used, kept = end
    changes = tuple(
        [
            (places.setdefault(bucket, len(places)), taken, amount)
            for bucket, taken, amount in zip(hold.path, hold.amounts, used, strict=False)
            if taken or amount
        ]
    )
    return Settle(hold.id, kept, hold.taken_at, changes)
