"""What is public, where it comes from, and that nothing is loaded before it is used."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import agent_rate_limiter

PUBLIC = {
    "AcquireTimeout", "Alert", "AllTargetsFailed", "Attempts", "Budget", "BudgetExceeded", "ConfigError",
    "CostReport", "CostTracker", "Decision", "EACH", "Estimate", "Explanation", "Limit", "LimitExceeded",
    "LimitStatus", "LimiterClosed", "Model", "MultiProviderLimiter", "Price", "Priority", "Provider",
    "QuotaExhausted", "RateLimiter", "RateLimiterError", "RequestTooLarge", "Reservation", "ReservationError",
    "Resource", "RetryBudget", "RetryStrategy", "Scope", "Snapshot", "StoreUnavailable", "Target", "Usage",
    "__version__", "Advice", "ScopeBudget",
}  # fmt: skip
"""Names that users rely on: none may go away."""


def python(code: str) -> list[str]:
    """The lines that a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_what_users_rely_on_is_there() -> None:
    assert set(agent_rate_limiter.__all__) >= PUBLIC
    assert len(agent_rate_limiter.__all__) == len(set(agent_rate_limiter.__all__))


@pytest.mark.parametrize("name", sorted(agent_rate_limiter.__all__))
def test_every_public_name_is_found_and_documented(name: str) -> None:
    found = getattr(agent_rate_limiter, name)
    assert found is getattr(agent_rate_limiter, name)
    assert getattr(agent_rate_limiter, name, None) is vars(agent_rate_limiter)[name]  # and kept
    if isinstance(found, type):
        assert found.__module__.startswith("agent_rate_limiter.")
        assert found.__doc__


def test_types_and_run_time_know_the_same_names() -> None:
    """Type checkers see the block under TYPE_CHECKING; everybody else `__getattr__`."""
    tree = ast.parse(Path(str(agent_rate_limiter.__file__)).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed: dict[str, tuple[str | None, str]] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        typed |= {str(alias.asname): (node.module, alias.name) for alias in node.names}
    assert typed.keys() | {"__version__"} == set(agent_rate_limiter.__all__)
    for name, (module, original) in typed.items():
        assert name == original
        assert getattr(importlib.import_module(str(module)), original) is getattr(agent_rate_limiter, name)


def test_dir_lists_the_public_names() -> None:
    assert dir(agent_rate_limiter) == sorted(agent_rate_limiter.__all__)


@pytest.mark.parametrize("name", ["RateLimit", "limiter_", "_private"])
def test_other_names_are_not_there(name: str) -> None:
    with pytest.raises(AttributeError) as missing:
        getattr(agent_rate_limiter, name)
    assert str(missing.value) == f"module 'agent_rate_limiter' has no attribute {name!r}"
    assert not hasattr(agent_rate_limiter, name)


def test_a_star_import_brings_all_of_it() -> None:
    assert python("from agent_rate_limiter import *; print(*sorted(globals()))")[0].split() == sorted(
        set(agent_rate_limiter.__all__)
        | {"__annotations__", "__builtins__", "__doc__", "__loader__", "__name__", "__package__", "__spec__"}
    )


def test_importing_the_root_loads_none_of_its_modules() -> None:
    loaded = python(
        "import sys, agent_rate_limiter as root\n"
        "def ours(): return sorted(name for name in sys.modules if name.startswith('agent_rate_limiter.'))\n"
        "print(*ours()); root.__version__; dir(root); print(*ours())\n"
        "root.Estimate; print(*ours())"
    )
    needed = ("errors", "lazy", "plain", "redaction", "usage")
    assert loaded == [
        "agent_rate_limiter.lazy",
        "agent_rate_limiter.lazy",
        " ".join(f"agent_rate_limiter.{name}" for name in needed),
    ]


def test_a_whole_call_needs_nothing_but_the_standard_library() -> None:
    """Configuration needs pydantic; a `RateLimiter` does not."""
    code = (
        "import sys; from agent_rate_limiter import RateLimiter, Usage\n"
        "before = set(sys.modules)\n"
        "limiter = RateLimiter(rpm=5, tpm=1_000)\n"
        "with limiter.reserve(input_tokens=5) as call: call.settle(Usage(input_tokens=3))\n"
        "roots = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)\n"
        "print(*sorted(roots - {'__main__'} - {name for name in roots if name.startswith(('_', 'sitecustomize'))}))"
    )
    measuring = {"coverage", "$coverage"}  # the child is measured, too
    assert set(python(code)[0].split()) - measuring <= {"agent_rate_limiter", "typing_extensions"}


def test_a_ledgers_file_alone_loads_neither_the_engine_nor_asyncio() -> None:
    loaded = python(
        "import sys, agent_rate_limiter.ledger.sqlite\n"
        "print('asyncio' in sys.modules, 'agent_rate_limiter.engine.shared' in sys.modules)"
    )
    assert loaded == ["False False"]


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert agent_rate_limiter.__version__ == version("agent-rate-limiter")


def test_every_module_says_what_it_is_for() -> None:
    root = Path(str(agent_rate_limiter.__file__)).parent
    for path in root.glob("*.py"):
        if path.stem != "__main__":
            module: ModuleType = importlib.import_module(f"agent_rate_limiter.{path.stem}".removesuffix(".__init__"))
            assert module.__doc__, path
