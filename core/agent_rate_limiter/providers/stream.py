"""Reading a stream's events, of any provider, for usage, failure and what has come so far."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from agent_rate_limiter.estimates import token_weight
from agent_rate_limiter.providers.model import Failure
from agent_rate_limiter.providers.responses import find_usage, normalised, served
from agent_rate_limiter.providers.shapes import fields, get, is_mapping, listed, mapping, mappings, parsed, words
from agent_rate_limiter.usage import Usage

# The events that end an answer, and their usage with it.
_LAST = words(
    "response.completed response.incomplete response.failed message_stop message-end stream-end "
    "interaction.completed transcript.text.done image_generation.completed image_edit.completed"
)
# The events that begin a stream, before there is anything of an answer.
_FIRST = words(
    "response.created response.queued response.in_progress response.content_part.added message_start ping "
    "content_block_start response.failed"  # the last one without an error: that follows (Azure)
)
_HOLDERS = words(
    "delta choices candidates content parts message tool_calls function functionCall function_call step "
    "contentBlockDelta toolUse reasoningContent"
)
_TEXTS = words(
    "text content refusal reasoning reasoning_content thinking partial_json arguments name input transcript "
    "tool_plan outputText generation completion"
)
_BEGIN = ("delta", "choices", "candidates", "contentBlockDelta", "outputText", "generation", "completion")
_USAGE_HOLDERS = words(
    "usage usageMetadata usage_metadata response message metadata x_groq interaction data meta "
    "amazon-bedrock-invocationMetrics"
)
_CALLS = words("args arguments input")


class StreamReader:
    """Reads one stream. Feed it every event; ask it when the stream has ended, or broken.

    Args:
        fail: what an event that holds an error means.
    """

    def __init__(self, fail: Callable[[Mapping[str, Any]], Failure]) -> None:
        self._fail = fail
        self._stated: dict[str, Any] = {}
        self._service = ""
        self._weight = 0.0
        self._answered = False
        self._final = False
        self.begun = False
        """Whether something of an answer has come: a call that was refused before that can be made anew."""
        self.failure: Failure | None = None
        """What an error inside the stream means; None while there is none."""

    @property
    def done(self) -> bool:
        """Whether the provider has said that the answer is complete; usage may still follow."""
        return self._answered or self._final or self.failure is not None

    @property
    def text_tokens(self) -> int:
        """An estimate of the output tokens seen so far."""
        return math.ceil(self._weight)

    @property
    def usage(self) -> Usage | None:
        """What was used: exact once the provider has stated the final numbers; None when nothing is known."""
        stated = normalised(self._stated, self._service)
        if stated is not None and self._final:
            return stated
        if stated is None:
            return Usage(output_tokens=self.text_tokens, exact=False) if self._weight else None
        seen = max(stated.output_tokens, self.text_tokens)
        return dataclasses.replace(stated, output_tokens=seen, exact=False)

    def feed(self, event: object) -> None:
        """Read one event: parsed SSE data, an EventStream event as `{type: payload}`, or an SDK's event object."""
        if event == "[DONE]":
            self._answered = True
            return
        event = _unwrapped(fields(event))
        if not event:
            return
        if self.failure is None and (error := _error_in(event)) is not None:
            self.failure = self._fail(error)
        self.begun = self.begun or (self.failure is None and not _opens(event))
        self._weight += _delta_weight(event)
        self._read_usage(event)

    def _read_usage(self, event: Mapping[str, Any]) -> None:
        last = _kind(event) in _LAST
        self._answered = self._answered or last or _finished(event)
        stating = last or any(name in _USAGE_HOLDERS and value is not None for name, value in event.items())
        found = find_usage(event) if stating else None
        if found is not None:
            # Anthropic states the input first and the output later: what is new goes over what is known.
            self._stated.update((name, value) for name, value in fields(found).items() if value is not None)
            self._service = served(event) or self._service
        whole = found is not None and (self._answered or _only_usage(event))
        self._final = self._final or whole or (last and bool(self._stated))


def _kind(event: Mapping[str, Any]) -> str:
    return str(event.get("type") or event.get("event_type") or "")


def _unwrapped(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Bedrock's InvokeModelWithResponseStream carries the model's own events as bytes, on the wire in base64."""
    content = mapping(event.get("chunk", event)).get("bytes")
    if isinstance(content, str):
        try:
            content = base64.b64decode(content, validate=True)
        except ValueError:
            return event
    return mapping(parsed(content)) or event if isinstance(content, bytes) else event


def _error_in(event: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The error that an event holds, in a form that `failure` reads."""
    if event.get("error"):
        return event
    if event.get("type") == "error":  # OpenAI Responses: the error's fields are the event's
        return event
    error = mapping(mapping(event.get("response")).get("error"))
    if error:
        return {"error": error}
    name = next((name for name in event if str(name).endswith("Exception")), None)  # Bedrock
    return None if name is None else {**mapping(event[name]), "__type": name}


def _opens(event: Mapping[str, Any]) -> bool:
    """Whether an event only begins an answer: no text yet, and what follows comes at once."""
    if _kind(event) == "response.output_item.added":  # reasoning may take minutes: that is not held back
        return mapping(event.get("item")).get("type") == "message"
    choices = mappings(event.get("choices"))
    return _kind(event) in _FIRST or "messageStart" in event or (bool(choices) and all(map(_is_empty, choices)))


def _is_empty(choice: Mapping[str, Any]) -> bool:
    delta = mapping(choice.get("delta"))
    return choice.get("finish_reason") is None and not any(delta[name] for name in delta if name != "role")


def _finished(event: Mapping[str, Any]) -> bool:
    """Whether an event says that an answer is complete."""
    answers = (*listed(event.get("choices")), *listed(event.get("candidates")))
    blocked = get(get(event, "prompt_feedback"), "block_reason")
    stopped = get(event.get("delta"), "stop_reason") if event.get("type") == "message_delta" else None
    return bool(
        any(get(answer, "finish_reason") for answer in answers)
        or blocked
        or stopped
        or event.get("messageStop")
        or event.get("stop_reason")
    )


def _only_usage(event: Mapping[str, Any]) -> bool:
    """The chunk of an OpenAI-style stream that brings the usage has no choices; Bedrock's is `metadata`."""
    return event.get("choices") == [] or "metadata" in event


def _delta_weight(event: Mapping[str, Any]) -> float:
    """Add up the new text in an event, and only in the parts that bring text: final events repeat it all."""
    kind = _kind(event)
    if "audio" in kind or kind.endswith(("-start", "-end")):
        return 0.0
    weight = 0.0
    parts = [event[name] for name in _BEGIN if name in event]
    while parts:
        part = parts.pop()
        if isinstance(part, str):
            weight += token_weight(part)
        elif is_mapping(part):
            weight += _texts(part, parts)
        else:
            parts.extend(mappings(part))
    return weight


def _texts(part: Mapping[str, Any], parts: list[Any]) -> float:
    weight = 0.0
    for key, value in part.items():
        if isinstance(value, str):
            weight += token_weight(value) if key in _TEXTS else 0.0
        elif key in _CALLS and is_mapping(value):
            weight += token_weight(str(value))
        elif key in _HOLDERS:
            parts.append(value)
    return weight
