"""The provider behind the HTTP server: no I/O, no clock, no lock; every method is told the moment."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from agent_rate_limiter.testing.simulated.accounts import Account, Reservation
from agent_rate_limiter.testing.simulated.anthropic import AnthropicWire
from agent_rate_limiter.testing.simulated.calls import Answer, Api, BadRequest, Call, Reply, Tokens, answer_to
from agent_rate_limiter.testing.simulated.faults import Fault, Planned
from agent_rate_limiter.testing.simulated.gemini import GeminiWire
from agent_rate_limiter.testing.simulated.openai import AzureWire, GroqWire, OpenAIWire
from agent_rate_limiter.testing.simulated.options import Dialect, ModelConfig, Prices
from agent_rate_limiter.testing.simulated.organization import Organization
from agent_rate_limiter.testing.simulated.reports import (
    Outcome,
    Report,
    RequestRecord,
    Tally,
    model_report,
    whole_report,
)
from agent_rate_limiter.testing.simulated.tokens import Dice, compact
from agent_rate_limiter.testing.simulated.wires import Moment, Wire

WIRES: dict[Dialect, Wire] = {
    "openai": OpenAIWire(),
    "azure": AzureWire(),
    "groq": GroqWire(),
    "anthropic": AnthropicWire(),
    "gemini": GeminiWire(),
}
LOG = 100_000  # requests kept in the log; the sums count all
_DELIVERY = {"stream", "stream_options"}  # how an answer is brought does not change what it says


@dataclass
class Exchange:
    """A request on its way through the provider.

    Args:
        caller: the account, and the request's harmless headers.
        key: hexadecimal; the request's id is made of it.
        reply: the whole answer, if it is not the model's: a refusal, an error.
        answer: what the model says, if the call was admitted.
        fault: what goes wrong on the way; `touches` only change headers.
        refused: the error inside a 200 that is really a refusal.
        produced: output tokens generated so far.
        status: as sent; 0 until then.
    """

    api: Api
    call: Call
    wire: Wire
    caller: tuple[str, Mapping[str, str]]
    at: float
    key: str
    account: Account | None = None
    reservation: Reservation | None = None
    answer: Answer | None = None
    reply: Reply | None = None
    fault: Fault | None = None
    touches: list[Fault] = field(default_factory=list[Fault])
    refused: Mapping[str, Any] | None = None
    produced: int = 0
    status: int = 0
    ended: bool = False

    @property
    def mishap(self) -> str:
        """The kind of what goes wrong; empty if nothing does."""
        return "" if self.fault is None else self.fault.kind

    @property
    def faults(self) -> list[Fault]:
        """Everything that goes wrong with it."""
        return [*self.touches, *([self.fault] if self.fault is not None else [])]


class Simulation:
    """Admission, faults and the books of a simulated provider.

    Args:
        organization: makes the models and accounts, all limits full.
        seed: what the answers depend on, besides the requests.
        start: seconds; faults and changes of limits are scheduled from here.
    """

    def __init__(self, organization: Callable[[], Organization], seed: int, start: float) -> None:
        self._make = organization
        self._seed = seed
        self._begun = False
        self.reset(start)

    def reset(self, now: float) -> None:
        """As if just started: limits full and as configured, books empty, faults and changes to come gone."""
        self.start = now
        self.organization = self._make()
        self.planned: list[Planned] = []
        self._changes: list[tuple[float, str | None, Mapping[str, int]]] = []
        self._attempts: Counter[str] = Counter()
        self._served: Counter[str] = Counter()
        self._tallies: dict[str, Tally] = {}
        self._stated: dict[str, Mapping[str, str]] = {}
        self._span: tuple[float, float] | None = None
        self.log: deque[RequestRecord] = deque(maxlen=LOG)

    def begin(self, now: float) -> None:
        """Serving starts: what is scheduled counts from the first time."""
        if not self._begun:
            self.start, self._begun = now, True

    def open(
        self, api: Api, dialect: Dialect, call: Call, caller: tuple[str, Mapping[str, str]], moment: Moment
    ) -> Exchange:
        """A request arrives: admit it, refuse it, or let a fault have it.

        The caller is the API key, which is not kept, and the request's harmless headers.
        """
        now = moment.at
        self._advance(now)
        self._span = (now if self._span is None else self._span[0], now)
        content = self._content(call)
        self._attempts[content] += 1
        dice = Dice(self._seed, content, self._attempts[content])
        name = self.organization.account_name(caller[0])
        key = dice.bytes("request", 12).hex()
        exchange = Exchange(api, call, WIRES[dialect], (name, caller[1]), now, key)
        config = self.organization.config(call.model)
        if config is None:
            exchange.reply = exchange.wire.problem("model_not_found", call.model)
            return exchange
        self._tallies.setdefault(call.model, Tally())
        self._plan(exchange, dice, now)
        exchange.account = self.organization.account(name, dialect, call.model, now)
        exchange.account.seen(now)
        self._decide(exchange, exchange.account, config, content, moment)
        return exchange

    def reject(self, api: Api, dialect: Dialect, bad: BadRequest, model: str, moment: Moment) -> Exchange:
        """A request arrives that makes no sense."""
        now = moment.at
        wire, key = WIRES[dialect], Dice(self._seed, now).bytes("request", 12).hex()
        exchange = Exchange(api, Call(api.name, model, 0), wire, ("default", {}), now, key)
        exchange.reply = wire.problem("bad_request", model, str(bad), bad.param)
        return exchange

    def produce(self, exchange: Exchange, tokens: int, moment: Moment) -> None:
        """Output has been generated."""
        self._advance(moment.at)
        exchange.produced += tokens
        if exchange.account is not None and exchange.reservation is not None and not exchange.ended:
            exchange.account.produce(exchange.reservation, tokens, moment.at)

    def close(self, exchange: Exchange, outcome: Outcome, moment: Moment) -> None:
        """The exchange is over: settle it, and enter it in the books. Only the first time counts."""
        if exchange.ended:
            return
        now = moment.at
        self._advance(now)
        exchange.ended = True
        tokens = Tokens()
        if exchange.account is not None and exchange.reservation is not None and exchange.answer is not None:
            tokens = replace(exchange.answer.tokens, output=exchange.produced)
            exchange.account.settle(exchange.reservation, tokens, now)
        if exchange.at >= self.start:  # else it began before a reset
            self._enter(exchange, outcome, tokens, now)

    def headers(self, exchange: Exchange, moment: Moment) -> dict[str, str]:
        """The answer's headers as they are sent: the request's id, the date, quotas; disturbed by faults."""
        skew = sum(fault.clock_skew for fault in exchange.faults)
        moment = replace(moment, now=moment.now + skew)
        quota: dict[str, str] = {}
        if exchange.account is not None:
            which = exchange.account.behaviour.headers
            quota = exchange.wire.quota_headers(exchange.account.readings(moment.at), moment, which)
        previous = self._stated.get(exchange.call.model, {})
        if exchange.reply is not None:
            quota |= exchange.reply.headers
        for fault in exchange.faults:
            quota = fault.disturb(quota, previous)
        self._stated[exchange.call.model] = quota
        return {"date": moment.http_date(), exchange.wire.request_id: f"req_{exchange.key}", **quota}

    def set_limits(self, model: str | None, limits: Mapping[str, int], at: float | None, moment: Moment) -> None:
        """Change limits: now, or so many seconds after the start."""
        self.organization.check(model, limits)
        if at is None:
            self.organization.set_limits(model, limits, moment.at)
        else:
            self._changes = sorted([*self._changes, (at, model, limits)], key=lambda change: change[0])

    def report(self, moment: Moment) -> Report:
        """The books: requests that are over, and what every limit was charged, those in flight included."""
        self._advance(moment.at)
        costs = {name: self._prices(name).cost(tally.tokens) for name, tally in self._tallies.items()}
        models = {
            name: model_report(tally, costs[name], self.organization.limits(name))
            for name, tally in self._tallies.items()
        }
        span = 0.0 if self._span is None else self._span[1] - self._span[0]
        return whole_report(models, sum(costs.values(), Decimal(0)), self.organization.limits(None), span)

    def _plan(self, exchange: Exchange, dice: Dice, now: float) -> None:
        """Find what goes wrong: any number of changed headers, and the first of everything else."""
        for planned in self.planned:
            changes_headers = planned.fault.kind == "headers"
            if exchange.fault is not None and not changes_headers:
                continue
            if planned.hits(exchange.call, now - self.start, dice):
                if changes_headers:
                    exchange.touches.append(planned.fault)
                else:
                    exchange.fault = planned.fault

    def _decide(self, exchange: Exchange, account: Account, config: ModelConfig, content: str, moment: Moment) -> None:
        fault, call, wire, now = exchange.fault, exchange.call, exchange.wire, exchange.at
        if fault is not None and (fault.answers or fault.kind in {"reset", "hang"}):
            account.count_failure(now)
            if fault.answers:
                exchange.reply = fault.reply(wire, call, account.readings(now), moment)
            return
        verdict = account.admit(call, now)
        if isinstance(verdict, Reservation):
            exchange.reservation = verdict
            self._served[content] += 1
            exchange.answer = answer_to(call, config.answers, Dice(self._seed, content, self._served[content]))
            return
        exchange.fault = None  # it never came to that
        exchange.reply = wire.refusal(call, verdict, moment)
        if call.api == "responses" and call.stream and account.behaviour.refuse_in_stream:
            exchange.answer = answer_to(call, config.answers, Dice(self._seed, content, "refused"))
            exchange.refused = wire.stream_error()

    def _advance(self, now: float) -> None:
        while self._changes and self._changes[0][0] <= now - self.start:
            at, model, limits = self._changes.pop(0)
            self.organization.set_limits(model, limits, self.start + at)

    def _content(self, call: Call) -> str:
        body = {name: value for name, value in call.body.items() if name not in _DELIVERY}
        return hashlib.blake2b(f"{call.api} {call.model} {compact(body)}".encode(), digest_size=16).hexdigest()

    def _prices(self, model: str) -> Prices:
        config = self.organization.config(model)
        return Prices() if config is None else config.prices

    def _enter(self, exchange: Exchange, outcome: Outcome, tokens: Tokens, now: float) -> None:
        record = RequestRecord(
            at=exchange.at - self.start,
            seconds=now - exchange.at,
            api=exchange.call.api,
            model=exchange.call.model,
            account=exchange.caller[0],
            status=exchange.status,
            outcome=outcome,
            admitted=exchange.reservation is not None,
            stream=exchange.call.stream,
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            cached_tokens=tokens.cached,
            dollars=float(self._prices(exchange.call.model).cost(tokens)),
            fault=exchange.mishap or None,
            headers=exchange.caller[1],
        )
        self.log.append(record)
        self._tallies.setdefault(record.model, Tally()).note(record)
