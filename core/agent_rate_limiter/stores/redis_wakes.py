"""Hears whose turn it is: Redis tells the member that stands first in a line when there is room for it."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
from typing import Any

from agent_rate_limiter.stores.redis_uri import RedisAddress

_LOOK = 1.0
"""Seconds after which a listener looks whether anybody still wants to hear; also until it connects anew."""


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
        from redis.exceptions import RedisError

        pause = Event()
        while self._heard(""):
            client: Any = None
            try:
                client = self._address.connect()
                self._listen(client.pubsub(ignore_subscribe_messages=True))
            except (RedisError, OSError):
                pause.wait(_LOOK)
            finally:
                if client is not None:
                    client.close()

    def _listen(self, subscription: Any) -> None:
        subscription.subscribe(self._channel)
        try:
            while True:
                message = subscription.get_message(timeout=_LOOK)
                if not self._heard("" if message is None else message["data"].decode()):
                    return
        finally:
            subscription.close()
