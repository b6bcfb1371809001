"""A model that does what it is asked: calls its tools once, with arguments that fit, then answers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from agent_rate_limiter.testing.simulated.calls import Call
from agent_rate_limiter.testing.simulated.options import Said, ToolCall

_NUMBER = re.compile(r"\d+")
_QUOTED = re.compile(r"'([^']+)'")


class Answer(BaseModel):
    """An answer."""

    text: str
    number: int


def multiply(a: int, b: int) -> int:
    """Multiply."""
    return a * b


def oblige(call: Call) -> Said:
    """What the model says."""
    messages = call.body.get("messages") or []
    asked = _text(messages[-1]) if messages else ""
    tools = [_function(tool) for tool in call.body.get("tools") or []]
    if tools and not _answered(messages[-1]):
        choice = (call.body.get("tool_choice") or {}) if isinstance(call.body.get("tool_choice"), Mapping) else {}
        chosen = _function(choice).get("name")
        tool = next((tool for tool in tools if tool["name"] == chosen), tools[0])
        schema = tool.get("parameters") or tool.get("input_schema") or {}
        return ToolCall(tool["name"], _value(schema, asked))
    if call.schema is not None:
        return json.dumps(_value(call.schema, asked))
    return "They wait for their turn, and then they go on with what they were asked to do. " * 2


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    inner: Mapping[str, Any] = tool.get("function", tool)
    return inner


def _answered(message: Mapping[str, Any]) -> bool:
    blocks = message.get("content")
    results = isinstance(blocks, list) and any(block.get("type") == "tool_result" for block in blocks)
    return message.get("role") == "tool" or results


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(str(block.get("text", "")) for block in content)


def _value(schema: Mapping[str, Any], asked: str) -> Any:
    """A value that fits a schema, taken from what was asked where it can be."""
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        return {name: _value(inner, asked) for name, inner in schema.get("properties", {}).items()}
    if kind in {"integer", "number"}:
        found = _NUMBER.search(asked)
        return int(found[0]) if found else 0
    quoted = _QUOTED.search(asked)
    return {"boolean": True, "array": []}.get(str(kind), quoted[1] if quoted else "ready")
