"""Provider-side accounting: what a call is charged, whether it is admitted, what it really used.

Pure: every method takes `now`, in seconds. It shares no code with the limiter that it judges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from agent_rate_limiter.testing.simulated.calls import Call, Reading, Refusal, Tokens
from agent_rate_limiter.testing.simulated.meters import (
    SECOND,
    Bucket,
    Meter,
    Ramp,
    SlidingLog,
    Slots,
    Window,
    day_of,
    every,
)
from agent_rate_limiter.testing.simulated.options import (
    DIMENSIONS,
    Behaviour,
    Dimension,
    ModelConfig,
    Resource,
)

DAY = 86_400
_ZONES = {"utc": "UTC", "pacific": "America/Los_Angeles"}

Charges = dict[Resource, int]


def reserved(behaviour: Behaviour, call: Call) -> Charges:
    """What a call is charged at admission, before anything is known of its answer."""
    estimate = math.ceil(call.input_tokens * behaviour.input_estimate)
    most = behaviour.default_max_tokens if call.max_output_tokens is None else call.max_output_tokens
    most *= call.choices
    tokens = {
        "max_tokens": max(most, estimate),
        "input_plus_max_tokens": estimate + most,
        "input_only": estimate,
        "actual": estimate,
        "none": 0,
    }[behaviour.charge]
    holds_output = behaviour.charge in {"max_tokens", "input_plus_max_tokens"}
    return {
        "requests": 1,
        "concurrency": 1,
        "tokens": tokens,
        "input_tokens": 0 if behaviour.charge == "none" else estimate,
        "output_tokens": most if holds_output else 0,
    }


def used(behaviour: Behaviour, tokens: Tokens) -> Charges:
    """What a call really used, as its provider counts it."""
    read = tokens.input - (0 if behaviour.cache_reads_count else tokens.cached)
    written = tokens.output * behaviour.burndown
    return {
        "requests": 1,
        "concurrency": 1,
        "tokens": read if behaviour.charge == "input_only" else read + written,
        "input_tokens": read,
        "output_tokens": written,
    }


@dataclass
class Counter:
    """A limit of an account: its meter, and all that was ever charged to it."""

    dimension: Dimension
    meter: Meter
    slice: bool = False
    charged: int = 0

    def add(self, amount: int, now: int) -> None:
        """Charge an amount."""
        self.meter.add(amount, now)
        self.charged += amount

    def refund(self, amount: int, taken_at: int, now: int) -> None:
        """Give back part of an earlier charge."""
        self.meter.refund(amount, taken_at, now)
        self.charged -= amount


@dataclass
class Reservation:
    """An admitted call: what it has been charged so far, when, and by which rules."""

    charged: Charges
    taken_at: int
    behaviour: Behaviour


class Account:
    """The limits of one model, or of a pool of models, in one account.

    Args:
        config: the limits and how they are enforced.
        shared: the account whose limits also hold here: those of the whole organization.
    """

    def __init__(self, config: ModelConfig, behaviour: Behaviour, now: float, shared: Account | None = None) -> None:
        self.behaviour = behaviour
        self._shared = shared
        self.span: tuple[float, float] | None = None
        self.counters: list[Counter] = []
        self._config = replace(config, limits={})
        self.resize(config.limits, now)

    def seen(self, now: float) -> None:
        """A request has arrived; admitted or not, it widens the span that the books are about."""
        self.span = (now if self.span is None else self.span[0], now)
        if self._shared is not None:
            self._shared.seen(now)

    def books(self, start: int, end: int) -> list[tuple[str, int, int, int]]:
        """Of each limit of its own: name, amount, what was charged in all, the most that was allowed."""
        return [
            (
                counter.dimension.name,
                counter.meter.limit,
                counter.meter.peak if isinstance(counter.meter, Slots) else counter.charged,
                counter.meter.allowed(start, end),
            )
            for counter in self.counters
            if not counter.slice
        ]

    def admit(self, call: Call, now: float) -> Reservation | Refusal:
        """Charge a call to every limit, or to none; the refusal names the limit that frees last.

        Only with `failed_requests_count` does a refused call use up request limits, while they have room.
        """
        at = nanoseconds(now)
        charges = reserved(self.behaviour, call)
        refusals = [refusal for counter in self._all() if (refusal := self._refusal(counter, charges, at))]
        if refusals:
            self.count_failure(now)
            return max(refusals, key=_severity)
        for counter in self._all():
            counter.add(charges[counter.dimension.resource], at)
        return Reservation(charges, at, self.behaviour)

    def produce(self, reservation: Reservation, tokens: int, now: float) -> None:
        """Charge output while it is generated, where the provider counts it live."""
        behaviour = reservation.behaviour
        if behaviour.settle == "live" and behaviour.charge == "actual":
            output = tokens * behaviour.burndown
            self._charge(reservation, {"tokens": output, "output_tokens": output}, now)

    def settle(self, reservation: Reservation, tokens: Tokens, now: float) -> None:
        """End a call: its slot comes back, and what it was charged is corrected if the provider does so."""
        final = dict(reservation.charged)
        if reservation.behaviour.settle != "none":
            final = used(reservation.behaviour, tokens)
        final["concurrency"] = 0
        self._charge(reservation, {name: final[name] - reservation.charged[name] for name in final}, now)

    def count_failure(self, now: float) -> None:
        """A failed or refused request uses up request limits that have room, if this provider counts it."""
        at = nanoseconds(now)
        for counter in self._all() if self.behaviour.failed_requests_count else ():
            if counter.dimension.resource == "requests" and counter.meter.wait(1, at) == 0:
                counter.add(1, at)

    def resize(self, limits: Mapping[str, int], now: float) -> None:
        """Change limits, or add some; what is used stays used."""
        at = nanoseconds(now)
        for name, limit in limits.items():
            for dimension, amount, sliced in self._parts(DIMENSIONS[name], limit):
                known = [counter for counter in self.counters if counter.dimension == dimension]
                if known:
                    known[0].meter.resize(amount, at)
                else:
                    self.counters.append(Counter(dimension, self._meter(dimension, amount, at), sliced))

    def readings(self, now: float) -> dict[str, Reading]:
        """What quota headers would say now, by the name of the limit; negative after an overdraft."""
        at = nanoseconds(now)
        readings: dict[str, Reading] = {}
        for counter in self._all():
            if not counter.slice and counter.dimension.name not in readings:
                meter = counter.meter
                reset = meter.reset_in(at) / SECOND
                readings[counter.dimension.name] = Reading(meter.limit, meter.limit - meter.used(at), reset)
        return readings

    def _all(self) -> list[Counter]:
        return self.counters if self._shared is None else [*self.counters, *self._shared.counters]

    def _parts(self, dimension: Dimension, limit: int) -> list[tuple[Dimension, int, bool]]:
        """The limit itself and, for requests per minute, its share of each slice."""
        parts = [(dimension, limit, False)]
        for seconds in self.behaviour.slices if dimension.name == "rpm" else ():
            share = math.ceil(limit * seconds / dimension.seconds)
            parts.append((replace(dimension, seconds=seconds), share, True))
        return parts

    def _meter(self, dimension: Dimension, limit: int, now: int) -> Meter:
        mode, day = self.behaviour.mode, self.behaviour.day
        if dimension.resource == "concurrency":
            return Slots(limit, now)
        if dimension.name == "ramp":
            return Ramp(limit, self._config.ramp_step, every(dimension.seconds), now)
        if dimension.seconds == DAY and day != "continuous":
            return Window(limit, day_of(_ZONES[day]), now)
        if mode == "fixed_minute":
            return Window(limit, every(dimension.seconds), now)
        kind = SlidingLog if mode == "sliding" else Bucket
        return kind(limit, round(dimension.seconds * SECOND), now)

    def _refusal(self, counter: Counter, charges: Charges, now: int) -> Refusal | None:
        meter, asked = counter.meter, charges[counter.dimension.resource]
        wait = meter.wait(max(asked, 1), now)  # output that is counted live still needs some room to begin
        if wait == 0:
            return None
        seconds = None if wait is None else wait / SECOND
        too_large = asked > meter.limit and counter.dimension.resource in {
            "tokens",
            "input_tokens",
            "output_tokens",
        }
        step = meter.step if isinstance(meter, Ramp) else 0
        return Refusal(counter.dimension, meter.limit, meter.used(now), asked, seconds, too_large, step)

    def _charge(self, reservation: Reservation, changes: Mapping[Resource, int], now: float) -> None:
        at = nanoseconds(now)
        for counter in self._all():
            change = changes.get(counter.dimension.resource, 0)
            if change > 0:
                counter.add(change, at)
            elif change < 0:
                counter.refund(-change, reservation.taken_at, at)
        for name, change in changes.items():
            reservation.charged[name] += change


def nanoseconds(seconds: float) -> int:
    """Whole nanoseconds."""
    return round(seconds * SECOND)


def _severity(refusal: Refusal) -> tuple[bool, float]:
    return refusal.too_large, math.inf if refusal.wait is None else refusal.wait
