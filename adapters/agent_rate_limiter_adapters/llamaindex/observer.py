"""What `instrument` does: it sees every model when it is called, and limits it from that call on.

Embedding models, and LLMs that call their provider by an SDK we know, are limited where they stand, as `rate_limited`
limits a copy. Any other LLM gets LlamaIndex's own hook, `rate_limiter`: the hook reserves, events and spans settle.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from agent_rate_limiter import ConfigError
from agent_rate_limiter_adapters.llamaindex.labels import labels
from agent_rate_limiter_adapters.llamaindex.twins import clients_of, limit, limits_of, made_by_method, unlimit

if TYPE_CHECKING:
    from agent_rate_limiter import Attempts, Reservation
    from agent_rate_limiter_adapters.llamaindex.limits import Call, Limits
    from agent_rate_limiter_adapters.llamaindex.requests import Meter


class Span:
    """One span of LlamaIndex's, and the call that was reserved in it.

    Args:
        model: the LLM whose method it is, if it is one's.
    """

    __slots__ = ("about", "meter", "model", "request", "reservation")

    def __init__(self, model: Any) -> None:
        self.model = model
        self.request: Any = None  # the event that tells what is asked
        self.about: Call | None = None
        self.reservation: Reservation | None = None
        self.meter: Meter | None = None  # of a stream

    @property
    def in_flight(self) -> bool:
        """Whether a call was reserved that has not ended."""
        return self.reservation is not None and not self.reservation.done

    def feed(self, item: Any) -> None:
        """Note an item of its stream."""
        if self.about is not None:
            self.meter = self.meter or self.about.meter()
            self.meter.feed(item)

    def settle(self, response: Any) -> None:
        """The call is over, and was answered; a stream's last item comes once more."""
        if self.in_flight and self.reservation is not None and self.about is not None:
            self.reservation.settle(self.about.usage(response) if self.meter is None else self.meter.usage(whole=True))

    def fail(self, error: BaseException) -> None:
        """The call has failed, or nobody reads on."""
        if isinstance(error, GeneratorExit):
            self.abandon()
        elif self.in_flight and self.reservation is not None:
            self.reservation.fail(error)

    def withdraw(self) -> None:
        """Its stream has begun, and so was sent: what else is called from now on is another call."""
        if self.reservation is not None:
            self.reservation.withdraw()

    def abandon(self) -> None:
        """Nobody reads its stream, or reads on; safe in a finalizer."""
        if self.in_flight and self.reservation is not None:
            self.reservation.abandon(None if self.meter is None else self.meter.usage(whole=False))


class Observer:
    """Follows all calls of LlamaIndex's models in this process.

    Args:
        limits: on which terms they are limited.
        ignore_unknown: let models pass that the limiter does not know, instead of refusing their calls.
    """

    def __init__(self, limits: Limits, *, ignore_unknown: bool) -> None:
        self.limits = limits
        self._ignore_unknown = ignore_unknown
        self._spans: dict[str, Span] = {}
        self._changed: dict[int, weakref.ref[Any]] = {}

    # ------------------------------------------------------------------ spans

    def entered(self, span_id: str, instance: Any) -> None:
        """Note a span that begins, and limit the model whose it is."""
        from llama_index.core.base.embeddings.base import BaseEmbedding
        from llama_index.core.base.llms.base import BaseLLM

        model = instance if isinstance(instance, BaseLLM) else None
        self._spans[span_id] = Span(model)
        if isinstance(instance, (BaseLLM, BaseEmbedding)):
            self._see(instance)

    def exited(self, span_id: str, result: Any) -> None:
        """Note a span that ends; the stream that it returned may not even be begun."""
        span = self._spans.pop(span_id, None)
        if span is None or not span.in_flight:
            return
        if hasattr(result, "__next__") or hasattr(result, "__anext__"):
            self._spans[span_id] = span  # its end is an event still to come
            weakref.finalize(result, self._lost, span_id).atexit = False
        else:
            span.settle(result)

    def dropped(self, span_id: str, error: BaseException | None) -> None:
        """Note a span that ends with an error."""
        span = self._spans.pop(span_id, None)
        if span is not None and error is not None:
            span.fail(error)

    def _lost(self, span_id: str) -> None:
        span = self._spans.pop(span_id, None)
        if span is not None:
            span.abandon()

    # ------------------------------------------------------------------ events

    def told(self, event: Any) -> None:
        """Read an event."""
        span = self._spans.get(event.span_id)
        if span is None:
            return
        kind = event.class_name()
        if kind in {"LLMChatStartEvent", "LLMCompletionStartEvent"}:
            span.request = event
        elif kind in {"LLMChatInProgressEvent", "LLMCompletionInProgressEvent"}:
            span.withdraw()
            span.feed(event.response)
        elif kind in {"LLMChatEndEvent", "LLMCompletionEndEvent"}:
            span.settle(event.response)
        elif kind == "ExceptionEvent":
            span.fail(event.exception)

    # ------------------------------------------------------------------ the hook

    def begin(self, span_id: str | None) -> tuple[Span, Attempts] | None:
        """Begin the call of the span in which the hook was called; None outside of LlamaIndex's spans."""
        span = self._spans.get(span_id or "")
        if span is None or span.request is None:
            return None
        event = span.request
        if hasattr(event, "messages"):
            call = self.limits.chat(span.model, event.messages, **event.additional_kwargs)
        else:
            options = {name: value for name, value in event.additional_kwargs.items() if name != "prompt"}
            call = self.limits.completion(span.model, event.prompt, **options)
        span.about = call
        return span, call.attempts

    # ------------------------------------------------------------------ models

    def _see(self, model: Any) -> None:
        if limits_of(model) is not None or _delegates(model) or isinstance(model.rate_limiter, Hook):
            return
        try:
            if _embeds(model) or made_by_method(model, self.limits) or clients_of(model, self.limits):
                limit(model, self.limits)
            else:
                self.limits.place(model)
                model.rate_limiter = Hook(self, model.rate_limiter)
        except ConfigError as error:
            if self._ignore_unknown:
                return
            model.rate_limiter = Hook(self, model.rate_limiter, error)
        self._changed[id(model)] = weakref.ref(model, self._forget(id(model)))

    def _forget(self, key: int) -> Any:
        changed = self._changed
        return lambda _: changed.pop(key, None)

    def restore(self) -> None:
        """Make all models what they were before."""
        for reference in list(self._changed.values()):
            model = reference()
            if model is None:
                continue
            if isinstance(model.rate_limiter, Hook):
                model.rate_limiter = model.rate_limiter.inner
            else:
                unlimit(model)
        self._changed.clear()


class Hook:
    """What LlamaIndex calls before it sends a model's request: `rate_limiter`.

    Args:
        observer: whose.
        inner: the user's own, which goes first.
        error: why the model cannot be called.
    """

    def __init__(self, observer: Observer, inner: Any, error: ConfigError | None = None) -> None:
        self.inner = inner
        self._observer = observer
        self._error = error

    def acquire(self, num_tokens: int = 0) -> None:
        """Reserve the call, blocking the thread."""
        if self.inner is not None:
            self.inner.acquire(num_tokens)
        begun = self._begin()
        if begun is not None:
            span, attempts = begun
            with self._observer.limits.limiter.scope(**labels()):
                self._hold(span, attempts.claim() or attempts.acquire())

    async def async_acquire(self, num_tokens: int = 0) -> None:
        """Reserve the call, letting the event loop run."""
        if self.inner is not None:
            await self.inner.async_acquire(num_tokens)
        begun = self._begin()
        if begun is not None:
            span, attempts = begun
            with self._observer.limits.limiter.scope(**labels()):
                call = attempts.claim() or await attempts.acquire_async()
            self._hold(span, call)

    def _begin(self) -> tuple[Span, Attempts] | None:
        from llama_index_instrumentation.span import active_span_id

        if self._error is not None:
            raise self._error
        return self._observer.begin(active_span_id.get())

    @staticmethod
    def _hold(span: Span, call: Reservation) -> None:
        span.reservation = call
        call.offer()  # to what it calls in turn: another method of the LLM's, or an SDK that is limited, too


def _embeds(model: Any) -> bool:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    return isinstance(model, BaseEmbedding)


def _delegates(model: Any) -> bool:
    """Whether it makes no request itself, but leaves it to another LLM."""
    from llama_index.core.llms.structured_llm import StructuredLLM

    return isinstance(model, StructuredLLM) or hasattr(model, "_ways") or type(model.rate_limiter).__name__ == "Counted"
