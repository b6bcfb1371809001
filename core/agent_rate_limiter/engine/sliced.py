"""The engine of limits that many processes share, where each may take slices of them: see slices.py.

A slice is asked for beside the call that wants one, in the same batch, and behind everybody who stands in line; so it
never decides on a call, and never delays one by a round trip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agent_rate_limiter.admission import Bucket, Path
from agent_rate_limiter.engine.engine import LAST
from agent_rate_limiter.engine.outbox import Parcel
from agent_rate_limiter.engine.port import Answer, Hold, Reserve
from agent_rate_limiter.engine.queue import Waiter
from agent_rate_limiter.engine.shared import Grown, SharedEngine
from agent_rate_limiter.engine.slices import LASTS, NEVER, Lane, Slice, affordable, shut, weight
from agent_rate_limiter.engine.wishes import Asked, Ended, PlaceOf

_HEADERS = 100
"""Milliseconds between two answers whose headers are heard, where calls are served from slices."""


class SlicedEngine(SharedEngine):
    """As SharedEngine, with a local allowance.

    Args:
        parts: as SharedEngine's.
        lease_tokens: tokens that may lie in slices of this process together.
        options: as SharedEngine's.
    """

    def __init__(self, *parts: Any, lease_tokens: int, **options: Any) -> None:
        self._allowance = lease_tokens
        super().__init__(*parts, **options)

    def _begin(self) -> None:
        self._lanes: dict[Path, Lane] = {}
        self._slices: dict[Slice, Lane] = {}  # those that calls are served from, or will be
        self._served: dict[int, Slice] = {}  # calls in flight, by their number
        self._over: dict[Slice, None] = {}  # slices that the store is to be told of
        self._lying = 0  # tokens in slices that are live, or asked for
        self._owed = 0  # tokens that came back from slices, and the store does not know of yet
        self._news: dict[Grown, Callable[[int], None]] = {}
        self._tick = NEVER  # when to look after all of this
        self._members = 1
        super()._begin()

    # -- calls ---------------------------------------------------------------------------------------------

    def serve(self, hold: Hold) -> bool:
        """Admit a call from a slice; False: there is none for it, and the store is to be asked."""
        with self._lock:
            lane = self._lanes.get(hold.path)
            if lane is None or lane.slice is None or self._unusable is not None:
                return False
            now = self._now()
            piece = self._piece(lane, hold.amounts, now)
            if piece is None:
                return False
            hold.id = number = self._numbers = self._numbers + 1
            self._open(hold, now)
            self._served[number] = piece
            lane.called(now)
            low = 2 * piece.served >= piece.calls and self._want(lane, hold, now)  # before it is used up
        if low:
            self.deliver(urgent=False)
        return True

    def _piece(self, lane: Lane, amounts: Sequence[int], now: int) -> Slice | None:
        """Take a call out of a slice of its path. Where anybody waits, there is none."""
        while (piece := lane.slice) is not None:
            if now < piece.until:
                if piece.take(amounts):
                    return piece
                if not piece.used_up(amounts):
                    return None
            self._end_slice(piece, now)
        return None

    def hears(self, path: Path) -> bool:
        """Whether an answer's headers are heard: where calls are served from slices, only now and then."""
        with self._lock:
            lane, now = self._lanes.get(path), self._now()
            if lane is None or lane.slice is None:
                return True
            if now - lane.heard_at < _HEADERS:
                return False
            lane.heard_at = now
            return True

    def later(self, route: Grown, learn: Callable[[int], None]) -> None:
        """As `change`, in a moment: of several on one path the last counts."""
        with self._lock:
            self._news[route] = learn
            self._wake_at(self._now() + LASTS)
        self.deliver(urgent=False)

    def give_back(self, path: Path) -> None:
        """Give back what lies in slices of these limits, and take none for a while: a provider has refused."""
        with self._lock:
            self._take_back(path, self._now())
        self.deliver(urgent=False)

    # -- what goes out, under the lock ---------------------------------------------------------------------

    def _ask(self, waiter: Waiter, standing: Bucket | None, rank: int) -> None:
        now, hold = self._now(), waiter.hold
        if self._slices and self.store.refusal(hold, now) is not None:
            self._take_back(hold.path, now)  # what lies there may be what is missing
        self._tell_all()
        super()._ask(waiter, standing, rank)
        if standing is None:
            lane = self._lanes.get(hold.path)
            if lane is None:
                lane = self._lanes[hold.path] = Lane(now)
                self._wake_at(now + LASTS)
            lane.called(now)
            self._want(lane, hold, now)

    def _want(self, lane: Lane, hold: Hold, now: int) -> bool:
        """Ask for a slice for calls like this one, if there is a pace that it is for, and room. True if it is."""
        if lane.asked is not None or lane.ready is not None or now < lane.shut_until or self.loss.since is not None:
            return False
        path, amounts = hold.path, hold.amounts
        expected = lane.expects(now)
        if not expected or any(self.is_adaptive(bucket) for bucket in path):
            return False
        tokens = weight(path, amounts)[0]
        most = min(self._allowance // 2, self._allowance - self._lying) // tokens  # half: the next is to come in time
        calls = min(expected, most, affordable(path, amounts, self._members, now))
        if calls < 2:  # noqa: PLR2004 - one is no more than the call itself
            return False
        self._numbers += 1
        self._send_for(lane, Slice(path, amounts, calls, self._numbers))
        return True

    def _send_for(self, lane: Lane, piece: Slice) -> None:
        self._tell_all()  # in the same batch, and before it
        lane.asked = piece
        self._lying += piece.tokens

        def make(place: PlaceOf) -> Reserve:
            rows = zip(piece.path, piece.taken, strict=True)
            return Reserve(piece.number, LAST, -1, tuple((place(bucket), units) for bucket, units in rows if units))

        def heard(found: Any, now: int) -> None:
            if not piece.gone:
                self._answered(lane, piece, found, now)
            elif isinstance(found, bool):
                nothing = [0] * len(piece.path)
                self._outbox.wishes.append(Ended(self, piece.number, found, now, piece.path, piece.taken, nothing))

        def lost(_: int) -> bool:
            if not piece.gone:
                self._forgo(lane, piece)
            return False

        self._outbox.put(make, heard, lost)

    def _end_slice(self, piece: Slice, now: int) -> None:
        """Serve nothing from it any more; the store hears of it in a moment."""
        piece.live = False
        self._slices.pop(piece).drop(piece)
        self._lying -= piece.tokens
        self._owe(piece, piece.left, now)

    def _owe(self, piece: Slice, units: int, now: int) -> None:
        """Have the store told of what is over: in a moment, unless somebody waits for it, or it is too much to lie."""
        self._over[piece] = None
        self._owed += max(0, units)
        if self._room.waiting or piece.overdrawn or self._owed + self._lying > self._allowance:
            self._tell_all()
        else:
            self._wake_at(now + LASTS)

    def _take_back(self, path: Path, now: int) -> None:
        """End every slice of these limits, take none for a while, and have the store told at once."""
        limits = set(path)
        for piece, lane in [*self._slices.items()]:
            if not limits.isdisjoint(piece.path):
                lane.shut_until = now + LASTS
                self._end_slice(piece, now)
        if path in self._lanes:
            self._lanes[path].shut_until = now + LASTS
        self._tell_all()

    def _tell_all(self) -> None:
        """Have the store told of everything that is over."""
        while self._over:
            piece, _ = self._over.popitem()
            gone, used = piece.report()
            ended = not piece.flights and piece.number in self._kept
            if ended or any(gone) or any(used):
                self._outbox.wishes.append(Ended(self, piece.number, ended, piece.taken_at, piece.path, gone, used))
            if ended:
                self._kept.discard(piece.number)
        self._owed = 0

    def _end(self, hold: Hold, used: Sequence[int]) -> None:
        piece = self._served.pop(hold.id, None)
        if piece is None:
            super()._end(hold, used)
            return
        hold.open = False
        del self._live[hold.id]
        piece.settle(hold.amounts, used)
        now = self._now()
        if piece.live:
            if piece.overdrawn:
                self._end_slice(piece, now)
        else:
            self._owe(piece, hold.amounts[piece.heaviest] - used[piece.heaviest], now)

    # -- what comes in, under the lock ---------------------------------------------------------------------

    def _hear(self, parcel: Parcel, answer: Answer) -> None:
        self._members = max(1, answer.members)
        super()._hear(parcel, answer)
        now = answer.now
        if answer.rules or any(shut(bucket, now) for bucket in parcel.buckets):  # another process has learned something
            self._end_unsound(now)

    def _learn(self, route: Grown, learn: Callable[[int], None] | None, now: int, *, keep: bool = True) -> bool:
        found = super()._learn(route, learn, now, keep=keep)
        self._end_unsound(now)
        return found

    def _end_unsound(self, now: int) -> None:
        for piece in [piece for piece in self._slices if not piece.sound(now)]:
            self._end_slice(piece, now)

    def _answered(self, lane: Lane, piece: Slice, found: Any, now: int) -> None:
        """The store has granted a slice, or had no room."""
        if not isinstance(found, bool):
            self._forgo(lane, piece)
            lane.shut_until = now + LASTS
            return
        lane.asked = None
        piece.begin(now)
        if found:
            self._kept.add(piece.number)
        lane.grant(piece, now)
        self._slices[piece] = lane
        self._wake_at(piece.until)
        if any(bucket.queue is not None for bucket in piece.path) or now < lane.shut_until:
            self._end_slice(piece, now)  # somebody waits by now
            self._tell_all()

    def _forgo(self, lane: Lane, piece: Slice) -> None:
        piece.gone = True
        lane.asked = None
        self._lying -= piece.tokens

    def decided(self, asked: Asked, found: Any, now: int) -> None:
        """As SharedEngine; after a refusal nothing is kept back of those limits."""
        super().decided(asked, found, now)
        if not isinstance(found, bool):
            self._take_back(asked.path, now)

    # -- in between ----------------------------------------------------------------------------------------

    def _wake_at(self, at: int) -> None:
        """See that somebody looks after it by then."""
        if at < self._tick:
            self._tick = at
            if self.clock_wakes:
                self._rearm()

    def _clear_up(self, now: int) -> None:
        super()._clear_up(now)
        if now >= self._tick:
            self._sweep(now)

    def _sweep(self, now: int) -> None:
        """End the slices whose time is over, tell the store, and forget paths that nobody calls on any more."""
        for piece in [piece for piece in self._slices if piece.until <= now]:
            self._end_slice(piece, now)
        self._tell_all()
        news, self._news = self._news, {}
        for route, learn in news.items():
            self._change(route, learn)
        for path in [p for p, lane in self._lanes.items() if lane.idle and now - lane.seen_at >= LASTS]:
            del self._lanes[path]
        ends = [piece.until for piece in self._slices]
        self._tick = min([*ends, now + LASTS]) if self._lanes else NEVER

    def _next_chore(self) -> int | None:
        at = super()._next_chore()
        return at if self._tick == NEVER else min(self._tick, NEVER if at is None else at)

    # -- the end -------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back what lies in slices, and refuse every further call."""
        self.let_go()
        super().close()

    def let_go(self) -> None:
        """Give back what lies in slices, and take none any more."""
        with self._lock:
            self._allowance, now = 0, self._now()
            for piece in [*self._slices]:
                self._end_slice(piece, now)
            for lane in self._lanes.values():
                lane.shut_until = NEVER  # for what the store is still to answer
            self._lanes.clear()
            self._sweep(now)
        self.deliver(urgent=False)
