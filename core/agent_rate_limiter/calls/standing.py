"""How a call stands in line."""

from __future__ import annotations

from typing import NamedTuple

from agent_rate_limiter.engine.queue import Place


class Standing(NamedTuple):
    """What sets a call apart from a newcomer.

    Args:
        again: it is tried again, where it was admitted before: it goes to the front.
        quiet: whoever sent it tells of it, when it is refused.
        stays: it waits until its timeout, however late it may be served.
        place: where it stood before; it is noted there where it stands.
    """

    again: bool = False
    quiet: bool = False
    stays: bool = False
    place: Place | None = None


NEW = Standing()
AGAIN = Standing(again=True)
