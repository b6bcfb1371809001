"""What a fork must not find half done, and what comes last of all when the program ends."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable

Handler = Callable[[], object]
_handlers: dict[bool, list[tuple[Handler, Handler, Handler]]] = {False: [], True: []}
_last: list[Callable[[], None]] = []


def around_fork(before: Handler, here: Handler, child: Handler, *, inner: bool = False) -> None:
    """Have functions called around each fork: callers first, then what they call, as a lock's holder may wait for more.

    Args:
        before: takes the locks.
        here: gives them back in the parent.
        child: starts anew in the child.
        inner: its locks are taken last, as others are held by those who wait for them.
    """
    _handlers[inner].append((before, here, child))


def last_of_all(callback: Callable[[], None]) -> None:
    """Have a function called when the program ends, after all that was registered since this module was imported."""
    _last.append(callback)


def _run(step: int, order: tuple[bool, bool]) -> None:
    for inner in order:
        for handlers in _handlers[inner]:
            handlers[step]()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _run(0, (False, True)),
        after_in_parent=lambda: _run(1, (True, False)),
        after_in_child=lambda: _run(2, (True, False)),
    )


@atexit.register
def _at_exit() -> None:
    for callback in _last:
        callback()
