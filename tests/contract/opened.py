"""Every store, opened for a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

SHARED: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder / 'limits.db'}",
}
STORES: dict[str, Callable[[Path], str]] = {"memory": lambda folder: "memory://", **SHARED}
