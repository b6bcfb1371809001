"""What LangChain says that a call used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from langchain_core.messages.ai import add_usage
from langchain_core.outputs import ChatGeneration

from agent_rate_limiter import Usage
from agent_rate_limiter.providers import dialect, read_usage

if TYPE_CHECKING:
    from langchain_core.messages.ai import UsageMetadata
    from langchain_core.outputs import ChatResult, LLMResult


def usage_of_result(result: ChatResult) -> Usage | None:
    """The usage of a chat model's result: each generation states that of the whole call, or else is counted."""
    stated = (_stated(generation) for generation in result.generations)
    found = next((usage for usage in stated if usage is not None), None) or _of_output(result.llm_output)
    return found or _seen(result.generations)


def usage_of_run(response: LLMResult) -> Usage | None:
    """The usage of a run, as its end tells it: of a chat model, or of a completion."""
    generations = [generation for batch in response.generations for generation in batch]
    stated = (_stated(generation) for generation in generations if isinstance(generation, ChatGeneration))
    found = next((usage for usage in stated if usage is not None), None) or _of_output(response.llm_output)
    return found or _seen(generations)


def counted_elsewhere(response: LLMResult) -> bool:
    """Whether a run made no request of its own.

    LangChain's cache repeats the usage, with a cost of 0. Of prompts that went in one request, the first run states
    the usage, and the others an empty one.
    """
    generations = (generation for batch in response.generations for generation in batch)
    messages = (generation.message for generation in generations if isinstance(generation, ChatGeneration))
    stated: list[Any] = [getattr(message, "usage_metadata", None) or {} for message in messages]
    return any(usage.get("total_cost") == 0 for usage in stated) or (response.llm_output or {}).get("token_usage") == {}


class ChatMeter:
    """Reads along the chunks, or the protocol events, of a chat model's stream."""

    def __init__(self) -> None:
        self._stated: UsageMetadata | None = None
        self._seen = dialect("generic").reader()
        self._finished = False
        self.final = False

    def feed(self, item: Any) -> None:
        """Note a chunk or an event."""
        text, usage, finished = _event(item) if isinstance(item, Mapping) else _chunk(item)
        self._seen.feed({"delta": {"content": text}})
        self._finished = self._finished or finished
        if usage is not None:
            self._stated = add_usage(self._stated, usage)
        self.final = self._finished and (usage is not None or isinstance(item, Mapping))

    def usage(self, *, whole: bool) -> Usage | None:
        """What was used: exact once the model has finished, and stated it."""
        stated = None if self._stated is None else read_usage(self._stated)
        if stated is not None and (whole or self.final):
            return stated
        seen = self._seen.text_tokens
        if stated is not None:
            return replace(stated, output_tokens=max(seen, stated.output_tokens), exact=False)
        return Usage(output_tokens=seen, exact=False) if seen else None


def _stated(generation: Any) -> Usage | None:
    metadata = getattr(generation.message, "usage_metadata", None)
    return None if metadata is None else read_usage(metadata)


def _seen(generations: Iterable[Any]) -> Usage | None:
    """A guess by what has come, where nothing is stated; None when nothing has."""
    reader = dialect("generic").reader()
    for generation in generations:
        message = getattr(generation, "message", None)
        reader.feed({"delta": {"content": generation.text, "tool_calls": getattr(message, "tool_calls", None)}})
    return reader.usage


def _of_output(output: Mapping[str, Any] | None) -> Usage | None:
    told = output or {}
    return read_usage(told.get("token_usage") or told.get("usage"))


def _chunk(chunk: Any) -> tuple[str, UsageMetadata | None, bool]:
    message = chunk.message
    told: dict[str, Any] = {**message.response_metadata, **(chunk.generation_info or {})}
    calls = "".join(str(call.get("args") or "") for call in getattr(message, "tool_call_chunks", ()))
    finished = bool(told.get("finish_reason") or told.get("stop_reason")) or message.chunk_position == "last"
    return chunk.text + calls, message.usage_metadata, finished


def _event(event: Mapping[str, Any]) -> tuple[str, Any, bool]:
    delta: Mapping[str, Any] = event.get("delta") or {}
    text = delta.get("text") or delta.get("reasoning") or delta.get("args") or ""
    finished = event.get("event") == "message-finish"
    return str(text), event.get("usage") if finished else None, finished


def total_usage(usages: Sequence[Usage]) -> Usage | None:
    """Add usages up; None when there are none."""
    if not usages:
        return None
    first = usages[0]
    counts = [spec.name for spec in fields(Usage) if type(getattr(first, spec.name)) is int]
    sums = {name: sum(getattr(usage, name) for usage in usages) for name in counts}
    stated = [usage.cost for usage in usages if usage.cost is not None]
    cost = sum(stated) if len(stated) == len(usages) else None
    return replace(first, **sums, cost=cost, exact=all(usage.exact for usage in usages))
