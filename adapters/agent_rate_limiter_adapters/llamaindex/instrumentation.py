"""`instrument(limiter)`: all of LlamaIndex's models in this process, without touching the program that uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent_rate_limiter_adapters.llamaindex.limits import Limits
from agent_rate_limiter_adapters.llamaindex.observer import Observer

if TYPE_CHECKING:
    from agent_rate_limiter import MultiProviderLimiter, RateLimiter

_active: list[tuple[Observer, Any, Any]] = []
"""The observer that is at work, with its event and span handlers."""


def instrument(
    limiter: RateLimiter | MultiProviderLimiter,
    *,
    provider: str | None = None,
    priority: int | None = None,
    timeout: float | None = None,
    include_usage: bool = True,
    ignore_unknown: bool = False,
) -> None:
    """Limit every call of LLMs and embedding models in this process, from their next call on.

    A model is seen when it is called, by a span handler of LlamaIndex's instrumentation, and is limited from that very
    call on: embedding models, and LLMs that use OpenAI's, Anthropic's or Google's SDK, as `rate_limited` would limit
    a copy, retries included. Other LLMs get LlamaIndex's own hook (`rate_limiter`), which reserves; events and spans
    settle; failed calls are theirs to retry. Models that are limited already are left as they are. Calls are labelled
    with `instrument_tags`, and with `run`, the workflow's run id.

    A second call takes the place of the first.

    Args:
        limiter: whose limits.
        provider: the name of the provider that all calls go to; None finds it for each model.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait; None waits for ever.
        include_usage: ask chat streams of OpenAI-like APIs to state their usage.
        ignore_unknown: let models pass that the limiter does not know (a local one, a mock), instead of refusing
            their calls with a ConfigError.
    """
    from llama_index_instrumentation import root_dispatcher

    uninstrument()
    limits = Limits(limiter, provider=provider, priority=priority, timeout=timeout, include_usage=include_usage)
    observer = Observer(limits, ignore_unknown=ignore_unknown)
    events, spans = _handlers(observer)
    root_dispatcher.add_event_handler(events)
    root_dispatcher.add_span_handler(spans)
    _active.append((observer, events, spans))


def uninstrument() -> None:
    """Limit no further calls; models that were limited become what they were before."""
    from llama_index_instrumentation import root_dispatcher as root

    while _active:
        observer, events, spans = _active.pop()
        root.event_handlers = [handler for handler in root.event_handlers if handler is not events]
        root.span_handlers = [handler for handler in root.span_handlers if handler is not spans]
        observer.restore()


def _handlers(observer: Observer) -> tuple[Any, Any]:
    """An event handler and a span handler; LlamaIndex swallows what they raise."""
    from llama_index_instrumentation.event_handlers import BaseEventHandler
    from llama_index_instrumentation.span_handlers import BaseSpanHandler

    class Events(BaseEventHandler):
        def handle(self, event: Any, **_: Any) -> None:
            observer.told(event)

    class Spans(BaseSpanHandler[Any]):
        # The dispatcher passes every argument by name: those that are not needed are left in **_.
        def new_span(self, id_: str, *, instance: Any = None, **_: Any) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
            observer.entered(id_, instance)

        def prepare_to_exit_span(self, id_: str, *, result: Any = None, **_: Any) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
            observer.exited(id_, result)

        def prepare_to_drop_span(self, id_: str, *, err: BaseException | None = None, **_: Any) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
            observer.dropped(id_, err)

    return Events(), Spans()
