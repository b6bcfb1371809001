"""What users get, built and installed with the source out of reach."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command; what it printed, or a failure with everything it said."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the built wheel and no extra, used from an empty directory."""

    directory: Path

    @property
    def bin(self) -> Path:
        return self.directory / ("Scripts" if os.name == "nt" else "bin")

    @property
    def cwd(self) -> Path:
        return self.directory.parent

    def python(self, code: str) -> str:
        return run(self.bin / "python", "-I", "-W", "error", "-c", code, cwd=self.cwd).strip()


def needed_by(*requirements: str) -> list[Distribution]:
    """The installed distributions that these requirements ask for on this Python, to the last one."""
    waiting = [Requirement(text) for text in requirements]
    found: dict[tuple[str, frozenset[str]], Distribution] = {}
    while waiting:
        wanted = waiting.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in found:
            continue
        found[key] = distribution(wanted.name)
        waiting += _requirements(found[key], wanted.extras)
    return list({dist.name: dist for dist in found.values()}.values())


def _requirements(dist: Distribution, extras: Iterable[str] = ()) -> list[Requirement]:
    parsed = [Requirement(text) for text in dist.requires or ()]
    asked = ["", *extras]
    return [it for it in parsed if not it.marker or any(it.marker.evaluate({"extra": e}) for e in asked)]


def link(distributions: Iterable[Distribution], site: Path) -> None:
    """Make distributions of this environment importable from another: an install that needs no network."""
    for dist in distributions:
        tops = {file.parts[0] for file in dist.files or ()} - {"..", "__pycache__"}
        for top in tops:
            (site / top).symlink_to(str(dist.locate_file(top)))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the sdist, and the wheel that was built from that sdist."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return out


@pytest.fixture(scope="session")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel with its own dependencies, and nothing else."""
    venv = Installed(tmp_path_factory.mktemp("installed") / "venv")
    run(sys.executable, "-m", "venv", "--without-pip", venv.directory, cwd=venv.cwd)
    pip = (sys.executable, "-m", "pip", "--python", venv.bin / "python", "install", "--no-deps", "--no-index")
    run(*pip, *built.glob("*.whl"), cwd=venv.cwd)
    site = Path(venv.python("import sysconfig; print(sysconfig.get_path('purelib'))"))
    core = [str(it) for it in _requirements(distribution("agent-rate-limiter"))]
    link(needed_by(*core), site)
    return venv
