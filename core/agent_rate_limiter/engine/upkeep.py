"""What a shared engine does that no call waits in line for: it says that it is alive, hears of room, runs errands."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from weakref import ref

from agent_rate_limiter.engine.exchange import MEMBER_LEASE, Exchange
from agent_rate_limiter.engine.queue import WaitQueue
from agent_rate_limiter.errors import StoreUnavailable


class Upkeep(Exchange):
    """The part of a shared engine that its courier goes round with."""

    def _begin(self) -> None:
        super()._begin()
        self._work: deque[Callable[[], object]] = deque()
        self._listening = False

    def chores(self) -> int | None:
        """Do what nobody asked for: say that we are alive, look for room, try a lost store.

        Returns: epoch milliseconds of the next time; None: the limiter is closed, and there is nothing left to do.
        """
        with self._lock:
            self._clear_up(self.clock.now())
            look = self._room.waiting > 0 and self.loss.since is None
            self._looked_at = self.clock.now()
        if look:
            self._look()
        self.pump()
        if self._room.waiting and not self._listening:  # asked for only now: the first wait is told of, too
            self._listen()
        self._run_errands()
        if self._done():
            self._part()
            return None
        with self._lock:
            self._planned = self._next_chore() or self.clock.now() + MEMBER_LEASE
            if self._live:
                self._planned = min(self._planned, self._none_expires_before)
            return self._planned

    @property
    def closed(self) -> bool:
        """Whether it takes no more calls."""
        return self._unusable is not None

    def _done(self) -> bool:
        with self._lock:
            if not self.closed or self._live or self._line.busy or self.unsent or self._work:
                return False
            self._courier = None  # should anybody ask for a report yet
            return True

    def _wind_up(self) -> None:
        if self._courier is not None:
            self._courier(urgent=True)
        elif self._done():
            self._part()

    def _part(self) -> None:
        """Let go of the store: should it be used again, it connects anew."""
        with self._io:
            self._shared.close()

    def _listen(self) -> None:
        """Have the store say when it is our turn somewhere."""
        myself = ref(self)

        def heard(key: str) -> bool:
            engine = myself()
            if engine is not None and key:
                engine.our_turn(key)
            return engine is not None and not engine.closed

        self._listening = True
        self._shared.listen(self._outbox.member, heard)

    def our_turn(self, key: str) -> None:
        """There is room for our head in a limit's line."""
        with self._lock:
            for queue in self._line.queues():
                if queue.bucket.key == key:
                    self._line.called(queue, self.clock.now())
        self.deliver()

    def _look(self) -> None:
        """Hear whether anybody gave back what our heads wait for."""
        if not self._io.acquire(blocking=False):
            return
        try:
            keys = self._shared.changed()
        except StoreUnavailable:
            return  # the next batch finds out
        finally:
            self._io.release()
        with self._lock:
            wanted = None if keys is None else set(keys)
            for queue in self._line.queues():
                if wanted is None or queue.bucket.key in wanted:
                    self._refresh(queue)

    def _refresh(self, queue: WaitQueue) -> None:
        self._outbox.read([queue.bucket], lambda _, now: self._line.reconsider(queue, now))

    # -- errands -------------------------------------------------------------------------------------------

    def _run_errands(self) -> None:
        while self._work:
            self._work.popleft()()
        errands = self._known.errands
        while errands and self.loss.since is None:
            key, text = errands.popitem()
            try:
                with self._io:
                    self._shared.remember(key, text)
            except StoreUnavailable:
                errands.setdefault(key, text)
                return

    def recall(self, key: str) -> str | None:
        """Ask the store for a text. Blocks for one round trip; no call has to find out again that it is lost."""
        try:
            with self._io:
                try:
                    return self._known.recall(key)
                except StoreUnavailable as error:
                    with self._lock:
                        self._lose(error)
                    raise
        finally:
            self.deliver(urgent=False)  # whoever wanted to send meanwhile has gone away again

    def background(self, work: Callable[[], object]) -> None:
        """Have something done that may block, as no event loop may; where nobody else is there, here and now."""
        if self.clock_wakes:
            work()
        else:
            self._work.append(work)
            self._call_courier(urgent=True)
