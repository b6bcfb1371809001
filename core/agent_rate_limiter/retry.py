"""Whether and when a failed call is tried again. Tenacity does the sums; a first attempt never gets here."""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agent_rate_limiter.checks import is_plain
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.plain import is_number, is_whole
from agent_rate_limiter.providers.model import Failure, FailureKind

if TYPE_CHECKING:
    from tenacity import RetryCallState
    from tenacity.stop import stop_base
    from tenacity.wait import wait_base

_log = logging.getLogger("agent_rate_limiter")
BACKOFFS = ("exponential", "linear", "fixed")
JITTERS = ("full", "none")
_RETRIED = frozenset({FailureKind.WAIT, FailureKind.PARKED, FailureKind.OVERLOADED, FailureKind.TRANSIENT})
_AT_THE_GATE = frozenset({FailureKind.WAIT, FailureKind.PARKED})
_BUDGET_WINDOW = 10_000
_MOST = 1e15


class RetryBudget:
    """How many retries of failures (not of rate limits, which wait) a limiter allows: a share of its calls.

    Keeps an outage from turning into a storm of retries (Finagle's retry budgets).

    Args:
        ratio: retries per call admitted in the last ten seconds.
        minimum: retries per ten seconds that are always allowed.

    Raises:
        ConfigError: a number makes no sense.
    """

    def __init__(self, ratio: float = 0.2, minimum: int = 10) -> None:
        _at_least_0("ratio", ratio)
        _at_least_0("minimum", minimum)
        self.ratio = ratio
        self.minimum = minimum
        self._since = 0
        self._calls_before = 0
        self._spent = 0

    def allows(self, now: int, calls: int) -> bool:
        """Take one retry out of the budget, if there is one.

        Args:
            now: epoch milliseconds.
            calls: calls that the limiter has admitted so far.
        """
        if now - self._since >= _BUDGET_WINDOW:
            self._since, self._calls_before, self._spent = now, calls, 0
        if self._spent >= self.minimum + self.ratio * (calls - self._calls_before):
            return False
        self._spent += 1
        return True

    def __repr__(self) -> str:
        """As it was made."""
        return f"RetryBudget(ratio={self.ratio:g}, minimum={self.minimum})"


class RetryStrategy:
    """When a failed call is tried again, and after what backoff.

    A rate limit is not backed off from: the retry keeps its place in the queue and waits until the provider said
    it may go. Overloads and broken connections back off by the numbers below. Refused requests, missing credit
    and requests that never fit are not retried.

    Args:
        max_attempts: attempts in total, the first included; 1 never retries.
        max_time: seconds from the first attempt after which none is begun; None sets no bound.
        backoff: "exponential", "linear" or "fixed".
        base: seconds of the first backoff.
        cap: seconds of the longest backoff.
        jitter: "full" draws each backoff between 0 and its value, "none" takes the value.
        budget: bounds the share of retries; `RetryBudget()` unless given.
        classify: looks at an error first; returns a FailureKind, or None to leave it to the provider's dialect.
        wait: a tenacity wait object, in place of backoff, base, cap and jitter.
        stop: a tenacity stop object, besides max_attempts and max_time.

    Raises:
        ConfigError: a value makes no sense; the message names it and the fix.
    """

    def __init__(  # noqa: PLR0917 - all are meant to be named
        self,
        max_attempts: int = 8,
        max_time: float | None = None,
        backoff: str = "exponential",
        base: float = 0.5,
        cap: float = 60.0,
        jitter: str = "full",
        budget: RetryBudget | None = None,
        classify: Callable[[BaseException], FailureKind | None] | None = None,
        wait: wait_base | None = None,
        stop: stop_base | None = None,
    ) -> None:
        if not is_whole(max_attempts) or max_attempts < 1:
            raise ConfigError(f"max_attempts is {max_attempts!r}: give a whole number of at least 1.")
        if max_time is not None:
            _at_least_0("max_time", max_time)
        _one_of("backoff", backoff, BACKOFFS)
        _one_of("jitter", jitter, JITTERS)
        _at_least_0("base", base)
        _at_least_0("cap", cap)
        if budget is not None and not isinstance(budget, RetryBudget):
            raise ConfigError(f"budget is {budget!r}: give a RetryBudget(ratio, minimum), or None.")
        for field, given in (("classify", classify), ("wait", wait), ("stop", stop)):
            if given is not None and not is_plain(given):
                raise ConfigError(f"{field} is {given!r}: give a plain function or a tenacity object, or None.")
        self.max_attempts = max_attempts
        self.max_time = max_time
        self.backoff = backoff
        self.base = base
        self.cap = cap
        self.jitter = jitter
        self.budget = budget or RetryBudget()
        self.classify = classify
        self._wait = wait
        self._stop = stop

    @classmethod
    def of(cls, value: RetryStrategy | Mapping[str, Any] | None) -> RetryStrategy:
        """Return the strategy that an argument or a config file's mapping stands for.

        Raises:
            ConfigError: the mapping has an unknown key, or a value makes no sense.
        """
        if isinstance(value, RetryStrategy):
            return value
        if value is not None and not isinstance(value, Mapping):
            raise ConfigError(f"retry is {value!r}: give a RetryStrategy(...), a mapping of its options, or None.")
        options = dict(value or {})
        known = ("max_attempts", "max_time", "backoff", "base", "cap", "jitter", "budget")
        for key in options:
            if key not in known:
                raise ConfigError(f"retry.{key}: unknown key; it is one of {', '.join(known)}.")
        if isinstance(options.get("budget"), Mapping):
            if not set(options["budget"]) <= {"ratio", "minimum"}:
                raise ConfigError(f"retry.budget is {options['budget']!r}: it takes 'ratio' and 'minimum'.")
            options["budget"] = RetryBudget(**options["budget"])
        elif not isinstance(options.get("budget"), (RetryBudget, type(None))):
            raise ConfigError(f"retry.budget is {options['budget']!r}: give a mapping with 'ratio' and 'minimum'.")
        return cls(**options)

    def judged(self, error: BaseException) -> FailureKind | None:
        """Return what the user says that an error is; None leaves it to the provider's dialect."""
        if self.classify is None or not isinstance(error, Exception):  # a cancelled task is cancelled
            return None
        try:
            kind = self.classify(error)
            return None if kind is None else FailureKind(kind)
        except Exception:  # noqa: BLE001 - a user's code: it may do anything, but not break the call
            _log.exception("classify failed at a %s, which is left to the provider's dialect", type(error).__name__)
            return None

    def after(self, failure: Failure, attempt: int, elapsed: float, error: BaseException | None) -> float | None:
        """Return the seconds to back off before the next attempt, or None to give up.

        Args:
            failure: how the attempt failed.
            attempt: its number, from 1.
            elapsed: seconds since the first attempt began.
            error: what it raised, for tenacity's own stop and wait objects.
        """
        if failure.kind not in _RETRIED or attempt >= self.max_attempts:
            return None
        if self.max_time is not None and elapsed >= self.max_time:
            return None
        try:
            return self._told(failure, attempt, elapsed, error)
        except Exception:  # noqa: BLE001 - as above: the wait and stop objects are the user's
            _log.exception("A retry strategy's stop or wait failed: the call is not tried again")
            return None

    def _told(self, failure: Failure, attempt: int, elapsed: float, error: BaseException | None) -> float | None:
        state = None
        if self._stop is not None or self._wait is not None:
            state = _state(attempt, elapsed, error)
            if self._stop is not None and self._stop(state):
                return None
        if failure.kind in _AT_THE_GATE:
            return 0.0
        return max(failure.retry_after or 0.0, self._backoff(state or _state(attempt, elapsed, error)))

    def _backoff(self, state: RetryCallState) -> float:
        if self._wait is None:
            self._wait = self._make_wait()
        seconds = float(self._wait(state))
        if not math.isfinite(seconds):
            message = f"a wait of {seconds} seconds"
            raise ValueError(message)
        return seconds

    def _make_wait(self) -> wait_base:
        import tenacity  # 20 ms: only failures pay for it

        if self.backoff == "exponential" and self.jitter == "full":
            return tenacity.wait_random_exponential(multiplier=self.base, max=self.cap)
        if self.backoff == "exponential":
            return tenacity.wait_exponential(multiplier=self.base, max=self.cap)
        if self.jitter == "none":
            return tenacity.wait_incrementing(self.base, self.base if self.backoff == "linear" else 0, self.cap)
        if self.backoff == "fixed":
            return tenacity.wait_random(0, self.base)
        return _linear_jitter(self.base, self.cap)

    def __repr__(self) -> str:
        """State what bounds it."""
        until = "" if self.max_time is None else f", max_time={self.max_time:g}"
        return f"RetryStrategy(max_attempts={self.max_attempts}{until}, backoff={self.backoff!r}, base={self.base:g})"


def _linear_jitter(base: float, cap: float) -> wait_base:
    import tenacity

    class LinearJitter(tenacity.wait.wait_base):
        def __call__(self, retry_state: RetryCallState) -> float:
            return tenacity.wait_random(0, min(cap, base * retry_state.attempt_number))(retry_state)

    return LinearJitter()


def _state(attempt: int, elapsed: float, error: BaseException | None) -> RetryCallState:
    """What tenacity's stop and wait objects look at."""
    from tenacity import Future, RetryCallState

    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
    state.attempt_number = attempt
    state.outcome_timestamp = state.start_time + elapsed
    outcome = Future(attempt)
    outcome.set_exception(error or RuntimeError("the provider refused"))
    state.outcome = outcome
    return state


def _at_least_0(field: str, value: object) -> None:
    if not is_number(value) or not 0 <= value <= _MOST:
        raise ConfigError(f"{field} is {value!r}: give a finite number of at least 0.")


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{field} is {value!r}: it is one of {', '.join(allowed)}.")
