"""What happens to calls, as it happens: frozen events, and who listens to them."""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from agent_rate_limiter.alerts import Alert
from agent_rate_limiter.checks import is_plain
from agent_rate_limiter.decision import Decision
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.limits import Limit
from agent_rate_limiter.usage import Usage

_log = logging.getLogger("agent_rate_limiter")


@dataclass(frozen=True)
class Event:
    """Something happened.

    Args:
        at: epoch seconds.
        target: the target it happened to, as `provider:model`; empty for what concerns none.
        labels: who was calling: agent, run, …
    """

    at: float
    target: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Queued(Event):
    """A call has to wait.

    Args:
        decision: which limit binds, and when it frees.
    """

    decision: Decision = field(kw_only=True)


@dataclass(frozen=True)
class Admitted(Event):
    """A call may be sent.

    Args:
        waited: seconds that it queued.
    """

    waited: float = field(kw_only=True)


@dataclass(frozen=True)
class Refused(Event):
    """A call was refused.

    Args:
        decision: which limit refused it, and when it frees.
    """

    decision: Decision = field(kw_only=True)


@dataclass(frozen=True)
class Settled(Event):
    """A call has ended.

    Args:
        usage: what it used; a call that was never sent used nothing.
        cost: dollars.
        seconds: from its admission to its end.
    """

    usage: Usage = field(kw_only=True)
    cost: float = field(kw_only=True)
    seconds: float = field(kw_only=True)


@dataclass(frozen=True)
class Retried(Event):
    """An attempt failed, and the call is tried again.

    Args:
        attempt: the number of the attempt that failed, from 1.
        kind: the failure's kind, such as "wait" or "overloaded".
        backoff: seconds until the next attempt queues.
        message: the provider's, shortened and without secrets.
    """

    attempt: int = field(kw_only=True)
    kind: str = field(kw_only=True)
    backoff: float = field(kw_only=True)
    message: str = field(kw_only=True)


@dataclass(frozen=True)
class Paused(Event):
    """A target is closed for everybody: its provider refused calls, or is overloaded.

    Args:
        until: epoch seconds.
        kind: why: the failure's kind, such as "wait", "parked" or "overloaded".
    """

    until: float = field(kw_only=True)
    kind: str = field(kw_only=True)


@dataclass(frozen=True)
class FellBack(Event):
    """A call goes elsewhere than it was meant to.

    Args:
        served_by: where it goes instead, as `provider:model`.
        reason: why.
    """

    served_by: str = field(kw_only=True)
    reason: str = field(kw_only=True)


@dataclass(frozen=True)
class Degraded(FellBack):
    """A call goes to a cheaper target, as a budget or a quota runs low."""


@dataclass(frozen=True)
class LimitLearned(Event):
    """A limit that nobody configured was learned from a provider.

    Args:
        limit: the limit.
    """

    limit: Limit = field(kw_only=True)


@dataclass(frozen=True)
class AlertRaised(Event):
    """An alert was sent.

    Args:
        alert: the alert.
    """

    alert: Alert = field(kw_only=True)


@dataclass(frozen=True)
class StoreLost(Event):
    """The store that processes share cannot be reached.

    Args:
        policy: what happens meanwhile: "fail_closed", "fail_open" or "local".
        reason: what is wrong, in one sentence.
    """

    policy: str = field(kw_only=True)
    reason: str = field(kw_only=True)


@dataclass(frozen=True)
class StoreFound(Event):
    """The store that processes share is back.

    Args:
        seconds: for how long it was not.
    """

    seconds: float = field(kw_only=True)


E = TypeVar("E", bound=Event)


class Events:
    """Who listens. A listener that raises is logged and counted; it never breaks a call.

    Attributes:
        listening: whether anybody does; nothing is made up for nobody.
        failures: how often a listener raised.
    """

    __slots__ = ("_later", "_listeners", "failures", "listening")

    def __init__(self) -> None:
        self._listeners: tuple[tuple[Callable[[Event], object], tuple[type[Event], ...]], ...] = ()
        self._later: deque[Event] = deque()
        self.listening = False
        self.failures = 0

    def subscribe(self, listener: Callable[[Event], object], *kinds: type[Event]) -> Callable[[], None]:
        """Call `listener` with every event, in the thread in which it happens, until the returned function is called.

        Args:
            listener: a plain function; what takes long belongs into a queue of its own.
            kinds: only events of these classes; all without any.

        Raises:
            ConfigError: the listener is no plain function, or a kind is no event class.
        """
        if not is_plain(listener):
            raise ConfigError(f"listener is {listener!r}: give a plain function that takes an Event.")
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, Event)):
                raise ConfigError(f"kinds hold {kind!r}: give classes of events, such as Refused.")
        entry = (listener, kinds or (Event,))
        self._listen((*self._listeners, entry))
        return lambda: self._listen(tuple(other for other in self._listeners if other is not entry))

    def _listen(self, listeners: tuple[tuple[Callable[[Event], object], tuple[type[Event], ...]], ...]) -> None:
        self._listeners = listeners
        self.listening = bool(listeners)

    def emit(self, event: Event) -> None:
        """Tell everybody who wants to know."""
        for listener, kinds in self._listeners:
            if isinstance(event, kinds):
                try:
                    listener(event)
                except Exception:  # noqa: BLE001 - a user's code: it may do anything, but not break the call
                    self.failures += 1
                    _log.exception("A listener of events failed at %s", type(event).__name__)

    def later(self, event: Event) -> None:
        """Note an event under a lock; `flush` tells it."""
        self._later.append(event)

    def flush(self) -> None:
        """Tell what was noted. No lock may be held."""
        while self._later:
            self.emit(self._later.popleft())

    def __repr__(self) -> str:
        """Count the listeners."""
        return f"<Events: {len(self._listeners)} listening>"
