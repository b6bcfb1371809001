"""Notice that an open SQLite file was removed or replaced: what is written to it then is lost, and nobody says so."""

from __future__ import annotations

import logging
from pathlib import Path
from time import monotonic

_EVERY = 1.0
"""Seconds between looks: each costs a microsecond, and what is written meanwhile is lost."""
_log = logging.getLogger("agent_rate_limiter")


class Whereabouts:
    """Which file a connection was opened to.

    Args:
        path: its name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: tuple[int, int] | None = None
        self._look_at = 0.0

    def remember(self) -> None:
        """The connection has just been opened."""
        self._opened = self._now()
        self._look_at = monotonic() + _EVERY

    def is_gone(self) -> bool:
        """Whether the name stands for another file by now, or for none; that is logged."""
        now = monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + _EVERY
        if self._now() == self._opened:
            return False
        _log.error(
            "The file %s was removed or replaced while it was in use: what it held is gone with it, what was written "
            "in the last second may be lost, and from now on the file of that name is used.",
            self._path,
        )
        return True

    def _now(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError:  # it cannot be seen now, which does not mean that it is gone
            return self._opened
        return found.st_dev, found.st_ino
