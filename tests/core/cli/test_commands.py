"""The command line as a whole: how it starts, helps, and says what is missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from agent_rate_limiter import __version__
from tests.core.cli.conftest import Done

MODULE = [sys.executable, "-m", "agent_rate_limiter"]


def test_module_and_command_are_the_same(command: Callable[..., Done]) -> None:
    done = subprocess.run([*MODULE, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"agent-rate-limiter, version {__version__}\n"
    assert command("--version").stdout == done.stdout


def test_help_names_every_command(command: Callable[..., Done]) -> None:
    done = command("-h")
    assert done.code == 0
    for name in ("demo", "simulate", "check", "costs", "presets"):
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("click", ["--help"], "cli"),
        ("rich", ["check", "limits.yaml"], "cli"),
        ("openai", ["demo", "--quick"], "demo"),
        ("aiohttp", ["simulate", "--port", "0"], "demo"),
    ],
)
def test_a_missing_extra_is_one_line(missing: str, arguments: list[str], extra: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = {arguments!r}\n"
        "from agent_rate_limiter.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    line = f"agent-rate-limiter needs {missing} for this: pip install 'agent-rate-limiter[{extra}]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


def test_an_import_that_fails_for_another_reason_is_not_hidden() -> None:
    code = "import sys; sys.modules['yaml'] = None; sys.argv[1:] = ['check', 'limits.yaml']\n"
    code += "from agent_rate_limiter.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr
    assert "yaml" in done.stderr


def test_help_loads_neither_rich_nor_an_sdk() -> None:
    code = (
        "import sys; sys.argv[1:] = ['demo', '--help']\n"
        "from agent_rate_limiter.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted({'rich', 'openai', 'aiohttp', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
