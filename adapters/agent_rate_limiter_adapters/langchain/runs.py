"""LangChain's runs as callbacks see them, and the reservations that were made for them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from uuid import UUID

    from agent_rate_limiter import Reservation


class Runs:
    """The runs of one limiter that have begun: however many handlers see a run, it is counted once.

    LangChain tells neither end nor error of a run that is cancelled, or that something else breaks off. The run's id
    goes with the run, though, and the call is ended then; a task that is cancelled tells it sooner.
    """

    def __init__(self) -> None:
        self._open: dict[int, tuple[Reservation, Callable[[], None]]] = {}

    def __contains__(self, run_id: UUID) -> bool:
        """Whether it has begun."""
        return run_id.int in self._open

    def begin(self, run_id: UUID, call: Reservation, task: asyncio.Task[Any] | None) -> None:
        """Note a run's reservation, and offer it to the layers inside.

        Args:
            run_id: the very object that LangChain keeps as long as the run lasts.
            call: its reservation.
            task: that makes the call, if one does.
        """
        key = run_id.int
        finalizer = weakref.finalize(run_id, self._lose, key)
        finalizer.atexit = False

        def done(task: asyncio.Task[Any]) -> None:
            if task.cancelled():
                self._lose(key)

        def forget() -> None:
            finalizer.detach()
            if task is not None:
                task.remove_done_callback(done)

        if task is not None:
            task.add_done_callback(done)
        self._open[key] = (call, forget)
        call.offer()

    def find(self, run_id: UUID) -> Reservation | None:
        """Return the reservation of a run that has begun."""
        return self._open.get(run_id.int, (None,))[0]

    def end(self, run_id: UUID) -> Reservation | None:
        """Return the reservation of a run that ends, for it to be ended; None when nobody noted it, or it is lost."""
        call, forget = self._open.pop(run_id.int, (None, _nothing))
        forget()
        return call

    def _lose(self, key: int) -> None:
        """A run is gone without an end; this may be a finalizer, and so anywhere: nothing may be waited for."""
        call, _ = self._open.pop(key, (None, _nothing))
        if call is not None:
            call.abandon()


def _nothing() -> None:
    """There is nothing to forget."""


_runs: MutableMapping[Any, Runs] = weakref.WeakKeyDictionary()


def runs_of(limiter: object) -> Runs:
    """Return the runs of a limiter, whichever handler began them."""
    return _runs.setdefault(limiter, Runs())
