"""Watch over an open SQLite file: nobody else says that it was removed or replaced, or that its log has grown large."""

from __future__ import annotations

import logging
from os import stat_result
from os.path import samestat
from pathlib import Path
from time import monotonic

_EVERY = 1.0
"""Seconds between looks: each costs some microseconds, and what is written meanwhile is lost."""
_LARGE = 256 << 20
"""Bytes of a write-ahead log that are worth a word; usually it is begun anew after four million."""
_log = logging.getLogger("agent_rate_limiter")


class Whereabouts:
    """Which file a connection was opened to, and which write-ahead log.

    Args:
        path: its name, absolute: the program may change its directory.
    """

    def __init__(self, path: Path) -> None:
        self._names = (path, path.with_name(f"{path.name}-wal"))
        self._opened: list[stat_result | None] = []
        self._look_at = 0.0
        self._too_large = _LARGE

    def remember(self) -> None:
        """The connection has just been opened."""
        self._opened = [_found(name) for name in self._names]
        self._look_at = monotonic() + _EVERY

    def is_gone(self) -> bool:
        """Whether a name stands for another file by now, or for none; that is logged."""
        now = monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + _EVERY
        for name, was in zip(self._names, self._opened, strict=True):
            if was is None:  # it could not be seen then
                continue
            found = _found(name, was)
            if found is None or not samestat(found, was):
                _log.error(
                    "The file %s was removed or replaced while it was in use: what it held is gone with it, what was "
                    "written in the last second may be lost, and from now on the file of that name is used.",
                    name,
                )
                return True
            if name is not self._names[0]:
                self._mind_size(found.st_size)
        return False

    def _mind_size(self, size: int) -> None:
        if size > self._too_large:
            self._too_large = 4 * size
            _log.warning(
                "The file %s has grown to %d MB, and grows on: somebody has been reading the database for so long "
                "that it cannot be begun anew. End that transaction: an open cursor in a notebook, perhaps.",
                self._names[1],
                size >> 20,
            )


def _found(name: Path, unseen: stat_result | None = None) -> stat_result | None:
    try:
        return name.stat()
    except FileNotFoundError:
        return None
    except OSError:  # it cannot be seen now, which does not mean that it is gone
        return unseen
