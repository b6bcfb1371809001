"""`agent-rate-limiter simulate`: a server for programs in any language."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.core.cli.conftest import Done

Command = Callable[..., Done]

SIMULATE = [sys.executable, "-m", "agent_rate_limiter", "simulate", "--port", "0"]


def ask(base_url: str, model: str = "gpt-4") -> int:
    """The status of one call."""
    body = json.dumps({"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}).encode()
    request = Request(f"{base_url}/chat/completions", body, {"content-type": "application/json"})  # noqa: S310
    try:
        with urlopen(request, timeout=10) as response:  # noqa: S310 - our own server
            return int(response.status)
    except HTTPError as error:
        with error:
            return error.code


def started(*options: str) -> tuple[subprocess.Popen[str], list[str]]:
    """A server, and the four lines that it prints first."""
    process = subprocess.Popen([*SIMULATE, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    head = [process.stdout.readline().rstrip() for _ in range(5)]
    assert all(head[index] for index in (0, 2, 3, 4)), process.communicate()[1]
    return process, head


def test_it_serves_limits_and_reports_until_interrupted() -> None:
    process, head = started("--model", "gpt-4", "--rpm", "2", "--latency", "0.001-0.002")
    assert "(gpt-4: 2 rpm). Ctrl-C ends it." in head[0]
    settings = dict(word.split("=", 1) for line in head[2:] for word in line.removeprefix("export ").split())
    assert set(settings) == {
        f"{name}_{what}" for name in ("OPENAI", "ANTHROPIC") for what in ("BASE_URL", "API_KEY")
    } | {"GOOGLE_GEMINI_BASE_URL", "GEMINI_API_KEY"}
    url = settings["OPENAI_BASE_URL"]
    assert [ask(url), ask(url), ask(url), ask(url, "another")] == [200, 200, 429, 404]
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert "4 requests: 2 answered, 1 refused, 1 failed or dropped;" in output
    assert "100.0% of the limits used." in output


@pytest.mark.parametrize(
    ("dialect", "setting"),
    [("azure", "AZURE_OPENAI_ENDPOINT=http://127.0.0.1:"), ("groq", "GROQ_BASE_URL=http://127.0.0.1:")],
)
def test_the_settings_are_the_dialects(dialect: str, setting: str) -> None:
    process, head = started("--dialect", dialect, "--speed", "60")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert "(any model: no limits, 60 times as fast)" in head[0]
    assert setting in head[2]


def test_a_port_that_is_taken(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command("simulate", "--port", str(port))
    assert done.code == 1
    assert f"cannot listen on 127.0.0.1:{port}: " in done.stderr
    assert "Try --port 0." in done.stderr


@pytest.mark.parametrize("latency", ["soon", "-1", "2-1", "1-2-3", "nan", "inf", ""])
def test_a_latency_that_makes_no_sense(latency: str, command: Command) -> None:
    done = command("simulate", f"--latency={latency}")
    assert done.code == 2
    assert "give a number of at least 0, such as 0.5, or low-high" in done.stderr


def test_a_speed_that_makes_no_sense(command: Command) -> None:
    done = command("simulate", "--port", "0", "--speed", "inf")
    assert (done.code, "speed=inf" in done.stderr) == (1, True)
