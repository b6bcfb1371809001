"""A shared store used as if it were the process's own: one command, one step, one answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agent_rate_limiter.admission import Refusal, Taking
from agent_rate_limiter.engine.outbox import Outbox
from agent_rate_limiter.engine.port import Answer, Command, Correct, Hold, Reserve, Settle, SharedStore, Stand
from agent_rate_limiter.engine.verdicts import obey, refusal_of
from agent_rate_limiter.engine.wishes import PlaceOf
from agent_rate_limiter.stores.known import KnownStore


class Direct(KnownStore):
    """Reads, writes and waits for nobody."""

    def __init__(self, shared: SharedStore, member: str = "me", lease: int = 10_000) -> None:
        super().__init__(shared)
        self.shared = shared
        self.outbox = Outbox(member, lease)
        self.kept: set[int] = set()
        self.numbers = 0

    def reserve(self, hold: Taking, now: int) -> Refusal | None:
        assert isinstance(hold, Hold)
        self.numbers += 1
        found = self.ask(hold, now)
        if isinstance(found, bool):
            hold.id = self.numbers
            self.kept.update([hold.id] if found else [])
            return None
        return refusal_of(hold, found, now)[0]

    def ask(self, hold: Hold, now: int, rank: int = 5, *, newcomer: bool = False) -> Any:
        number = self.numbers
        rows = [(bucket, n) for bucket, n in zip(hold.path, hold.amounts, strict=True) if n]
        return self.step(
            lambda place: Reserve(
                number, rank, -1 if newcomer else place(rows[0][0]), tuple((place(b), n) for b, n in rows)
            ),
            now,
        )

    def stand(
        self,
        hold: Hold,
        now: int,
        *,
        rank: int = 5,
        flow: str = "",
        waiter: int = 1,
        weight: int | None = None,
        lasting: int = 9_000,
    ) -> Any:
        (bucket,), (amount,) = hold.path, hold.amounts
        share = amount if weight is None else weight
        return self.step(lambda place: Stand(place(bucket), waiter, rank, flow, share, amount, lasting), now)

    def settle(self, hold: Hold, used: Sequence[int], now: int) -> None:
        rows = [(b, n, u) for b, n, u in zip(hold.path, hold.amounts, used, strict=True) if n or u]
        kept = hold.id in self.kept
        self.step(lambda place: Settle(hold.id, kept, hold.taken_at, tuple((place(b), n, u) for b, n, u in rows)), now)

    def correct(self, hold: Hold, changes: Sequence[int], now: int) -> None:
        rows = list(zip(hold.path, changes, strict=True))
        self.step(lambda place: Correct(hold.taken_at, tuple((place(b), change) for b, change in rows)), now)

    def remember(self, key: str, text: str) -> None:
        self.shared.remember(key, text)

    def refresh(self, path: Sequence[Any], now: int) -> None:
        self.outbox.read(path, lambda _, __: None)
        self.send(now)

    def step(self, make: Callable[[PlaceOf], Command | None], now: int) -> Any:
        self.outbox.put(make)
        return self.send(now)

    def send(self, now: int) -> Any:
        parcel = self.outbox.pack()
        answer: Answer = self.shared.run(parcel.batch, now)
        assert answer.now == now
        for bucket, (rev, state) in zip(parcel.buckets, answer.states, strict=True):
            if rev > bucket.rev and bucket.key in answer.rules:
                obey(bucket, answer.rules[bucket.key])
            if rev == bucket.rev:
                bucket.state = state
        return answer.results[0] if answer.results else None
