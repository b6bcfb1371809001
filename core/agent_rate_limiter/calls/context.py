"""What surrounds a call: its labels, and the reservation that an outer layer already made for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextvars import ContextVar
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.limits import Limit, Resource
from agent_rate_limiter.plain import is_whole
from agent_rate_limiter.redaction import one_line
from agent_rate_limiter.scopes import labels_text

if TYPE_CHECKING:
    from agent_rate_limiter.admission import Bucket
    from agent_rate_limiter.calls.reservation import Reservation
    from agent_rate_limiter.engine.port import Hold


ScopeKey = tuple[tuple[tuple[str, str], ...], tuple[str, ...]]
"""The labels, and the names of the limits, of a scope."""


class ScopedLimit(NamedTuple):
    """A limit that all calls of one scope share, nested scopes and tasks that outlive it included.

    Args:
        name: its own, so that no other scope shares it.
        limit: the rule.
        kept: each limiter's bucket of it, once there is one; it lives as long as anybody is in the scope.
        whose: who is in the scope, for messages.
    """

    name: str
    limit: Limit
    kept: dict[object, Bucket]
    whose: str = ""


class ScopeBudget:
    """Dollars that several blocks spend together: `with limiter.scope(budget=ScopeBudget(2.00)):`, again and again.

    A number as a scope's budget belongs to one block; this lasts as long as somebody keeps it.

    Args:
        dollars: what all calls in all of its blocks may cost together.
        key: names it, so that it is the same one in other processes that share a store, and after a restart.

    Raises:
        ConfigError: the dollars make no sense.
    """

    __slots__ = ("__weakref__", "dollars", "limit")

    def __init__(self, dollars: float, *, key: str | None = None) -> None:
        name = f"scope-{os.urandom(6).hex()}" if key is None else f"scope {key}"
        self.dollars = dollars
        self.limit = ScopedLimit(name, scope_budget(dollars), {}, "" if key is None else one_line(str(key)))

    def __repr__(self) -> str:
        """As it was made."""
        return f"ScopeBudget({self.dollars!r})"


class Steps:
    """How many steps an agent may take in a scope.

    Args:
        most: of them.
    """

    __slots__ = ("most", "taken")

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0


def take_step() -> Steps | None:
    """Take a step in every scope around, or none, and return the scope's steps that are used up."""
    around = _scope.get().steps
    with _stepping:
        for steps in around:
            if steps.taken >= steps.most:
                return steps
        for steps in around:
            steps.taken += 1
    return None


class CallScope:
    """The labels, limits and priority that apply inside `limiter.scope(...)`, outer scopes included.

    Args:
        labels: who is calling: agent, run, team, …
        limits: that all calls of a scope share.
        priority: for calls that do not state one.
        steps: how many steps an agent may take.
    """

    __slots__ = ("key", "labels", "limits", "priority", "steps")

    def __init__(
        self,
        labels: Mapping[str, str],
        limits: tuple[ScopedLimit, ...] = (),
        priority: int | None = None,
        steps: tuple[Steps, ...] = (),
    ) -> None:
        self.steps = steps
        self.labels = labels
        self.limits = limits
        self.priority = priority
        self.key: ScopeKey = (tuple(sorted(labels.items())), tuple(limit.name for limit in limits))

    def inner(
        self,
        labels: Mapping[str, str],
        limits: tuple[ScopedLimit, ...],
        priority: int | None,
        steps: tuple[Steps, ...] = (),
    ) -> CallScope:
        """Return the scope nested in this one: more labels (the inner value wins), more limits."""
        urgency = self.priority if priority is None else priority
        together = {**self.labels, **labels}
        if limits and together:
            whose = labels_text(together)
            limits = tuple(limit if limit.whose else limit._replace(whose=whose) for limit in limits)
        return CallScope(together, self.limits + limits, urgency, self.steps + steps)


NO_SCOPE = CallScope({})
_scope: ContextVar[CallScope] = ContextVar("agent_rate_limiter_scope", default=NO_SCOPE)
_reservations: ContextVar[tuple[Reservation, ...]] = ContextVar("agent_rate_limiter_reservations", default=())

_stepping = Lock()

current_scope = _scope.get
current_reservations = _reservations.get


enter_scope = _scope.set
"""Apply a scope to all that follows, threads excluded and tasks included, until `leave_scope` is given the token."""
leave_scope = _scope.reset


def hold_reservation(reservation: Reservation) -> None:
    """Let inner layers find the reservation, and claim it instead of making one for the same call."""
    token = _reservations.set((*_reservations.get(), reservation))
    reservation._hold.entered = token  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - see entered_here


def offer_reservation(reservation: Reservation) -> None:
    """As `hold_reservation`, for those whom nobody takes away: here the ones that have ended go."""
    held = (other for other in _reservations.get() if other.open)
    token = _reservations.set((*held, reservation))
    reservation._hold.entered = token  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - as above


def drop_reservation(reservation: Reservation) -> None:
    """Take it away again; by identity, as a generator may end in another context than it began in."""
    held = _reservations.get()
    if held and held[-1] is reservation:  # the usual case
        _reservations.set(held[:-1])
    elif held:
        _reservations.set(tuple(other for other in held if other is not reservation))


def entered_here(hold: Hold) -> bool:
    """Whether whoever will end the call is this very task or thread, and not one that this was started in.

    A task begins with a copy of the context, in which a token of the original's cannot be used.
    """
    around = _reservations.get()
    try:
        _reservations.reset(hold.entered)
    except ValueError:
        return False
    hold.entered = _reservations.set(around)
    return True


class Holding:
    """A block in which inner layers find the reservation; a class, as contextlib's generators take three times as long.

    Args:
        reservation: the one.
    """

    __slots__ = ("_reservation",)

    def __init__(self, reservation: Reservation) -> None:
        self._reservation = reservation

    def __enter__(self) -> None:
        hold_reservation(self._reservation)

    def __exit__(self, *_: object) -> None:
        drop_reservation(self._reservation)


def scope_guards(max_calls: int | None, max_tokens: int | None) -> tuple[ScopedLimit, ...]:
    """Return the limits that `scope(max_calls=…, max_tokens=…)` stands for: totals that never reset.

    Raises:
        ConfigError: one is no whole number above 0.
    """
    guards: list[ScopedLimit] = []
    for field, most, resource in (
        ("max_calls", max_calls, Resource.REQUESTS),
        ("max_tokens", max_tokens, Resource.TOKENS),
    ):
        if most is not None:
            check_most(field, most)
            limit = Limit(resource, most, name=f"{field} {most:,}")
            guards.append(ScopedLimit(f"scope-{os.urandom(6).hex()}", limit, {}))
    return tuple(guards)


def check_most(field: str, most: object) -> None:
    """Refuse what is no whole number above 0.

    Raises:
        ConfigError: it is none.
    """
    if not is_whole(most) or most < 1:
        raise ConfigError(f"{field} is {most!r}: give a whole number of at least 1, or None.")


def scope_budget(dollars: float) -> Limit:
    """Return the limit that `scope(budget=dollars)` stands for: a total that never resets.

    Raises:
        ConfigError: the dollars make no sense.
    """
    try:
        name = Limit(Resource.COST, dollars).name.removesuffix(" in total")
        return Limit(Resource.COST, dollars, name=f"scope budget {name}", key="budget")
    except ConfigError as error:
        message = str(error).replace("amount", "budget", 1)
        raise ConfigError(message) from None
