"""The built wheel works with the source gone and no extra installed."""

from __future__ import annotations

import os
import subprocess
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from tests.packaging.conftest import ROOT, Installed, link, needed_by, run


def source_files() -> set[str]:
    roots = (ROOT / "core", ROOT / "adapters")
    found = ((path, root) for root in roots for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix() for path, root in found if "__pycache__" not in path.parts}


def test_wheel_holds_every_source_file_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    packaged = {name for name in names if ".dist-info/" not in name}
    assert packaged == source_files()
    assert {"agent_rate_limiter/py.typed", "agent_rate_limiter_adapters/py.typed"} <= packaged
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_sdist_packs_no_environment(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        tops = {PurePosixPath(name).parts[1] for name in archive.getnames() if "/" in name}
    documents = {"README.md", "CHANGELOG.md", "LICENSE"}
    assert tops - {".gitignore"} == documents | {
        "core", "adapters", "tests", "docs", "notebooks", "pyproject.toml", "PKG-INFO",
    }  # fmt: skip


def test_every_public_name_needs_no_extra(installed: Installed) -> None:
    code = """
import agent_rate_limiter, agent_rate_limiter_adapters
for name in agent_rate_limiter.__all__:
    getattr(agent_rate_limiter, name)
print(agent_rate_limiter.__file__, agent_rate_limiter_adapters.__file__, sep="\\n")
"""
    files = installed.python(code).splitlines()
    assert [Path(file).is_relative_to(installed.directory) for file in files] == [True, True]


def test_a_first_program_runs(installed: Installed) -> None:
    code = """
from agent_rate_limiter import MultiProviderLimiter, Provider
openai = Provider(name="openai", models={"gpt-4": {"rpm": 500, "tpm": 10000}})
limiter = MultiProviderLimiter(providers=[openai])

@limiter.limit(provider="openai", model="gpt-4", priority=1)
def answer(prompt):
    return prompt.upper()

print(answer("hello"))
"""
    assert installed.python(code) == "HELLO"


def test_adapters_are_found_without_their_frameworks(installed: Installed) -> None:
    code = """
from importlib.metadata import entry_points
for point in entry_points(group="agent_rate_limiter.adapters"):
    point.load()
    print(point.name)
"""
    assert sorted(installed.python(code).split()) == [
        "anthropic", "crewai", "google", "httpx", "httpx2", "langchain_core", "llama_index", "openai",
    ]  # fmt: skip


def test_command_without_its_extra_says_what_to_install(installed: Installed) -> None:
    command = [str(installed.bin / "agent-rate-limiter"), "demo"]
    done = subprocess.run(command, cwd=installed.cwd, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert "agent-rate-limiter[" in done.stderr
    assert "Traceback" not in done.stderr


def test_pytest_plugin_disturbs_nobody_without_its_extra(installed: Installed, tmp_path: Path) -> None:
    link(needed_by("pytest"), tmp_path)
    (tmp_path / "test_theirs.py").write_text("def test_it():\n    assert True\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    said = run(installed.bin / "python", "-m", "pytest", "-p", "no:cacheprovider", cwd=tmp_path, env=env)
    assert "agent-rate-limiter-0.1.0" in said
    assert "1 passed" in said
