"""The books: what was sent, to whom, by whom, and what it cost."""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

import atexit
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakSet

from agent_rate_limiter.checks import check_clock
from agent_rate_limiter.costs.accounts import Account
from agent_rate_limiter.costs.given import milliseconds, prices_of, span_of, took, usage_of
from agent_rate_limiter.costs.quotes import Quote, Quotes
from agent_rate_limiter.costs.report import CostReport, make_report, make_rows
from agent_rate_limiter.errors import ConfigError, StoreUnavailable
from agent_rate_limiter.ledger import Keep, Note, open_ledger
from agent_rate_limiter.limits import NANO_PER_DOLLAR, Target
from agent_rate_limiter.plain import is_whole
from agent_rate_limiter.pricing import Price
from agent_rate_limiter.scopes import label_texts

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from agent_rate_limiter.engine.port import Clock

_BATCH = 512
"""Calls that are noted in memory before they are added up: a lock for each costs as much as the sums."""
_UNWRITTEN = 100_000
"""Calls that wait in memory while a ledger's file cannot be written; beyond, the oldest are lost, and that is said."""
_RETRY = 5
"""How many times as long as calls may be held up by a ledger they go on without it, when it cannot be written."""
_SOON = 1_000
"""Milliseconds after which calls that wait in memory are worth a word: others' locks mostly last less."""
_ACCOUNTS = 4_096
_ROWS = 1 << 40
_log = logging.getLogger("agent_rate_limiter")


class CostTracker:
    """Keeps every call, and sums them up. Limiters have one as `limiter.costs`; it is as useful alone.

    ```python
    costs = CostTracker("sqlite:///costs.db")
    costs.record("openai:gpt-4", client.chat.completions.create(...), agent="researcher")
    print(costs.report(by=("agent", "model"), every="day"))
    ```

    Args:
        ledger: "memory://" forgets with the process; "sqlite:///costs.db" is a file that processes can share: what
            was recorded there survives the process, however it ends.
        prices: target → `Price`; of others the price table's is taken.
        on_unknown_price: "warn" logs once that a target has no price, "block" refuses to record it, "zero" is silent.
        keep_rows: days for which each call keeps its row.
        keep_hours: days for which sums are kept by the hour; from then on by the day, for ever.
        passing_labels: labels that sums by the day leave out, as their values do not come again.
        synchronous: "normal", or "full" to survive a loss of power as well; that takes some fifteen times as long.
        must_open: refuse a file that cannot be used now. If not, what is recorded waits in memory until it can be.
        clock: tells the time; the system's unless given.

    Raises:
        ConfigError: a value makes no sense.
        StoreUnavailable: the file cannot be used; the message says why, and what to do.
    """

    def __init__(
        self,
        ledger: str = "memory://",
        *,
        prices: Mapping[str, Price] | Mapping[Target, Price] | None = None,
        on_unknown_price: str = "warn",
        keep_rows: float = 7,
        keep_hours: float = 30,
        passing_labels: Iterable[str] = ("run",),
        synchronous: str = "normal",
        must_open: bool = True,
        clock: Clock | None = None,
    ) -> None:
        if clock is None:
            from agent_rate_limiter.clock import SystemClock

            clock = SystemClock()
        check_clock(clock)
        self._now = clock.now
        self._quotes = Quotes(on_unknown_price, clock.now)
        self._prices = prices_of(prices)
        keep = Keep.checked(keep_rows, keep_hours, passing_labels)
        self._ledger = open_ledger(ledger, keep, synchronous=synchronous, must_open=must_open)
        self._accounts: dict[tuple[Target, tuple[tuple[str, str], ...]], Account] = {}
        self._failing_since: int | None = None
        self._said = False  # that it fails
        self._retry_at = 0
        self._spent = 0
        self.batch = 1 if self._ledger.durable else _BATCH
        self.late: deque[Note] = deque()
        self.lock = Lock()
        _trackers.add(self)

    @classmethod
    def reading(cls, path: str) -> Self:
        """Open a ledger's file to read it, and nothing else.

        Raises:
            StoreUnavailable: it cannot be read, or holds no ledger.
        """
        from agent_rate_limiter.ledger.sqlite import SqliteLedger

        tracker = cls()
        tracker._ledger = SqliteLedger(path, Keep(0, 0, ()), must_exist=True)
        return tracker

    # -- writing -------------------------------------------------------------------------------------------

    def record(
        self,
        target: str | Target,
        usage: object,
        *,
        at: float | datetime | None = None,
        latency: float = 0.0,
        service_tier: str = "",
        **labels: object,
    ) -> float:
        """Keep a call that was made, and return its cost in dollars.

        Args:
            target: where it went, as `provider:model`.
            usage: an SDK's response, its dict, or a `Usage`.
            at: epoch seconds or a datetime at which it was sent; None is now.
            latency: seconds that it took.
            service_tier: how it was served, if its response does not say: "batch".
            labels: who made it: agent, run, team, …

        Raises:
            ConfigError: a value makes no sense, the response states no usage, or there is no price and "block" is set.
        """
        found, named = usage_of(usage, service_tier), label_texts(labels)
        moment = milliseconds("at", at)
        if moment is None:
            account, moment = self._account(Target.parse(target), tuple(sorted(named.items()))), self._now()
        else:
            account = self.account(Target.parse(target), named)  # its own, with the price of that time
        return account.book(found, account.cost(found, moment), moment, took(latency))

    def account(
        self,
        target: Target,
        labels: Mapping[str, str],
        quote: Callable[[int | None], Quote] | None = None,
    ) -> Account:
        """Return the books of a target and of who calls it; `quote` finds its price."""
        if quote is None:
            quote = partial(self._quotes.quote, target, self._prices.get(target), target.provider)
        return Account(self, target, tuple(sorted(labels.items())), quote)

    def _account(self, target: Target, labels: tuple[tuple[str, str], ...]) -> Account:
        account = self._accounts.get((target, labels))
        if account is None:
            if len(self._accounts) >= _ACCOUNTS:
                self._accounts.clear()
            account = self._accounts[target, labels] = self.account(target, dict(labels))
        return account

    def add_up(self, *, at_once: bool = True) -> None:
        """Write down what was noted. A ledger that cannot be written is logged, and written when it can be again.

        Args:
            at_once: False on the way of a call: then it is not tried again and again while it fails.
        """
        if self._failing_since is not None and not at_once and self._now() < self._retry_at:
            return
        late = self.late
        while self.lock.acquire(timeout=self._ledger.patience):
            try:
                notes = list(islice(iter(late.popleft, None), len(late)))  # what others add meanwhile stays
                if notes:
                    self._write(notes)
            finally:
                self.lock.release()
            if not late or self._failing_since is not None:  # else whoever wanted to write meanwhile may have gone on
                return

    def _write(self, notes: list[Note]) -> None:
        try:
            for place, note in enumerate(notes):
                if note[2] is None:  # it was dropped before anybody had asked for a price
                    notes[place] = _priced(note)
            self._ledger.write(notes, self._now())
        except StoreUnavailable as error:
            self._keep_for_later(notes, error)
            return
        except Exception:  # noqa: BLE001 - whatever it is, no call is broken by its books
            _log.exception("%d calls cannot be written to the ledger, and are lost to it.", len(notes))
            return
        self._spent += sum(note[2] or 0 for note in notes) if self._ledger.durable else 0
        if self._said:
            _log.warning("The ledger can be written again; nothing that waited is missing.")
        self._failing_since, self._said = None, False

    def _keep_for_later(self, notes: list[Note], error: StoreUnavailable) -> None:
        self.late.extendleft(reversed(notes))
        lost = max(0, len(self.late) - _UNWRITTEN)
        for _ in range(lost):
            self.late.popleft()
        now, patience = self._now(), round(1000 * self._ledger.patience)
        if self._failing_since is None:
            self._failing_since = now
        if lost or (not self._said and now - self._failing_since + patience >= _SOON):
            self._said = True
            fate = f"; the oldest {lost} are lost" if lost else " until they can be written"
            _log.error("%s %d calls wait in memory%s.", error, len(self.late), fate)
        self._retry_at = now + _RETRY * patience

    # -- reading -------------------------------------------------------------------------------------------

    def report(
        self,
        by: Sequence[str] = ("provider", "model"),
        since: float | datetime | None = None,
        until: float | datetime | None = None,
        *,
        every: str | None = None,
        timezone: str = "UTC",
    ) -> CostReport:
        """Sum up by labels: "provider", "model", or any label of a scope; calls without one count under "".

        Args:
            by: the labels to group by; also "price", where prices are from.
            since: epoch seconds or a datetime; the hour it lies in is included (the day, where hours are rolled up).
            until: the same; an hour (or day) that begins then is not, so months and days add up.
            every: "hour", "day", "week" or "month": a row for each such period, too.
            timezone: where days, weeks and months begin, as an IANA name; days that are rolled up begin in UTC.

        Raises:
            ConfigError: a value makes no sense.
        """
        self.add_up()
        span = span_of(since, until)
        with self.lock:
            return make_report(self._ledger, by, span, every, timezone)

    def rows(
        self, last: int = 1_000, *, since: float | datetime | None = None, until: float | datetime | None = None
    ) -> CostReport:
        """Return single calls with all that is known of them, the newest first.

        Args:
            last: no more than so many.
            since: epoch seconds or a datetime.
            until: the same; what was admitted then is not included.

        Raises:
            ConfigError: a value makes no sense.
        """
        if not is_whole(last) or last < 1:
            raise ConfigError(f"last is {last!r}: give a whole number of at least 1.")
        self.add_up()
        first, end = span_of(since, until)
        with self.lock:
            return make_rows(self._ledger.rows(first, end, min(last, _ROWS)))

    @property
    def total(self) -> float:
        """Dollars spent so far: all that the ledger knows of."""
        self.add_up()
        with self.lock:
            return sum(sums[4] for _, _, sums in self._ledger.sums(None, None)) / NANO_PER_DOLLAR

    @property
    def spent(self) -> float:
        """Dollars spent through this tracker, and not what its file holds besides."""
        return self._spent / NANO_PER_DOLLAR if self._ledger.durable else self.total

    # -- the end -------------------------------------------------------------------------------------------

    def compact(self) -> None:
        """Drop and roll up all that is old enough. Writing does so by and by; this does it at once."""
        self.add_up()
        with self.lock:
            self._ledger.compact(self._now())

    def close(self) -> None:
        """Write what was noted, and let go of the file. Whoever records more opens it again."""
        self.add_up()
        with self.lock:
            self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        """State the total."""
        return f"<CostTracker ${self.total:.6f}>"


def _priced(note: Note) -> Note:
    account, usage, _, at = note[:4]
    return (account, usage, account.cost(usage, at), *note[3:])


_trackers: WeakSet[CostTracker] = WeakSet()


@atexit.register
def _at_exit() -> None:
    """Write what could not be written when its call ended."""
    for tracker in list(_trackers):
        if tracker.batch == 1 and tracker.late:
            tracker.add_up()


def _after_fork() -> None:
    for tracker in list(_trackers):
        tracker.lock = Lock()  # whoever held the old one is not here to release it
        if tracker.batch == 1:
            tracker.late.clear()  # the parent writes them


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
