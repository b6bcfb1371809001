"""The usage in any provider's response: SDK objects, pydantic models and dicts alike, told apart by their fields.

Whatever is not a count reads as none; nothing here raises, calls a method of a response or touches the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from agent_rate_limiter.providers.shapes import get, is_list, listed, parsed, plain
from agent_rate_limiter.usage import Usage

_MOST = 10**15


_Places = tuple[tuple[str, ...], ...]


def _places(*dotted: str) -> _Places:
    """Names, split where one is looked up in the other."""
    return tuple(tuple(name.split(".")) for name in dotted)


# Where usage is, in responses and in stream events.
_PLACES = _places(
    "usage",  # OpenAI, Anthropic, Bedrock, Mistral, Groq, Cohere v2, OpenRouter
    "usage_metadata",  # Gemini; LangChain's messages
    "response.usage",  # OpenAI Responses: response.completed
    "message.usage",  # Anthropic: message_start
    "metadata.usage",  # Bedrock ConverseStream: metadata
    "x_groq.usage",  # Groq: the final chunk
    "interaction.usage",  # Gemini Interactions: interaction.completed
    "delta.usage",  # Cohere v2: message-end
    "meta",  # Cohere v1 and embeddings
    "response.meta",  # Cohere v1: stream-end
    "amazon-bedrock-invocationMetrics",  # Bedrock InvokeModelWithResponseStream: the last chunk
    "ResponseMetadata.HTTPHeaders",  # Bedrock InvokeModel through boto3
    "response.body.usage",  # a line of a batch's results: OpenAI, Azure, Mistral
    "result.message.usage",  # likewise: Anthropic
    "data.usage",  # Mistral's SDK: an event
)
_BODIES = ("_content", "_body")
_WITHIN = ("raw", "http_response", "_response")  # LlamaIndex's `raw`; raw-response objects of OpenAI-style SDKs

# Where the counts are, the first place that holds one; what is in snake case here may be in camel case there.
_INPUT = _places(
    "prompt_tokens",
    "input_tokens",
    "prompt_token_count",  # Gemini
    "total_input_tokens",  # Gemini Interactions
    "tokens.input_tokens",  # Cohere
    "billed_units.input_tokens",
    "input_token_count",  # Bedrock InvokeModel
    "x-amzn-bedrock-input-token-count",
)
_OUTPUT = _places(
    "completion_tokens",
    "output_tokens",
    "candidates_token_count",
    "response_token_count",
    "total_output_tokens",
    "tokens.output_tokens",
    "billed_units.output_tokens",
    "output_token_count",
    "x-amzn-bedrock-output-token-count",
)
_IN_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details")  # the last: LangChain, realtime
_OUT_DETAILS = ("completion_tokens_details", "output_tokens_details", "output_token_details")


def _within(details: tuple[str, ...], *names: str) -> _Places:
    return tuple((detail, name) for detail in details for name in names)


_CACHED_APART = _places("cache_read_input_tokens", "cache_read_input_token_count")
_WRITTEN_APART = _places("cache_creation_input_tokens", "cache_write_input_tokens", "cache_write_input_token_count")
_CACHED = (
    *_within(_IN_DETAILS, "cached_tokens", "cache_read"),
    *_CACHED_APART,
    *_places("cached_content_token_count", "total_cached_tokens", "prompt_cache_hit_tokens", "cached_tokens"),
)
_WRITTEN = (
    *_within(_IN_DETAILS, "cache_write_tokens", "cache_creation_tokens", "cache_creation"),
    *_WRITTEN_APART,
)
_WRITTEN_5M = _within(("cache_creation", "input_token_details"), "ephemeral_5m_input_tokens")
_WRITTEN_1H = _within(("cache_creation", "input_token_details"), "ephemeral_1h_input_tokens")
_TOOL_USE = _places("tool_use_prompt_token_count", "total_tool_use_tokens")  # Gemini: input beside the prompt
_THOUGHTS = _places("thoughts_token_count", "total_thought_tokens")  # Gemini: output beside the candidates
_REASONING = (*_within(_OUT_DETAILS, "reasoning_tokens", "thinking_tokens", "reasoning"), *_THOUGHTS)
_TOTAL = _places("total_tokens", "total_token_count")
_PROMPT_TOKENS = _places("prompt_tokens")
_COUNTED_INPUT = _places("input_tokens")
_AUDIO = _places("audio_tokens", "audio")
_IN_MODALITIES = (*_IN_DETAILS, "input_tokens_by_modality")
_OUT_MODALITIES = (*_OUT_DETAILS, "candidates_tokens_details", "output_tokens_by_modality")
_LISTED_COUNT = _places("token_count", "tokens")

# How the call was served: OpenAI and Groq say so beside the usage, Anthropic and Gemini in it.
_SERVICE = _places("service_tier", "response.service_tier", "traffic_type")
_SERVICES: Mapping[str, str] = {
    "auto": "",
    "default": "",
    "on_demand": "",  # Groq, Vertex
    "on_demand_flex": "flex",
    "on_demand_priority": "priority",
    "provisioned_throughput": "",
    "standard": "",  # Anthropic, Gemini
    "traffic_type_unspecified": "",
    "unspecified": "",
}


def read_usage(response: object) -> Usage | None:
    """Read what any provider's response says was used.

    Args:
        response: an SDK's response or stream event, a pydantic model, a parsed JSON body, or a usage object itself;
            also a raw HTTP response whose body has been read.

    Returns:
        The usage, in this library's terms: input includes cached tokens, output includes reasoning. None when the
        response states none.
    """
    return _read(response, depth=3)


def _read(response: object, depth: int) -> Usage | None:
    if response is None or isinstance(response, Usage):
        return response
    found = find_usage(response)
    if found is not None:
        return normalised(found, served(response))
    # httpx and requests keep a body in the first, aiohttp in the second, once it has been read
    content = next((body for name in _BODIES if isinstance(body := get(response, name), bytes)), None)
    if content is not None:
        return _read(parsed(content), depth - 1) if depth else None
    inner = (_read(get(response, name), depth - 1) for name in _WITHIN) if depth else ()
    return next((usage for usage in inner if usage is not None), None)


def find_usage(response: object) -> object | None:
    """Find the usage object in a response or an event; None when there is none with counts in it."""
    for place in _PLACES:
        found: object = _at(response, place)
        if found is not None and _states_usage(found):
            return found
    whole = plain(response)
    return whole if _states_usage(whole) else None


def served(response: object) -> str:
    """How a response or an event says that the call was served: "batch", "flex", …; empty for the usual way."""
    if get(response, "custom_id") is not None:  # only the results of batches have one
        return "batch"
    for place in _SERVICE:
        value = _at(response, place)
        value = getattr(value, "value", value)
        if isinstance(value, str) and value:
            word = value.lower()
            return _SERVICES.get(word, word)
    return ""


def normalised(usage: object, service: str = "") -> Usage | None:
    """Turn any provider's usage object into a `Usage`; None when it holds no counts.

    Args:
        usage: the object.
        service: how the response around it says that the call was served.
    """
    prompt, produced = _count(usage, _INPUT), _count(usage, _OUTPUT)
    if prompt is None and produced is None:
        return None
    cached, written, written_1h = _cache(usage)
    reasoning = _count(usage, _REASONING) or 0
    input_tokens = (prompt or 0) + (_count(usage, _TOOL_USE) or 0)
    if _count(usage, _PROMPT_TOKENS) is None:  # Anthropic and Bedrock leave the cache out; LiteLLM does not
        input_tokens += (_count(usage, _CACHED_APART) or 0) + (_count(usage, _WRITTEN_APART) or 0)
    output_tokens = (produced or 0) + _reasoning_apart(usage, prompt or 0, produced or 0, reasoning)
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=min(cached, input_tokens),
        cache_write_tokens=min(written, input_tokens),
        cache_write_1h_tokens=min(written_1h, written, input_tokens),
        reasoning_tokens=min(reasoning, output_tokens),
        input_audio_tokens=min(_audio(usage, _IN_MODALITIES), input_tokens),
        output_audio_tokens=min(_audio(usage, _OUT_MODALITIES), output_tokens),
        cost=_cost(usage),
        service_tier=service or served(usage),
    )


def _at(thing: object, place: tuple[str, ...]) -> Any:
    for name in place:
        thing = get(thing, name)
        if thing is None:
            return None
    return plain(thing)


def _states_usage(usage: object) -> bool:
    return _count(usage, _INPUT) is not None or _count(usage, _OUTPUT) is not None


def _count(usage: object, places: _Places) -> int | None:
    """The first place that holds a count; Cohere writes whole numbers as floats, AWS's headers as text."""
    for place in places:
        value = _at(usage, place)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 15:  # noqa: PLR2004 - _MOST
            value = int(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _MOST:
            return int(value)
    return None


def _cache(usage: object) -> tuple[int, int, int]:
    cached, written = _count(usage, _CACHED) or 0, _count(usage, _WRITTEN) or 0
    written_1h = _count(usage, _WRITTEN_1H) or _bedrock_1h(usage)
    # LangChain sets cache_creation to 0 where it states the two lifetimes.
    return cached, max(written, (_count(usage, _WRITTEN_5M) or 0) + written_1h), written_1h


def _bedrock_1h(usage: object) -> int:
    details = listed(get(usage, "cache_details"))
    return sum(_count(part, _COUNTED_INPUT) or 0 for part in details if get(part, "ttl") == "1h")


def _reasoning_apart(usage: object, prompt: int, produced: int, reasoning: int) -> int:
    """Reasoning that the output does not include: Gemini's always, xAI's by its total."""
    thoughts = _count(usage, _THOUGHTS)
    if thoughts is not None:
        return thoughts
    return reasoning if reasoning and _count(usage, _TOTAL) == prompt + produced + reasoning else 0


def _audio(usage: object, details: tuple[str, ...]) -> int:
    for name in details:
        detail = plain(get(usage, name))
        if detail is None:
            continue
        if is_list(detail):  # Gemini lists tokens by modality
            return sum(_count(part, _LISTED_COUNT) or 0 for part in listed(detail) if _is_audio(part))
        stated = _count(detail, _AUDIO)
        if stated is not None:
            return stated
    return 0


def _is_audio(part: object) -> bool:
    modality = get(part, "modality")
    return str(getattr(modality, "value", modality)).upper() == "AUDIO"


def _cost(usage: object) -> float | None:
    """Dollars as the provider states them: OpenRouter's credits, plus what a key of one's own costs upstream."""
    cost = get(usage, "cost")
    if not _amount(cost):
        return None
    upstream = _at(usage, ("cost_details", "upstream_inference_cost")) if get(usage, "is_byok") is True else None
    return float(cost + upstream) if _amount(upstream) else float(cost)


def _amount(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 <= value < _MOST  # type: ignore[arg-type,operator]
