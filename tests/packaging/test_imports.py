"""Importing the root stays light: nothing heavy is loaded before it is needed."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

HEAVY = (
    "aiohttp", "anthropic", "click", "genai_prices", "google.genai", "httpx", "httpx2", "openai", "pydantic",
    "rich", "tenacity", "yaml",
)  # fmt: skip


@pytest.mark.parametrize("root", ["agent_rate_limiter", "agent_rate_limiter_adapters"])
def test_root_imports_nothing_heavy(root: str) -> None:
    code = f"import sys, {root}; print(*sorted(sys.modules.keys() & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("module", HEAVY)
def test_what_is_called_heavy_is_installed_here(module: str) -> None:
    """Else the test above could not fail."""
    assert find_spec(module)
