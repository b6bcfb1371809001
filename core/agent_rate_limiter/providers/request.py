"""What a request to any provider asks for. The providers' paths and fields do not collide, so one reading serves all.

Nothing here raises, whatever body it is given.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from agent_rate_limiter.estimates import token_weight
from agent_rate_limiter.providers.shapes import is_mapping, listed, mapping, words
from agent_rate_limiter.usage import Estimate

_MODEL_IN_PATH = re.compile(
    r"/deployments/(?P<azure>[^/?]+)"
    r"|/(?:models|tunedModels|endpoints)/(?P<google>[^/?:]+):[A-Za-z]+(?:\?|$)"
    r"|/model/(?P<bedrock>[^/?]+)/(?:converse|invoke)"
)
_MODEL_CALLS = re.compile(
    r"""(?x) (?:
      /(?:chat/|fim/|agents/)?completions | /responses(?:/compact)? | /embeddings | /moderations | /videos
    | /images/(?:generations|edits|variations) | /audio/(?:speech|transcriptions|translations)   # OpenAI and alike
    | /messages | /complete                                                                      # Anthropic
    | :(?:streamGenerateContent|generateContent|embedContent|batchEmbedContents|generateAnswer|predict
        |rawPredict|streamRawPredict|predictLongRunning) | /interactions                         # Google
    | /model/[^/]+/(?:converse|converse-stream|invoke|invoke-with-response-stream)               # Bedrock
    | /v\d/(?:chat|embed|rerank|classify|generate|summarize) | /conversations | /ocr             # Cohere, Mistral
    ) /? (?:\?|$)"""
)
_WITHOUT_OUTPUT = re.compile(r"embed|rerank|moderations|/classify", re.IGNORECASE)

_PROMPT = words(
    "messages input prompt system instructions contents content systemInstruction system_instruction suffix query "
    "documents texts inputs requests instances inputText message chat_history preamble"
)
_SCHEMAS = ("tools", "functions", "toolConfig", "response_format", "text", "output_config", "output_format")
_MESSAGE_TOKENS = 4  # what marks a message's beginning, role and end (OpenAI's cookbook: 3 to 4)

# Inside a prompt: keys without text of their own, keys that hold JSON which the model sees as such, and media.
_SILENT = words(
    "type role id model name_id status detail index format url mime_type mimeType media_type cache_control "
    "cachePoint tool_call_id tool_use_id toolUseId call_id item_id signature thoughtSignature thought_signature "
    "encrypted_content taskType embedding_types input_type"
)
_JSON = words("input args arguments json response structuredContent functionResponse parameters")
_MEDIA_TYPES = words(
    "image image_url input_image image_file audio input_audio video input_video file input_file document"
)
_MEDIA_KEYS = words("inlineData inline_data fileData file_data image image_url input_audio audio video document bytes")

_MAX_OUTPUT: tuple[tuple[str, ...], ...] = (
    ("max_completion_tokens",),
    ("max_output_tokens",),
    ("max_tokens",),
    ("generationConfig", "maxOutputTokens"),  # Gemini
    ("generation_config", "max_output_tokens"),  # Gemini, Interactions
    ("inferenceConfig", "maxTokens"),  # Bedrock converse
    ("max_tokens_to_sample",),  # Anthropic, legacy
    ("textGenerationConfig", "maxTokenCount"),  # Bedrock invoke: Titan
    ("max_gen_len",),  # Bedrock invoke: Llama
)
_CHOICES: tuple[tuple[str, ...], ...] = (("n",), ("best_of",), ("generationConfig", "candidateCount"))
_MOST = 10**12


def model(path: str, body: object) -> str | None:
    """The model in a path (Azure, Google, Bedrock) or else in a body."""
    found = _MODEL_IN_PATH.search(path)
    if found is not None:
        return unquote(next(name for name in found.groups() if name))
    named = mapping(body).get("model")
    return named.removeprefix("models/") or None if isinstance(named, str) else None


def renamed(path: str, body: object, name: str) -> tuple[str | None, dict[str, Any] | None]:
    """The same request for another model: a changed path, or a changed body; neither where none names a model."""
    found = _MODEL_IN_PATH.search(path)
    if found is not None:
        group = next(group for group, value in found.groupdict().items() if value)
        return path[: found.start(group)] + quote(name, safe="") + path[found.end(group) :], None
    asked = mapping(body)
    return None, {**asked, "model": name} if isinstance(asked.get("model"), str) else None


def counted(method: str, path: str) -> bool:
    """Whether it is a model call."""
    return method.upper() == "POST" and _MODEL_CALLS.search(path) is not None


def estimate(path: str, body: object, media_tokens: int) -> Estimate:
    """The tokens of a request's text, tools and media, and the most that may come back."""
    asked = mapping(body)
    weight = _prompt_weight([value for key, value in asked.items() if key in _PROMPT], media_tokens)
    weight += sum(_json_weight(asked[key]) for key in _SCHEMAS if asked.get(key))
    choices = max(1, *(_at(asked, place) for place in _CHOICES))
    most = next((found for place in _MAX_OUTPUT if (found := _at(asked, place))), 0)
    if _WITHOUT_OUTPUT.search(path):
        most = 0
    guess = min(_MOST, math.ceil(weight))
    return Estimate(input_tokens=guess, max_output_tokens=min(_MOST, most * choices), exact=False)


def with_usage(path: str, body: object) -> dict[str, Any] | None:
    """Ask an OpenAI-style chat stream for its usage, unless the caller decided."""
    asked = mapping(body)
    if asked.get("stream") is not True or "completions" not in path:
        return None
    options = mapping(asked.get("stream_options"))
    if "include_usage" in options:
        return None
    return {**asked, "stream_options": {**options, "include_usage": True}}


def _prompt_weight(parts: list[object], media_tokens: int) -> float:
    """Add up a prompt without recursion: its nesting is the caller's."""
    weight = 0.0
    while parts:
        part = parts.pop()
        if isinstance(part, str):
            weight += token_weight(part)
        elif is_mapping(part):
            weight += _opened(part, parts, media_tokens)
        elif (pieces := listed(part)) and isinstance(pieces[0], int):
            weight += len(pieces)  # a prompt that is tokens already
        else:
            parts.extend(pieces)
    return weight


def _opened(block: Mapping[str, object], parts: list[object], media_tokens: int) -> float:
    """Put a block's text on the pile; return the weight of what is in it but no text."""
    source = mapping(block.get("source"))
    if str(source.get("type")) in {"text", "content"}:  # Anthropic: a document as text
        parts.append(source.get("data") or source.get("content"))
        return 0.0
    if str(block.get("type")) in _MEDIA_TYPES:
        return media_tokens
    weight = _MESSAGE_TOKENS if "role" in block else 0.0
    for key, value in block.items():
        if key in _MEDIA_KEYS and not isinstance(value, str):
            weight += media_tokens
        elif key in _JSON and is_mapping(value):
            weight += _json_weight(value)
        elif key not in _SILENT:
            parts.append(value)
    return weight


def _json_weight(value: object) -> float:
    try:
        return token_weight(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    except (TypeError, ValueError, RecursionError):
        return 0.0


def _at(body: Mapping[str, Any], place: tuple[str, ...]) -> int:
    value: object = body
    for key in place:
        value = mapping(value).get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
