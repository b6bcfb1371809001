"""Whether this thread runs an event loop, which nothing may hold up."""

from __future__ import annotations

from sys import modules


def may_block() -> bool:
    """Whether this thread runs none, so that only its own caller waits for its I/O."""
    events = modules.get("asyncio.events")  # not imported here: without it, no loop runs
    running = getattr(events, "_get_running_loop", None)  # what get_running_loop calls, without an exception
    return running is None or running() is None
