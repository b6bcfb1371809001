"""LangChain's runs as callbacks see them, and the reservations that were made for them."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uuid import UUID

    from agent_rate_limiter import Reservation


class Runs:
    """The runs of one limiter that have begun: however many handlers see a run, it is counted once.

    LangChain tells neither end nor error of a run that is cancelled, or that something else breaks off. The run's id
    goes with the run, though, and the call is ended then; a task that is cancelled tells it sooner.
    """

    def __init__(self) -> None:
        self._open: dict[int, _Run] = {}

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
        call.offer()
        self._open[key] = _Run(call, weakref.finalize(run_id, self._lose, key), task)
        if task is not None:
            task.add_done_callback(self._open[key].told(lambda: self._lose(key)))

    def find(self, run_id: UUID) -> Reservation | None:
        """Return the reservation of a run that has begun."""
        run = self._open.get(run_id.int)
        return None if run is None else run.call

    def end(self, run_id: UUID) -> Reservation | None:
        """Return the reservation of a run that ends, for it to be ended; None when nobody noted it, or it is lost."""
        run = self._open.pop(run_id.int, None)
        if run is None:
            return None
        run.forget()
        return run.call

    def _lose(self, key: int) -> None:
        """A run is gone without an end; this may be a finalizer, and so anywhere: nothing may be waited for."""
        run = self._open.pop(key, None)
        if run is not None:
            run.call.abandon()


class _Run:
    """A run, and what tells that it is lost."""

    def __init__(
        self, call: Reservation, finalizer: weakref.finalize[..., Any], task: asyncio.Task[Any] | None
    ) -> None:
        self.call = call
        self._finalizer = finalizer
        self._finalizer.atexit = False
        self._task = task
        self._told: Any = None

    def told(self, lose: Any) -> Any:
        """Return what is called when the task is done."""

        def done(task: asyncio.Task[Any]) -> None:
            if task.cancelled():
                lose()

        self._told = done
        return done

    def forget(self) -> None:
        """It has ended as it should."""
        self._finalizer.detach()
        if self._task is not None:
            self._task.remove_done_callback(self._told)


_runs: MutableMapping[Any, Runs] = weakref.WeakKeyDictionary()


def runs_of(limiter: object) -> Runs:
    """Return the runs of a limiter, whichever handler began them."""
    return _runs.setdefault(limiter, Runs())
