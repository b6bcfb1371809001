"""Hears whose turn it is: Redis tells the member that stands first in a line when there is room for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

from agent_rate_limiter.stores.redis.uri import RedisAddress, troubles

_log = logging.getLogger("agent_rate_limiter")
_LOOK = 1.0
"""Seconds after which a listener looks whether anybody still wants to hear; also until it connects anew."""
_QUIET = 5
"""Looks after which a server that said nothing is asked whether it is there; as many later it counts as gone."""


class Wakes:
    """A thread that listens on a connection of its own. Where it fails, waiters ask again by themselves, later.

    Args:
        address: where the server is.
        channel: what to listen to.
        heard: told what was said; returns False when nobody wants to hear any more.
    """

    def __init__(self, address: RedisAddress, channel: str, heard: Callable[[str], bool]) -> None:
        self._address = address
        self._channel = channel
        self._heard = heard
        Thread(target=self._work, name="agent-rate-limiter-wakes", daemon=True).start()

    def _work(self) -> None:
        pause, denied = Event(), False
        while self._heard(""):
            client: Any = None
            try:
                client = self._address.connect()
                self._listen(client.pubsub(ignore_subscribe_messages=True))
            except troubles() as error:
                if not denied and "NoPermission" in type(error).__name__:
                    denied = True
                    _log.warning("%s Whoever waits looks by itself, each second.", self._address.unavailable(error))
                pause.wait(_LOOK)
            finally:
                if client is not None:
                    client.close()

    def _listen(self, subscription: Any) -> None:
        subscription.subscribe(self._channel)
        quiet = 0
        try:
            while quiet < 2 * _QUIET:  # a server that vanished closes no connection
                message: Any = subscription.get_message(timeout=_LOOK) or {"type": ""}
                quiet = 0 if message["type"] else quiet + 1
                if quiet == _QUIET:
                    subscription.ping()
                if not self._heard(message["data"].decode() if message["type"] == "message" else ""):
                    return
        finally:
            subscription.close()
