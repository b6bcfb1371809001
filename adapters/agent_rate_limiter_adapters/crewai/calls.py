"""One call of a limited LLM: attempted until it succeeds, and settled with what it really used."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from crewai.hooks.dispatch import HookAborted
from crewai.llms import base_llm
from crewai.llms.base_llm import call_stop_override, call_stream_override
from crewai.types.usage_metrics import UsageMetrics

from agent_rate_limiter import AllTargetsFailed, RateLimiterError, Reservation, Usage
from agent_rate_limiter.providers import FailureKind, dialect, read_failure, read_usage
from agent_rate_limiter.sending import with_input
from agent_rate_limiter_adapters.crewai.errors import refusal
from agent_rate_limiter_adapters.crewai.terms import Terms, estimate, labels

try:
    from crewai.llms.retry import _active_llm_rate_limit_retry as _retrying
except ImportError:  # CrewAI 1.15.20 has no retries of its own yet
    _retrying = ContextVar("agent_rate_limiter_crewai_retrying", default=False)

if TYPE_CHECKING:
    from crewai.llms.base_llm import BaseLLM

    from agent_rate_limiter_adapters.crewai.llm import RateLimitedLLM


T = TypeVar("T")


class Attempt:
    """One attempt of a call. It is settled when CrewAI has read the answer, before any tool runs.

    Args:
        llm: what was asked; a fallback may answer.
        reservation: for the request that is about to be sent.
        more: follows a further request of the same call, which CrewAI makes without asking.
    """

    def __init__(self, llm: RateLimitedLLM, reservation: Reservation, more: Callable[[], Reservation]) -> None:
        self.llm = llm
        self.reservation = reservation
        self.shown = False
        """Whether the caller has seen a part of the answer."""
        self.answered = False
        """Whether the provider has answered: tools may have run since."""
        self._more = more

    def note(self, told: Mapping[str, Any]) -> None:
        """An answer has come: charge it, unless a layer inside has. What tools call from now on are other calls."""
        reservation = self._more() if self.answered else self.reservation
        self.answered = True
        reservation.settle(_usage(told))

    def end(self, answer: object) -> None:
        """The call has returned. Of an LLM that tells nothing, the text is counted."""
        if not self.reservation.done:
            reader = dialect("generic").reader()
            reader.feed({"delta": {"content": answer if isinstance(answer, str) else repr(answer)}})
            self.reservation.settle(with_input(self.reservation, reader.usage))


_NEVER_SENT = (HookAborted, getattr(base_llm, "LLMCallBlockedError", HookAborted), NotImplementedError)
"""What a hook denies, or an LLM has no such call for; once there was an answer, it is charged already."""

current: ContextVar[Attempt | None] = ContextVar("agent_rate_limiter_crewai_attempt", default=None)
"""The attempt that we are in."""


def heard(answer: T) -> T:
    """Note the answer of the attempt that we are in."""
    attempt = current.get()
    if attempt is not None:
        attempt.end(answer)
    return answer


class Call:
    """A call of a limited LLM, on its way.

    Args:
        llm: what was asked.
        terms: on which terms.
        asked: the arguments of `call`, by name.
    """

    def __init__(self, llm: RateLimitedLLM, terms: Terms, asked: Mapping[str, Any]) -> None:
        self._terms = terms
        self._llm = llm
        with _ending_tasks():
            self._llms = terms.targets(llm)
        target, *fallbacks = self._llms
        agent = asked.get("from_agent")
        self._labels = labels(dict(terms.labels), agent, asked.get("from_task"))
        self._attempts = terms.limiter.attempts(
            target,
            estimate(llm, asked.get("messages"), asked.get("tools"), asked.get("response_model")),
            priority=terms.priority,
            timeout=terms.patience(agent),
            fallbacks=fallbacks,
        )
        self._first = self._attempts.claim()

    def acquire(self) -> Reservation:
        """Wait, blocking the thread, until the next attempt may be sent."""
        with self._surroundings():
            return self._claimed() or self._attempts.acquire()

    async def acquire_async(self) -> Reservation:
        """Wait, letting the event loop run, until the next attempt may be sent."""
        with self._surroundings():
            return self._claimed() or await self._attempts.acquire_async()

    @contextmanager
    def attempt(self, reservation: Reservation) -> Generator[RateLimitedLLM]:
        """Make one attempt in the block, with the LLM that it yields; an error that may be tried again ends here."""
        limiter, target = self._terms.limiter, reservation.target
        attempt = Attempt(self._llm, reservation, lambda: limiter.track(target, reservation.estimate))
        token = current.set(attempt)
        try:
            with self._surroundings(), reservation.offered(), _without_retries():
                yield self._llms[target]
        except _NEVER_SENT:
            if not reservation.done:
                reservation.cancel()
            raise
        except BaseException as error:
            if not self._again(attempt, error):
                raise
        finally:
            current.reset(token)

    def _again(self, attempt: Attempt, error: BaseException) -> bool:
        """End an attempt that failed; True when the call is tried again. The request's own mistakes stay theirs.

        Raises:
            AllTargetsFailed: the provider's failure, or each target's; a `HookAborted`, so CrewAI lets it be.
        """
        with self._surroundings():
            if self._attempts.failed(attempt.reservation, error, resend=not (attempt.shown or attempt.answered)):
                return True
            failure = read_failure(error, None, time.time())
            if failure is not None and failure.kind is not FailureKind.FATAL:
                raise AllTargetsFailed({str(attempt.reservation.target): error}) from error
        return False

    def _claimed(self) -> Reservation | None:
        first, self._first = self._first, None
        return first

    @contextmanager
    def _surroundings(self) -> Generator[None]:
        """Under the call's labels."""
        with _ending_tasks(), self._terms.scope(self._labels):
            yield


@contextmanager
def _ending_tasks() -> Generator[None]:
    """What the limiter refuses in the block ends the task; CrewAI would try other errors again."""
    try:
        yield
    except RateLimiterError as error:
        raise refusal(error) from error.__cause__


@contextmanager
def _without_retries() -> Generator[None]:
    """CrewAI's own retries are off in the block: it does as inside a call that it is retrying already."""
    token = _retrying.set(True)
    try:
        yield
    finally:
        _retrying.reset(token)


def asked_of(llm: BaseLLM, other: BaseLLM) -> ExitStack:
    """Let another LLM stop and stream in the block as this one was told to for this call."""
    stack = ExitStack()
    if other is not llm:
        stack.enter_context(call_stop_override(other, llm.stop_sequences))
        stack.enter_context(call_stream_override(other, bool(llm._effective_stream())))
    return stack


def _usage(told: Mapping[str, Any]) -> Usage | None:
    """What CrewAI took from one answer; None where the answer stated nothing."""
    metrics = UsageMetrics.from_provider_dict(dict(told))
    if metrics is None or not metrics.total_tokens:
        return read_usage({"usage": dict(told)})  # Bedrock has words of its own
    return Usage(
        1,
        metrics.prompt_tokens,
        metrics.completion_tokens,
        min(metrics.cached_prompt_tokens, metrics.prompt_tokens),
        min(metrics.cache_creation_tokens, metrics.prompt_tokens),
        reasoning_tokens=min(metrics.reasoning_tokens, metrics.completion_tokens),
    )
