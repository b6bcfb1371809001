"""Faults: what providers do wrong or at the worst moment, injected on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, cast

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.testing.simulated import catalogue
from agent_rate_limiter.testing.simulated.calls import Call, Refusal, Reply
from agent_rate_limiter.testing.simulated.options import DIMENSIONS
from agent_rate_limiter.testing.simulated.tokens import Dice
from agent_rate_limiter.testing.simulated.wires import Moment, Problem, Readings, Wire

WORDED = ("rate_limit", "request_too_large", "server_error", "overloaded", "unavailable", "authentication")
CONNECTION = ("reset", "reset_after_headers", "hang")
STREAM = ("stream_error", "azure_failed_first", "truncated_stream", "reset_stream", "slow_stream")
KINDS = ("headers", "answer", *CONNECTION, *STREAM, *WORDED, *catalogue.NAMES)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong. Times are simulated seconds, unless said; header values are sent as given.

    Args:
        kind: what happens:
            `headers` - the call is served; only its headers are changed, as the fields below say.
            `answer` - this `status` and `body`.
            `rate_limit`, `request_too_large`, `server_error`, `overloaded`, `unavailable`, `authentication` -
            worded as the dialect's provider does. A `rate_limit` is for `dimension`, whatever is really left.
            Any of `catalogue.NAMES`: `insufficient_quota`, `slow_down`, `daily_quota`, `billing_error`, …
            `reset`, `reset_after_headers` - the connection is reset. `hang` - nothing comes, for `seconds`.
            Streams only: `stream_error` - a 200 that ends in an error event, with `error` if given;
            `azure_failed_first` - the same in Azure's other order, `response.failed` first;
            `truncated_stream` - ends without its last events; `reset_stream`;
            `slow_stream` - `seconds` between pieces.
        retry_after: seconds that the answer tells to wait, as the client counts them: 0, 121, 0.5.
        headers: headers to set; None removes one.
        bare: no quota header and no retry-after at all.
        remaining: every `remaining` header says this, e.g. -1.
        round_remaining: every `remaining` header is rounded to a multiple of this.
        stale: quota headers are those of the model's previous answer.
        clock_skew: seconds by which the server's clock is ahead: Date and absolute resets.
        error: `type`, `code` and `message` of an error in a stream.
        after_pieces: pieces of text that a broken stream brings before it breaks.
        model, api: only calls to this model, through this API (`chat`, `responses`, `messages`, …).

    Raises:
        ConfigError: a kind that does not exist, or an `answer` without a status.
    """

    kind: str
    _: KW_ONLY
    retry_after: float | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict[str, "str | None"])
    bare: bool = False
    remaining: int | None = None
    round_remaining: int | None = None
    stale: bool = False
    clock_skew: float = 0.0
    status: int | None = None
    body: Any = None
    error: Mapping[str, Any] | None = None
    dimension: str = "tpm"
    seconds: float = 3600.0
    after_pieces: int = 1
    model: str | None = None
    api: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"Fault: no kind {self.kind!r}; known are {', '.join(KINDS)}.")
        if self.kind == "answer" and self.status is None:
            raise ConfigError('Fault("answer") needs a status, e.g. status=500.')
        if self.dimension not in DIMENSIONS:
            raise ConfigError(f"Fault: no dimension {self.dimension!r}; known are {', '.join(DIMENSIONS)}.")

    def concerns(self, call: Call) -> bool:
        """Whether this call can meet this fault."""
        return (
            self.model in {None, call.model}
            and self.api in {None, call.api}
            and (call.stream or self.kind not in STREAM)
        )

    @property
    def answers(self) -> bool:
        """Whether it takes the place of the answer."""
        return self.kind not in {"headers", *CONNECTION, *STREAM}

    def reply(self, wire: Wire, call: Call, readings: Readings, moment: Moment) -> Reply:
        """The answer that takes the place of the real one, as this provider words it."""
        if self.kind in {"rate_limit", "request_too_large"}:
            return wire.refusal(call, self._refusal(call, readings, moment), moment)
        reply = self._plain(wire, call)
        if self.retry_after is None:
            return reply
        return replace(reply, headers={**reply.headers, "retry-after": f"{self.retry_after:g}"})

    def _plain(self, wire: Wire, call: Call) -> Reply:
        if self.kind == "answer":
            return Reply(self.status or 500, self.body)
        if self.kind in WORDED:
            return wire.problem(cast("Problem", self.kind), call.model)
        return catalogue.named(self.kind, call)

    def _refusal(self, call: Call, readings: Readings, moment: Moment) -> Refusal:
        dimension = DIMENSIONS[self.dimension]
        limit = readings[self.dimension].limit if self.dimension in readings else 10_000
        asked = 1 if dimension.resource == "requests" else max(1, call.input_tokens)
        if self.kind == "request_too_large":
            return Refusal(dimension, limit, 0, max(asked, limit + 1), None, too_large=True)
        wait = (1.0 if self.retry_after is None else self.retry_after) * moment.speed
        return Refusal(dimension, limit, limit, asked, wait)

    def disturb(self, headers: Mapping[str, str], previous: Mapping[str, str]) -> dict[str, str]:
        """An answer's headers, as this fault leaves them; `previous` are the last answer's quota headers."""
        changed = {**headers, **(previous if self.stale else {})}
        for name in list(changed):
            if "remaining" in name:
                changed[name] = self._remaining(changed[name])
            if self.bare and _states_quota(name):
                del changed[name]
        if self.retry_after is not None and self.kind == "headers":
            changed["retry-after"] = f"{self.retry_after:g}"
        changed |= {name: value for name, value in self.headers.items() if value is not None}
        return {name: value for name, value in changed.items() if self.headers.get(name, value) is not None}

    def _remaining(self, value: str) -> str:
        if self.remaining is not None:
            return str(self.remaining)
        unit = self.round_remaining
        return str(round(int(value) / unit) * unit) if unit else value


@dataclass
class Planned:
    """A fault, and when it happens.

    Args:
        times: how often; None is without end.
        since, until: the simulated time, in seconds, within which it happens.
        probability: the share of calls within it that it hits.
    """

    fault: Fault
    times: int | None
    since: float
    until: float
    probability: float = 1.0

    def hits(self, call: Call, now: float, dice: Dice) -> bool:
        """Whether this call meets it now; uses up one of its times."""
        due = self.times != 0 and self.since <= now < self.until and self.fault.concerns(call)
        if not due or (self.probability < 1 and dice.fraction(f"fault {self.fault.kind}") >= self.probability):
            return False
        if self.times is not None:
            self.times -= 1
        return True


def _states_quota(name: str) -> bool:
    return "ratelimit" in name or name.startswith(("retry-after", "anthropic-priority"))
