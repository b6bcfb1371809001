"""What the engine asks of the world: a store for the limits' states, and a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from agent_rate_limiter.admission import Bucket, Path, Refusal
from agent_rate_limiter.limits import Limit
from agent_rate_limiter.strategies import Strategy


class Hold:
    """What one call has taken, from its admission until it is settled.

    Args:
        path: the limits it takes from.
        amounts: units taken from each, in the path's order.
        flow: who makes the call: its agent.
    """

    __slots__ = (
        "amounts",
        "attempt",
        "entered",
        "expires_at",
        "final",
        "flow",
        "id",
        "lost",
        "open",
        "path",
        "taken_at",
    )

    entered: Any
    """The token of the context in which its block was entered; unset without a block."""

    def __init__(self, path: Path, amounts: Sequence[int], flow: str = "") -> None:
        self.path = path
        self.amounts = amounts
        self.flow = flow
        self.attempt = 1  # of its logical call
        self.id = 0
        self.taken_at = 0  # epoch milliseconds, like every time in here
        self.expires_at = 0
        self.open = False
        self.lost = False  # its lease ran out, and its estimate was charged
        self.final: Sequence[int] | None = None  # what to charge, if it was abandoned with more than its estimate known

    @property
    def nothing(self) -> Sequence[int]:
        """What a call that never was is settled with."""
        return [0] * len(self.path)


class Store(Protocol):
    """Where the limits' states live. Every method is one atomic step."""

    def bucket(self, key: str, limit: Limit, scope: str, now: int) -> Bucket:
        """Return the bucket of that key, made on first use."""
        ...

    def reserve(self, hold: Hold, now: int) -> Refusal | None:
        """Take the hold's amounts from all of its path, or nothing; then say what binds."""
        ...

    def settle(self, hold: Hold, used: Sequence[int], now: int) -> None:
        """Replace what the hold has taken by what was used."""
        ...

    def correct(self, hold: Hold, changes: Sequence[int], now: int) -> None:
        """Add to what a hold was settled with: it was settled for its caller, who then came back."""
        ...

    def refusal(self, hold: Hold, now: int) -> Refusal | None:
        """Say what would bind if the hold were reserved now. Changes nothing."""
        ...

    def buckets(self) -> Iterable[Bucket]:
        """Every bucket there is, for reports."""
        ...

    def recall(self, key: str) -> str | None:
        """Return the text that was remembered under a key; None when there is none. Never on a call's way."""
        ...

    def remember(self, key: str, text: str) -> None:
        """Keep a text under a key, for every process that shares the store. Never on a call's way."""
        ...

    def first(self, key: str, until: int, now: int) -> bool:
        """Claim a key until an epoch millisecond: True for one caller alone among all that share the store."""
        ...


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> int:
        """Epoch milliseconds; it may jump, in either direction."""
        ...


@runtime_checkable
class VirtualClock(Clock, Protocol):
    """A clock that makes time, too: it does the waking, and nothing waits for real time."""

    def waker(self, advance: Callable[[], None]) -> Waker:
        """Return a timer that calls `advance` when virtual time has come."""
        ...


class Waker(Protocol):
    """A timer that calls the engine's `advance` when time has come."""

    def arm(self, at: int | None) -> None:
        """Fire at that epoch millisecond or before; None: no need. Called under the engine's lock."""
        ...


# What follows is for stores that several processes share: whole batches go out, answers come back.


class Place(NamedTuple):
    """A limit that a batch is about, as its sender knows it.

    Args:
        key: its name in the store.
        strategy: how it counts.
        rev: how often the rule was changed by what providers said; the store's word goes first.
    """

    key: str
    strategy: Strategy
    rev: int


class Reserve(NamedTuple):
    """Take all of the amounts, or none.

    Answered by the units that go before it in each place if it is refused; if not, by whether its member's
    death would change anything: then the store keeps a record of it.

    Args:
        hold: its number, unique for the member.
        rank: its priority, aged; lower goes first.
        standing: the place in whose queue it stands; -1: in none.
        amounts: (place, units) of each limit that it takes from.
    """

    hold: int
    rank: int
    standing: int
    amounts: tuple[tuple[int, int], ...]


class Settle(NamedTuple):
    """End a hold: replace what it took by what was used."""

    hold: int
    kept: bool
    taken_at: int
    changes: tuple[tuple[int, int, int], ...]
    """(place, taken, used)"""


class Correct(NamedTuple):
    """Add to what a hold was settled with."""

    taken_at: int
    changes: tuple[tuple[int, int], ...]
    """(place, units)"""


class Stand(NamedTuple):
    """Stand in a place's queue, for a time; answered by the units of those who go before.

    Args:
        place: whose queue.
        waiter: its number, unique for the member: another one takes its member's place.
        rank: its priority, aged.
        flow: whose fair share it draws on.
        weight: tokens (or requests) that it draws.
        amount: units of the place's limit.
        lasting: milliseconds after which it counts as gone, unless it comes back.
    """

    place: int
    waiter: int
    rank: int
    flow: str
    weight: int
    amount: int
    lasting: int


class Leave(NamedTuple):
    """Leave a place's queue."""

    place: int


class Rule(NamedTuple):
    """A rule that nobody configured: learned from a provider, or lowered by one.

    Args:
        rev: rises with each change.
        limit: the rule.
        target: whose path it joins, where it was learned; empty for a configured one that was changed.
        adaptive: whether it is searched for by its refusals.
    """

    rev: int
    limit: Limit
    target: str
    adaptive: bool


class Write(NamedTuple):
    """Replace a state, and the rule if there is one, unless somebody else did so first. Answered by whether it was."""

    place: int
    before: Any
    after: Any
    strategy: Strategy
    rule: Rule | None


Command = Reserve | Settle | Correct | Stand | Leave | Write


class Batch(NamedTuple):
    """Commands that are one atomic step.

    Args:
        member: who sends it: one limiter in one process.
        number: rises by one with each; a batch that is sent again, its answer lost, has the same.
        lease: milliseconds for which the member counts as alive from here on.
        places: the limits that the commands are about.
        commands: in order.
    """

    member: str
    number: int
    lease: int
    places: Sequence[Place]
    commands: Sequence[Command]


class Answer(NamedTuple):
    """What came of a batch.

    Args:
        now: epoch milliseconds of the step, on the store's clock.
        members: how many are alive.
        results: one for each command.
        states: revision and state of each place, after the step.
        rules: those that the sender does not know yet, by key.
    """

    now: int
    members: int
    results: Sequence[Any]
    states: Sequence[tuple[int, Any]]
    rules: Mapping[str, Rule]


class SharedStore(Protocol):
    """A store that processes share. Its methods do I/O, and raise StoreUnavailable; one thread at a time calls them."""

    @property
    def name(self) -> str:
        """What it is, without secrets."""
        ...

    @property
    def look_every(self) -> int:
        """Milliseconds after which to call `changed` while somebody waits."""
        ...

    def check(self, place: Place) -> None:
        """Raise a ConfigError if a limit cannot be kept here."""
        ...

    def run(self, batch: Batch, now: int | None) -> Answer:
        """Take one atomic step, at a given epoch millisecond or at the store's own time."""
        ...

    def changed(self) -> Iterable[str] | None:
        """Whose limits have room since the last look; None: somebody's, perhaps. Blocks at most for a short time."""
        ...

    def listen(self, member: str, heard: Callable[[str], bool]) -> None:
        """Call `heard` with a limit's key when it is the member's turn there, until that returns False."""
        ...

    def recall(self, key: str) -> str | None:
        """As Store."""
        ...

    def remember(self, key: str, text: str) -> None:
        """As Store."""
        ...

    def first(self, key: str, until: int, now: int) -> bool:
        """As Store."""
        ...

    def close(self) -> None:
        """Let go of connections; the next use connects anew."""
        ...

    def forked(self) -> None:
        """Forget the parent's connections, without touching them."""
        ...


Run = Callable[[Batch, "int | None"], Answer]
"""As `SharedStore.run`."""
Offer = Callable[[Run], "Callable[[bool], None] | None"]
"""Takes a step in a transaction that somebody else will end; returns what is to be told whether that was kept, or None
where there was nothing to do."""


class NearStore(SharedStore, Protocol):
    """A shared store in which a step takes less time than to have another thread take it."""

    @property
    def entered(self) -> bool:
        """Whether this very thread is in the middle of a step."""
        ...

    def attempt(self, batch: Batch, now: int | None, patience: float = 0) -> Answer | None:
        """As `run`, but blocks for so many seconds at most: None where somebody is in the way."""
        ...

    def take_along(self, offer: Offer) -> None:
        """Make use of an offer whenever something else is written to the same place."""
        ...

    def hasten(self) -> None:
        """Make use of it now, if nobody is in the way. Never blocks."""
        ...
