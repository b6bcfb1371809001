"""Deterministic text: how the simulated provider counts tokens, draws numbers and writes answers.

The whole tokenizer is one rule, so that a test can compute every number by hand: **four characters are one
token**, rounded up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

CHARACTERS_PER_TOKEN = 4
MEDIA_CHARACTERS = 1024
"""What an image, an audio clip or a file counts as: 256 tokens."""

_MEDIA = {"image_url", "input_image", "image", "input_audio", "audio", "file", "input_file", "document"}
_STRUCTURE = {"role", "type", "id", "call_id", "tool_call_id", "tool_use_id", "status", "cache_control"}
_WORDS = (
    "allandanyaskbigbutcandaydidendfewforgethashowitskeyletmaynewnotnowoneouroutownputrunsaysee"
    "setshesixsumtenthetwousewaswaywhowhyyesyet"
)


def count_tokens(text: str) -> int:
    """The tokens of a text: a quarter of its characters, rounded up."""
    return tokens_of(len(text))


def tokens_of(characters: int) -> int:
    """The tokens that this many characters make: a quarter, rounded up."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def characters(content: object) -> int:
    """The characters of everything a model would read in messages, instructions or parts.

    Roles, types and ids are structure and count nothing; an image, audio clip or file counts
    `MEDIA_CHARACTERS`, whatever its size.
    """
    if isinstance(content, str):
        return len(content)
    if isinstance(content, list):
        return sum(characters(item) for item in cast("list[object]", content))
    if isinstance(content, dict):
        return _part_characters(cast("dict[str, object]", content))
    return 0


def _part_characters(part: dict[str, object]) -> int:
    if part.get("type") in _MEDIA or "inlineData" in part or "fileData" in part:
        return MEDIA_CHARACTERS
    return sum(characters(value) for key, value in part.items() if key not in _STRUCTURE)


def compact(value: object) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"))


def json_characters(value: object) -> int:
    """The characters of a tool list or a schema, written as compact JSON; none if there is none."""
    return len(compact(value)) if value else 0


class Dice:
    """Numbers drawn from a hash of a key: the same on every machine and Python, whatever the timing.

    Args:
        key: what the numbers depend on: the seed, the request's content, how often that was seen before.
    """

    def __init__(self, *key: object) -> None:
        self._key = repr(key)

    def bytes(self, label: str, size: int) -> bytes:
        """That many bytes, for a purpose named by the label."""
        return hashlib.shake_256(f"{label}|{self._key}".encode()).digest(size)

    def fraction(self, label: str) -> float:
        """A number from 0 up to, but not including, 1."""
        return int.from_bytes(self.bytes(label, 6), "big") / 2**48

    def integer(self, label: str, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int.from_bytes(self.bytes(label, 8), "big") % (high - low + 1)


def write(tokens: int, dice: Dice) -> str:
    """A text of exactly this many tokens: words of three letters, each with what follows it."""
    if tokens <= 0:
        return ""
    places = (byte * 3 % len(_WORDS) for byte in dice.bytes("text", tokens))
    return " ".join(_WORDS[place : place + 3] for place in places).capitalize() + "."


def example(schema: Mapping[str, Any], dice: Dice) -> object:
    """The smallest value that a JSON schema accepts, for answers that must parse.

    Knows objects, arrays, strings, numbers, booleans, enum, const, anyOf/oneOf/allOf and local `$ref`; not
    string patterns.
    """
    return _example(schema, schema, dice)


def _example(schema: Mapping[str, Any], root: Mapping[str, Any], dice: Dice) -> object:
    if "$ref" in schema:
        return _example(_resolve(schema["$ref"], root), root, dice)
    for choice in ("anyOf", "oneOf", "allOf"):
        if schema.get(choice):
            return _example(schema[choice][0], root, dice)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    kind = schema.get("type", "object")
    kind = str(cast("list[object]", kind)[0] if isinstance(kind, list) else kind).lower()
    if kind == "object":
        return {name: _example(part, root, dice) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [_example(schema.get("items", {}), root, dice)] * max(1, int(schema.get("minItems", 1)))
    return _scalar(kind, schema, dice)


def _scalar(kind: str, schema: Mapping[str, Any], dice: Dice) -> object:
    if kind in {"integer", "number"}:
        return schema.get("minimum", 1)
    if kind == "boolean":
        return True
    return write(max(2, tokens_of(int(schema.get("minLength", 0)))), dice) if kind == "string" else None


def _resolve(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    node: Any = root
    for step in reference.removeprefix("#/").split("/"):
        node = node[step]
    return cast("Mapping[str, Any]", node)
