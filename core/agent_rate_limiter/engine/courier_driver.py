"""Who does a shared store's I/O: one thread for each limiter, for event loops and threads alike.

No event loop is ever blocked by a slow store, whatever loop it is, and what many tasks and threads want at the
same time goes out as one batch.
"""

from __future__ import annotations

import atexit
import logging
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, Thread
from weakref import ReferenceType, WeakSet, ref

from agent_rate_limiter.engine.exchange import nobody
from agent_rate_limiter.engine.shared import SharedEngine

_log = logging.getLogger("agent_rate_limiter")
_MOMENT = 0.001
"""Seconds that what nobody waits for may lie."""
_LONGEST = 0.1
"""Seconds for which the rest may lie while there is always somebody else who sends."""
_LAST_WORDS = 1.0
"""Seconds that a program's end may wait for what is still to be sent."""


class Courier:
    """A thread that sends when it is called, and looks after the rest in between. It ends with its engine."""

    def __init__(self, engine: SharedEngine) -> None:
        self._engine = ref(engine, lambda _: self(urgent=True))
        self._bell = Lock()
        self._bell.acquire()
        self._urgent = self._over = False
        self._coming = False  # in a moment, without being called again
        Thread(target=self._work, name="agent-rate-limiter", daemon=True).start()
        _couriers.add(self)
        if (processes := sys.modules.get("multiprocessing.util")) is not None:  # whose processes end without atexit
            processes.Finalize(self, _end, (ref(self),), exitpriority=0)

    @classmethod
    def maker(cls, engine: SharedEngine) -> Callable[[], Callable[..., None]]:
        """Return what hires one for an engine, without keeping that alive."""
        reference = ref(engine)

        def hire() -> Callable[..., None]:
            found = reference()
            return nobody if found is None else cls(found)  # None: hired in the engine's own end

        return hire

    def __call__(self, *, urgent: bool) -> None:
        """Wake it. Safe in a finalizer."""
        if urgent:
            self._urgent = True
        elif self._coming:
            return
        if self._bell.locked():  # else it was called before, and has not come yet
            with suppress(RuntimeError):  # called meanwhile
                self._bell.release()

    def _work(self) -> None:
        while (engine := self._engine()) is not None:
            try:
                at = engine.chores()
                if at is None or self._over:
                    return
                pause = max(0, at - engine.clock.now()) / 1000
            except Exception:  # noqa: BLE001 - whoever waits, waits for this thread
                _log.exception("The courier failed")
                pause = 1.0
            del engine  # else it would live as long as this thread
            if self._bell.acquire(timeout=pause):
                self._hold_on()
            self._urgent = False

    def _hold_on(self) -> None:
        """Leave what nobody waits for to whoever sends next, as long as somebody does."""
        self._coming, sent, until = True, -1, time.monotonic() + _LONGEST
        while not self._urgent and time.monotonic() < until:
            engine = self._engine()
            before, sent = sent, -1 if engine is None else engine.sent
            del engine
            if sent == before or self._bell.acquire(timeout=_MOMENT):
                break
        self._coming = False

    def end(self) -> None:
        """The program ends: send what is left, and nothing later, when the interpreter is half gone."""
        engine = self._engine()
        deadline = time.monotonic() + _LAST_WORDS
        if engine is not None:
            engine.depart()
        while engine is not None and engine.unsent and engine.loss.since is None and time.monotonic() < deadline:
            engine.pump()
            time.sleep(0.001)
        self._over = True


def _end(courier: ReferenceType[Courier]) -> None:
    found = courier()
    if found is not None:
        found.end()


_couriers: WeakSet[Courier] = WeakSet()


@atexit.register
def _at_exit() -> None:
    for courier in list(_couriers):
        courier.end()
