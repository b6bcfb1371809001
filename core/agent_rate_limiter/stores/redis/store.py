"""Many machines: the limits in Redis or Valkey, one round trip for whatever is wanted at a time."""

# redis-py states few types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import Any

from agent_rate_limiter.clock import SystemClock
from agent_rate_limiter.engine.port import Answer, Batch, Place
from agent_rate_limiter.stores.redis.memory import RedisMemory
from agent_rate_limiter.stores.redis.uri import RedisAddress, troubles
from agent_rate_limiter.stores.redis.wakes import Wakes
from agent_rate_limiter.stores.redis.wire import decode, encode, parameters

_LAYOUT = 1
"""Of the keys and what they hold. Another one has other keys: old and new processes may run side by side."""
_TEXTS_LAST = 400 * 24 * 3600
"""Seconds that a remembered text is kept after it was written last."""


class RedisStore:
    """Limits in Redis 6 or later, or Valkey: alone, behind Sentinel, or a Cluster.

    Each step is one script call, atomic, on the server's clock. All keys of one namespace carry one hash tag.

    Args:
        address: where it is.
    """

    def __init__(self, address: RedisAddress) -> None:
        self.name = address.name
        self.look_every = 0
        self._address = address
        self._prefix = f"arl{_LAYOUT}:{{{address.namespace}}}:"
        self._clock = SystemClock()
        self._client: Any = None
        self._inherited: list[Any] = []
        self._wakes: Wakes | None = None
        self._seen = -1
        self._born = ""  # which incarnation of the data was seen last
        self._forgotten = False
        self._memory = RedisMemory()

    def check(self, place: Place) -> None:
        """Refuse limits that a script cannot count exactly."""
        parameters(place, self._clock.now())

    def run(self, batch: Batch, now: int | None) -> Answer:
        """Take one step in one round trip; more only when the server has lost its data."""
        if self._forgotten:
            self._restore(batch.member)
        found = self._step(batch, now)
        if found == [b"lost"]:
            self._restore(batch.member)
            found = self._step(batch, now)
        born = found[3].decode()
        self._forgotten = self._born not in {"", born}  # another member has told what it knows; it is our turn
        self._seen, self._born = int(found[2]), born
        answer = decode(batch, found)
        self._memory.note(batch, answer)
        return answer

    def _restore(self, member: str) -> None:
        prefix, about = self._prefix, self._clock.now()
        text = self._memory.as_text(member, self._seen, about)
        keys = [f"{prefix}meta", f"{prefix}holds:{member}", f"{prefix}rules"]
        keys += [f"{prefix}bucket:{key}" for key in self._memory.keys]
        self._born = self._call(lambda client: _evaluate(client, "restore.lua", keys, [text])).decode()
        self._forgotten = False

    def _step(self, batch: Batch, now: int | None) -> Any:
        prefix = self._prefix
        payload = encode(batch, now, self._clock.now() if now is None else now, self._seen, self._born)
        keys = [f"{prefix}last:{batch.member}", f"{prefix}meta", f"{prefix}holds:{batch.member}"]
        keys += [f"{prefix}members", f"{prefix}rules"]
        for place in batch.places:
            keys += [f"{prefix}bucket:{place.key}", f"{prefix}line:{place.key}"]
        return self._call(lambda client: _evaluate(client, "step.lua", keys, [payload]))

    def changed(self) -> Iterable[str] | None:
        """Nobody's: who waits is told, see `listen`."""
        return ()

    def listen(self, member: str, heard: Callable[[str], bool]) -> None:
        """Call `heard` with a limit's key when it is the member's turn there, until that returns False."""
        if self._wakes is None:
            self._wakes = Wakes(self._address, f"{self._prefix}wake:{member}", heard)

    def recall(self, key: str) -> str | None:
        """Return the text that was remembered under a key."""
        found = self._call(lambda client: client.get(f"{self._prefix}text:{key}"))
        return None if found is None else str(found.decode())

    def remember(self, key: str, text: str) -> None:
        """Keep a text under a key."""
        self._call(lambda client: client.set(f"{self._prefix}text:{key}", text, ex=_TEXTS_LAST))

    def first(self, key: str, until: int, now: int) -> bool:
        """Claim a key until an epoch millisecond: True for one caller alone."""
        lasting = max(1, min(until - now, _TEXTS_LAST * 1000))
        claim = [until, now, lasting]
        return bool(self._call(lambda client: _evaluate(client, "claim.lua", [f"{self._prefix}claim:{key}"], claim)))

    def close(self) -> None:
        """Let go of the connections; the next use connects anew."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.close()

    def forked(self) -> None:
        """Leave the parent's connections alone."""
        self._inherited.append(self._client)
        self._client = self._wakes = None
        self._memory = RedisMemory()

    def _call(self, use: Callable[[Any], Any]) -> Any:
        try:
            client = self._client
            if client is None:
                client = self._client = self._address.connect()
            return use(client)
        except troubles() as error:
            self.close()
            raise self._address.unavailable(error) from error


def _evaluate(client: Any, name: str, keys: list[str], arguments: list[Any]) -> Any:
    from redis.exceptions import NoScriptError

    script, digest = _script(name)
    try:
        return client.execute_command("EVALSHA", digest, len(keys), *keys, *arguments)
    except NoScriptError:
        return client.execute_command("EVAL", script, len(keys), *keys, *arguments)


_PARTS = {"step.lua": ("strategies.lua", "lines.lua", "step.lua")}
"""A script is one text; this one is told in several files."""


@cache
def _script(name: str) -> tuple[str, str]:
    folder = files("agent_rate_limiter.stores.redis").joinpath("lua")
    text = "\n".join(folder.joinpath(part).read_text(encoding="utf-8") for part in _PARTS.get(name, (name,)))
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
