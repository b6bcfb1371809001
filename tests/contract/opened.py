"""Every store, by URI, fresh for each test."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path

from tests.contract.servers import Server, binaries


@cache
def server(name: str) -> Server:
    """Return the one server of a kind that all tests share."""
    return Server(binaries()[name])


def _namespace(name: str) -> Callable[[Path], str]:
    return lambda folder: f"{server(name).uri}?namespace={sha256(str(folder).encode()).hexdigest()[:16]}"


SHARED: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder / 'limits.db'}",
    **{name: _namespace(name) for name in binaries()},
}
STORES: dict[str, Callable[[Path], str]] = {"memory": lambda folder: "memory://", **SHARED}
