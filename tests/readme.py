"""The README's blocks, and who runs them: those that import a framework run in that framework's own tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agent_rate_limiter.testing import SimulatedProvider

if TYPE_CHECKING:
    import pytest

README = Path(__file__).parents[1] / "README.md"
FRAMEWORKS = {"langchain": "langchain|langgraph", "crewai": "crewai", "llamaindex": "llama_index"}
"""Folder of tests → the modules whose import makes a block its own (as the beginning of their names)."""

_BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    """Return language and content of every block, in the order in which they are read."""
    return [(found["language"], found["content"]) for found in _BLOCK.finditer(README.read_text(encoding="utf-8"))]


def framework_of(code: str) -> str | None:
    """Return the framework that a block imports; None for all others."""
    for name, modules in FRAMEWORKS.items():
        if re.search(rf"^(from|import) ({modules}|agent_rate_limiter_adapters\.{name}\b)", code, re.MULTILINE):
            return name
    return None


def run_framework(name: str) -> dict[str, object]:
    """Run a framework's blocks, after the README's first, which makes `limiter`; return all names they make."""
    python = [content for language, content in blocks() if language == "python"]
    own = [content for content in python if framework_of(content) == name]
    assert own, f"the README has no block that imports {name}"
    names: dict[str, object] = {"__name__": "readme"}
    for content in [python[0], *own]:
        exec(compile(content, "README.md", "exec"), names)  # noqa: S102 - it is what users run
    return names


@contextmanager
def at_a_provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedProvider]:
    """The environment of a user: a key, and an OpenAI that answers."""
    with SimulatedProvider() as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        yield provider
