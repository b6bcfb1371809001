"""Who goes before whom among the processes that wait for one limit.

Each process lets the head of its own queue stand here. Order: priority (aged), then start-time fair queueing
among agents as inside a process, then arrival. Whoever does not come back in time counts as gone. `lines.lua` does
the same for Redis.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from agent_rate_limiter.engine.port import Stand

_MOST_FLOWS = 256
"""Agents whose next start is kept."""
_Ticket = list[int]
"""Waiter, rank, start, arrival, amount, and when it counts as gone."""


@dataclass
class Line:
    """The heads that wait for one limit.

    Args:
        clock: virtual time: the start of whoever was served last.
        finish: where each agent's next start is.
        tickets: member → its head.
        arrivals: how many there were.
    """

    clock: int = 0
    arrivals: int = 0
    finish: dict[str, int] = field(default_factory=dict[str, int])
    tickets: dict[str, _Ticket] = field(default_factory=dict[str, _Ticket])

    def prune(self, now: int) -> bool:
        """Forget who did not come back. True if anybody was."""
        gone = [member for member, ticket in self.tickets.items() if ticket[5] <= now]
        for member in gone:
            del self.tickets[member]
        return bool(gone)

    def stand(self, member: str, wish: Stand, now: int) -> None:
        """Let a member's head in; the same one again keeps its turn."""
        ticket = self.tickets.get(member)
        if ticket is None or ticket[0] != wish.waiter:
            self.arrivals += 1
            start = max(self.clock, self.finish.get(wish.flow, 0))
            self.finish[wish.flow] = start + max(1, wish.weight)
            ticket = self.tickets[member] = [wish.waiter, 0, start, self.arrivals, 0, 0]
            if len(self.finish) > _MOST_FLOWS:  # where more come than come back, virtual time would stand still
                self._advance(min(self.finish.values()))
        ticket[1], ticket[4], ticket[5] = wish.rank, wish.amount, now + wish.lasting

    def leave(self, member: str, *, served: bool) -> None:
        """Take a member's head out."""
        ticket = self.tickets.pop(member, None)
        if ticket is not None and served:
            self._advance(ticket[2])

    def _advance(self, to: int) -> None:
        """Virtual time goes on; agents whom it has overtaken begin afresh."""
        self.clock = max(self.clock, to)
        self.finish = {flow: tag for flow, tag in self.finish.items() if tag > self.clock}

    def ahead_of(self, member: str, rank: int, *, standing: bool) -> int:
        """Units of those who go before a member's call of that rank."""
        if not self.tickets:
            return 0
        own = self.tickets.get(member) if standing else None
        mine = (rank, own[2], own[3]) if own is not None else (rank, float("inf"), 0)
        others = (ticket for name, ticket in self.tickets.items() if name != member)
        return sum(ticket[4] for ticket in others if (ticket[1], ticket[2], ticket[3]) < mine)

    def as_text(self) -> str:
        """Return it as JSON."""
        return json.dumps([self.clock, self.arrivals, self.finish, self.tickets])

    @classmethod
    def of(cls, text: str) -> Line:
        """Return the line that a JSON text stands for."""
        return cls(*json.loads(text))
