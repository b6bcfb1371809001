"""What a call is going to use, and what it did use, in the terms of providers' own requests and responses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agent_rate_limiter import Estimate, Usage
from agent_rate_limiter.providers import Dialect, read_usage

_OPTIONS = ("tools", "functions", "response_format", "max_completion_tokens", "max_output_tokens", "max_tokens", "n")
"""What of a call's options has tokens, or bounds them."""


def chat_estimate(dialect: Dialect, model: Any, messages: Iterable[Any], options: Mapping[str, Any]) -> Estimate:
    """Estimate a chat.

    Args:
        dialect: the provider's.
        model: the LLM, for its own options.
        messages: `ChatMessage`s.
        options: the call's own.
    """
    body = {**_bounds(model, options), "messages": [_message(message) for message in messages]}
    return dialect.estimate("/chat/completions", body)


def completion_estimate(dialect: Dialect, model: Any, prompt: str, options: Mapping[str, Any]) -> Estimate:
    """Estimate a completion, which chat models answer as a chat of one message."""
    return dialect.estimate("/chat/completions", {**_bounds(model, options), "messages": [_said("user", prompt)]})


def embedding_estimate(dialect: Dialect, texts: Sequence[str]) -> Estimate:
    """Estimate one request that embeds texts."""
    return dialect.estimate("/embeddings", {"input": list(texts)})


def usage_of(response: Any) -> Usage | None:
    """Read what a `ChatResponse` or `CompletionResponse` says was used; None when it does not say."""
    extra: Mapping[str, Any] = getattr(response, "additional_kwargs", None) or {}
    places = (getattr(response, "raw", None), extra.get("usage"), extra)
    return next((usage for place in places if (usage := read_usage(place)) is not None), None)


def text_of(response: Any) -> str:
    """Return all the text that has come: of a stream's item, too, as those repeat what came before."""
    message = getattr(response, "message", None)
    return str(getattr(response, "text", "") if message is None else message.content or "")


def guessed(dialect: Dialect, estimate: Estimate, text: str) -> Usage:
    """Return what a call used that does not say, by the text that came; it refunds nothing."""
    reader = dialect.reader()
    reader.feed({"choices": [{"delta": {"content": text}}]})
    return Usage(estimate.requests, estimate.input_tokens, reader.text_tokens, exact=False)


class Meter:
    """Reads along a stream.

    Args:
        dialect: the provider's.
        estimate: what the call was expected to use.
    """

    def __init__(self, dialect: Dialect, estimate: Estimate) -> None:
        self._dialect = dialect
        self._estimate = estimate
        self._reader = dialect.reader()  # of what the provider sent, as far as the LLM passes it on
        self._told: Usage | None = None  # what the LLM says itself
        self._pieces: list[str] = []
        self._last: Any = None

    def feed(self, item: Any) -> None:
        """Note an item of it."""
        self._last = item
        self._reader.feed(getattr(item, "raw", None))
        extra = getattr(item, "additional_kwargs", None) or {}
        self._told = read_usage(extra.get("usage")) or read_usage(extra) or self._told
        self._pieces.append(getattr(item, "delta", None) or "")

    @property
    def final(self) -> bool:
        """Whether the provider has said all that was used, although more items may come."""
        seen = self._reader.usage if self._reader.done else None
        return seen is not None and seen.exact

    def usage(self, *, whole: bool) -> Usage:
        """Say what was used: as the provider tells or the LLM, else by the text that came.

        Args:
            whole: whether the stream has come to its end; what it told before then may not be all.
        """
        seen = self._reader.usage
        if seen is not None and seen.exact:
            return seen
        told = self._told or (read_usage(getattr(self._last, "raw", None)) if whole else None)
        if told is not None:
            return replace(told, exact=whole)
        text = "".join(self._pieces) or ("" if self._last is None else text_of(self._last))
        return guessed(self._dialect, self._estimate, text)


def _bounds(model: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that count, as LLMs put them together: the call's go before what the LLM was made with."""
    own = {"max_tokens": getattr(model, "max_tokens", None), **(getattr(model, "additional_kwargs", None) or {})}
    given = {**own, **options}
    return {name: given[name] for name in _OPTIONS if given.get(name) is not None}


def _message(message: Any) -> dict[str, Any]:
    if isinstance(message, str):
        return _said("user", message)
    role = str(getattr(message.role, "value", message.role))
    blocks = [_block(block) for block in message.blocks]
    return {**_said(role, blocks), "tool_calls": message.additional_kwargs.get("tool_calls")}


def _said(role: str, content: object) -> dict[str, Any]:
    return {"role": role, "content": content}


def _block(block: Any) -> dict[str, Any]:
    """A part of a message, as OpenAI writes it."""
    kind = str(getattr(block, "block_type", "text"))
    if kind == "tool_call":
        return {"name": block.tool_name, "arguments": block.tool_kwargs}
    if kind in {"text", "thinking"}:
        return {"text": getattr(block, "text", None) or getattr(block, "content", None) or ""}
    if nested := getattr(block, "nested_blocks", None):
        return {"content": [_block(part) for part in nested]}
    return {} if kind == "cache" else {"type": kind}
