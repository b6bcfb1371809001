"""One call of a limited LLM: attempted until it succeeds, and settled with what it really used."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from crewai.llms import retry
from crewai.llms.base_llm import call_stop_override, call_stream_override
from crewai.types.usage_metrics import UsageMetrics

from agent_rate_limiter import AllTargetsFailed, RateLimiterError, Reservation, Usage
from agent_rate_limiter.providers import FailureKind, read_failure, read_usage
from agent_rate_limiter_adapters.crewai.errors import refusal
from agent_rate_limiter_adapters.crewai.terms import Terms, estimate, labels

if TYPE_CHECKING:
    from crewai.llms.base_llm import BaseLLM

    from agent_rate_limiter_adapters.crewai.llm import RateLimitedLLM


class Attempt:
    """One request of a call, or several where CrewAI makes them without asking: what they used adds up."""

    def __init__(self, reservation: Reservation) -> None:
        self.reservation = reservation
        self.shown = False
        """Whether the caller has seen a part of the answer."""
        self._usages: list[Usage] = []
        self._ours = True

    def note(self, usage: Mapping[str, Any]) -> None:
        """An answer has come. From now on nobody inside (a tool's own LLM) may take this reservation for theirs."""
        if not self._usages:
            self._ours = self.reservation.claim()
        self._usages.append(_usage(usage))

    @property
    def answered(self) -> bool:
        """Whether the provider has answered; what fails after that is not its fault."""
        return bool(self._usages)

    def settle(self) -> None:
        """Charge what was used; the estimate where nothing was stated."""
        if self._ours and not self.reservation.done and (self.answered or not self.reservation.claimed):
            self.reservation.settle(_total(self._usages))


current: ContextVar[Attempt | None] = ContextVar("agent_rate_limiter_crewai_attempt", default=None)
"""The attempt that we are in."""


class Call:
    """A call of a limited LLM, on its way.

    Args:
        llm: what was asked.
        terms: on which terms.
        asked: the arguments of `call`, by name.
    """

    def __init__(self, llm: RateLimitedLLM, terms: Terms, asked: Mapping[str, Any]) -> None:
        self._terms = terms
        self._llms = {terms.target(llm): llm}
        agent = asked.get("from_agent")
        self._labels = labels(dict(terms.labels), agent, asked.get("from_task"))
        self._attempts = terms.limiter.attempts(
            next(iter(self._llms)),
            estimate(llm, asked.get("messages"), asked.get("tools"), asked.get("response_model")),
            priority=terms.priority,
            timeout=terms.patience(agent),
        )
        self._first = self._attempts.claim()

    def acquire(self) -> Reservation:
        """Wait, blocking the thread, until the next attempt may be sent."""
        with self._scope():
            return self._claimed() or self._attempts.acquire()

    async def acquire_async(self) -> Reservation:
        """Wait, letting the event loop run, until the next attempt may be sent."""
        with self._scope():
            return self._claimed() or await self._attempts.acquire_async()

    @contextmanager
    def attempt(self, reservation: Reservation) -> Generator[RateLimitedLLM]:
        """Make one attempt in the block, with the LLM that it yields; an error that may be tried again ends here."""
        attempt = Attempt(reservation)
        token = current.set(attempt)
        try:
            with reservation, _without_retries():
                try:
                    yield self._llms[reservation.target]
                    attempt.settle()
                except BaseException as error:
                    if not self._again(attempt, error):
                        raise
        finally:
            current.reset(token)

    def _again(self, attempt: Attempt, error: BaseException) -> bool:
        """End an attempt that failed; True when the call is to be tried again."""
        if attempt.answered:
            attempt.settle()
            return False
        if self._attempts.failed(attempt.reservation, error, resend=not attempt.shown):
            return True
        failure = read_failure(error, None, time.time()) if isinstance(error, Exception) else None
        if failure is not None and failure.kind is not FailureKind.FATAL:
            raise refusal(AllTargetsFailed({str(attempt.reservation.target): error})) from error
        return False

    def _claimed(self) -> Reservation | None:
        first, self._first = self._first, None
        return first

    @contextmanager
    def _scope(self) -> Generator[None]:
        try:
            with self._terms.limiter.scope(**self._labels):
                yield
        except RateLimiterError as error:
            raise refusal(error) from error.__cause__


@contextmanager
def _without_retries() -> Generator[None]:
    """CrewAI's own retries are off in the block: it does as inside a call that it is retrying already."""
    token = retry._active_llm_rate_limit_retry.set(True)  # noqa: SLF001 - there is no setting for it
    try:
        yield
    finally:
        retry._active_llm_rate_limit_retry.reset(token)  # noqa: SLF001 - as above


def asked_of(llm: BaseLLM, other: BaseLLM) -> ExitStack:
    """Let another LLM stop and stream in the block as this one was told to for this call."""
    stack = ExitStack()
    if other is not llm:
        stack.enter_context(call_stop_override(other, llm.stop_sequences))
        stack.enter_context(call_stream_override(other, bool(llm._effective_stream())))  # noqa: SLF001 - CrewAI's own
    return stack


def _usage(told: Mapping[str, Any]) -> Usage:
    """What CrewAI took from one answer; not exact where the answer stated nothing."""
    metrics = UsageMetrics.from_provider_dict(dict(told))
    if metrics is not None and metrics.total_tokens:
        return Usage(
            1,
            metrics.prompt_tokens,
            metrics.completion_tokens,
            min(metrics.cached_prompt_tokens, metrics.prompt_tokens),
            min(metrics.cache_creation_tokens, metrics.prompt_tokens),
            reasoning_tokens=min(metrics.reasoning_tokens, metrics.completion_tokens),
        )
    return read_usage({"usage": dict(told)}) or Usage(exact=False)  # Bedrock's words


def _total(usages: list[Usage]) -> Usage | None:
    """The sum of what several answers used; None when none of them said."""
    stated = [usage for usage in usages if usage.total_tokens]
    if len(stated) <= 1:
        return stated[0] if stated else None
    names = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")
    return Usage(len(usages), **{name: sum(getattr(usage, name) for usage in stated) for name in names})
