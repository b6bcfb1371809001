"""A callback handler that limits model calls, and accounts for them: `config={"callbacks": [handler]}`."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.tracers.context import register_configure_hook

from agent_rate_limiter import Attempts, ConfigError, Estimate, Reservation, Target
from agent_rate_limiter.sending import check_terms, with_input
from agent_rate_limiter_adapters.langchain.runs import runs_of
from agent_rate_limiter_adapters.langchain.targets import Targets, chat_estimate, text_estimate, url_of
from agent_rate_limiter_adapters.langchain.usage import counted_elsewhere, usage_of_run

if TYPE_CHECKING:
    from uuid import UUID

    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import LLMResult

    from agent_rate_limiter_adapters.http.targets import AnyLimiter

MODES = ("enforce", "track")
_log = logging.getLogger("agent_rate_limiter")


class _Call(NamedTuple):
    """A model call that LangChain tells of."""

    run_id: UUID
    target: Target
    estimate: Estimate
    alone: bool
    """Whether it is the only one of its invocation: `generate` begins all of its prompts first."""


class _Hook:
    """A hook that may wait: awaited if LangChain looks it up in a coroutine, else called.

    So one handler serves both: on the event loop it lets others run, in a thread it blocks. A handler with a plain
    function would wait in the loop's default executor and fill it; the errors of one with a coroutine function are
    swallowed where LangChain is called synchronously.
    """

    def __init__(self, read: Callable[..., _Call | None]) -> None:
        self._read = read

    def __get__(self, handler: Any, owner: object = None) -> Any:
        looking = sys._getframe(1).f_code  # noqa: SLF001 - documented, in spite of its name
        begin = handler.begin_async if looking.co_flags & inspect.CO_COROUTINE else handler.begin
        return partial(begin, partial(self._read, handler))


def _chat(
    handler: _Limits, serialized: Any, messages: list[list[BaseMessage]], *, run_id: UUID, **told: Any
) -> _Call | None:
    params, options = told.get("metadata") or {}, told.get("invocation_params") or {}
    return handler.call_of(run_id, serialized, told, chat_estimate(messages[0], params, options))


def _completion(handler: _Limits, serialized: Any, prompts: list[str], *, run_id: UUID, **told: Any) -> _Call | None:
    params, options = told.get("metadata") or {}, told.get("invocation_params") or {}
    return handler.call_of(run_id, serialized, told, text_estimate(str(params.get("ls_provider")), prompts, options))


class _Limits:
    """What both handlers do. See `RateLimitCallbackHandler`."""

    raise_error = True
    run_inline = True  # in the caller's context, and not in an executor

    def __init__(
        self,
        limiter: AnyLimiter,
        *,
        mode: str = "enforce",
        target: str | Target | None = None,
        provider: str | None = None,
        priority: int | None = None,
        timeout: float | None = None,
    ) -> None:
        super().__init__()
        check_terms(limiter, priority=priority, timeout=timeout)
        if mode not in MODES:
            raise ConfigError(f"mode is {mode!r}: it is one of {', '.join(MODES)}.")
        self.limiter = limiter
        self.mode = mode
        self._targets = Targets(limiter, target=target, provider=provider)
        self._priority = priority
        self._timeout = timeout
        self._runs = runs_of(limiter)

    on_chat_model_start: Any = _Hook(_chat)
    on_llm_start: Any = _Hook(_completion)

    # -- a run begins --------------------------------------------------------------------------------------

    def call_of(self, run_id: UUID, serialized: Any, told: Mapping[str, Any], estimate: Estimate) -> _Call | None:
        """Understand a run; None when another handler of this limiter counts it, or when it only cannot be tracked."""
        if run_id in self._runs:
            return None
        fields: Mapping[str, Any] = (serialized or {}).get("kwargs") or {}
        try:
            target = self._targets.find(told.get("metadata") or {}, url_of(fields))
        except ConfigError as error:
            if self.mode == "enforce":
                raise
            _log.warning("a model call is not tracked: %s", error)
            return None
        return _Call(run_id, target, estimate, alone=told.get("batch_size", 1) == 1)

    def begin(self, read: Callable[..., _Call | None], *args: Any, **told: Any) -> None:
        """Make the reservation of a run, waiting where nobody else is kept from running."""
        call = read(*args, **told)
        if call is not None:
            reservation = self._taken(call) or self._attempts(call, patient=not _in_event_loop()).acquire()
            self._runs.begin(call.run_id, reservation, None)

    async def begin_async(self, read: Callable[..., _Call | None], *args: Any, **told: Any) -> None:
        """Make the reservation of a run, letting the event loop run."""
        call = read(*args, **told)
        if call is not None:
            reservation = self._taken(call) or await self._attempts(call, patient=True).acquire_async()
            self._runs.begin(call.run_id, reservation, asyncio.current_task())

    def _taken(self, call: _Call) -> Reservation | None:
        """What needs no waiting: the reservation of an outer layer, or one that only tracks."""
        claimed = self.limiter.claim(call.target) if call.alone else None
        if claimed is None and self.mode == "track":
            return self.limiter.track(call.target, call.estimate)
        return claimed

    def _attempts(self, call: _Call, *, patient: bool) -> Attempts:
        timeout = self._timeout if patient else 0
        return self.limiter.attempts(call.target, call.estimate, priority=self._priority, timeout=timeout)

    # -- and ends ------------------------------------------------------------------------------------------

    def on_llm_new_token(self, token: str, *, run_id: UUID, **_: Any) -> None:  # noqa: ARG002 - LangChain's hook
        """The request was sent: from now on, what the stream's consumer calls is another call."""
        self._sent(run_id)

    def on_stream_event(self, event: Any, *, run_id: UUID, **_: Any) -> None:  # noqa: ARG002 - LangChain's hook
        """As `on_llm_new_token`, of v3 event streams."""
        self._sent(run_id)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        """Settle the call with what it used."""
        call = self._runs.end(run_id)
        if call is None or call.done:  # a layer inside settles it
            return
        if counted_elsewhere(response):
            call.cancel()
        else:
            call.settle(with_input(call, usage_of_run(response)))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """End the call; what its provider refused closes the target for everybody as long as it says."""
        call = self._runs.end(run_id)
        if call is None or call.done:  # as above
            return
        if isinstance(error, GeneratorExit):  # maybe in a finalizer: nothing may be waited for
            call.abandon()
        else:
            call.fail(error)

    def _sent(self, run_id: UUID) -> None:
        call = self._runs.find(run_id)
        if call is not None:
            call.withdraw()


class RateLimitCallbackHandler(_Limits, BaseCallbackHandler):  # type: ignore[misc]  # hooks take what they use
    """Limits model calls from a callback: `model.invoke(..., config={"callbacks": [handler]})`.

    Give it to an invocation, a model, a chain or an agent; sync and async alike. Each chat or completion call waits
    until it is admitted, or is refused with the limiter's error before anything is sent; afterwards it is settled with
    what it used. Answers from LangChain's cache are free. It waits on the event loop without blocking it, and in
    threads; a synchronous call made on the event loop's own thread is refused where it would have to wait.

    A callback sees a call's two ends and no more: it cannot try it again, nor send it elsewhere, and it does not see
    the SDK's own retries (set the model's `max_retries=0`). `rate_limited(model, limiter)` does all that; both
    together count a call once. Where a model does not say what a stream used (ChatOpenAI with a base_url and without
    stream_usage=True), its text is counted. Embeddings have no callbacks: see RateLimitedEmbeddings.

    Args:
        limiter: whose limits.
        mode: "enforce" waits and refuses; "track" only accounts, and never stops a call.
        target: where all calls go, as `provider:model`; None finds it by what LangChain says of the model.
        provider: the name of the provider that all calls go to.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait; None waits for ever.

    Raises:
        ConfigError: an argument makes no sense.
    """


class AsyncRateLimitCallbackHandler(_Limits, AsyncCallbackHandler):  # type: ignore[misc]  # hooks that settle need no await
    """As RateLimitCallbackHandler, for code that asks for an AsyncCallbackHandler. Either serves both ways."""


@contextmanager
def get_rate_limit_callback(
    limiter: AnyLimiter, *, everywhere: bool = False, **options: Any
) -> Generator[RateLimitCallbackHandler]:
    """Limit every model call in the block, without handing a handler to anyone.

    Args:
        limiter: whose limits.
        everywhere: in all threads and tasks of the process, and not only in those that the block starts.
        options: as RateLimitCallbackHandler's.
    """
    handler = RateLimitCallbackHandler(limiter, **options)
    ambient = _ambient()
    if everywhere:
        before, ambient.everywhere = ambient.everywhere, handler
        try:
            yield handler
        finally:
            ambient.everywhere = before
        return
    token = ambient.here.set(handler)
    try:
        yield handler
    finally:
        ambient.here.reset(token)


class _Ambient:
    """The handler that LangChain adds to whatever is called; it asks as it would ask a context variable."""

    def __init__(self) -> None:
        self.here: ContextVar[BaseCallbackHandler | None] = ContextVar("agent_rate_limiter_callback", default=None)
        self.everywhere: BaseCallbackHandler | None = None
        register_configure_hook(self, inheritable=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def get(self) -> BaseCallbackHandler | None:
        return self.here.get() or self.everywhere


_ambients: list[_Ambient] = []


def _ambient() -> _Ambient:
    """LangChain keeps its hooks for ever, so there is one, made when it is first needed."""
    if not _ambients:
        _ambients.append(_Ambient())
    return _ambients[0]


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
