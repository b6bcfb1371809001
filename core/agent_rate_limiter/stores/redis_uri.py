"""Where a Redis is, from its URI, and how to connect; passwords are shown nowhere."""

# redis-py states few types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import re
from importlib import import_module
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from agent_rate_limiter.errors import ConfigError, StoreUnavailable

SCHEMES = ("redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")
_TIMEOUT = 1.0
"""Seconds after which a server that does not answer, or accept, counts as lost."""
_NAMESPACE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class RedisAddress:
    """A parsed URI.

    Args:
        uri: redis://, rediss://, redis+cluster:// or redis+sentinel://host:port[,host:port]/service[/db]; with
            ?namespace= for limits of its own, ?timeout= in seconds, and whatever redis-py takes.

    Raises:
        ConfigError: it makes no sense, or redis-py is not installed.
    """

    def __init__(self, uri: str) -> None:
        try:
            import_module("redis")
        except ImportError:
            fix = "install redis-py: pip install 'agent-rate-limiter[redis]'"
            raise ConfigError(f"store is 'redis://…': {fix}.") from None
        parts = _split(uri)
        scheme, _, self.kind = parts.scheme.partition("+")
        options = dict(parse_qsl(parts.query))
        self.namespace = options.pop("namespace", "limits")
        if not _NAMESPACE.fullmatch(self.namespace):
            raise ConfigError(f"store namespace is {self.namespace!r}: give at most 64 letters, digits, or _ . : -")
        self.timeout = _seconds(options.pop("timeout", None))
        self._hosts = parts.netloc.rpartition("@")[2]
        self._login = (unquote(parts.username or "") or None, unquote(parts.password or "") or None)
        self._path = [unquote(part) for part in parts.path.split("/") if part]
        self._secure = scheme == "rediss"
        login = parts.netloc[: len(parts.netloc) - len(self._hosts)]
        self._uri = f"{scheme}://{login}{self._hosts}{parts.path}" + (f"?{urlencode(options)}" if options else "")
        self.name = f"{parts.scheme}://{self._hosts}{parts.path}"
        if not self._hosts or (self.kind == "sentinel" and not self._path):
            raise ConfigError(f"store is '{self.name}': write it like {_example(self.kind)}.")
        self.connect(lazily=True)  # what redis-py does not understand is said now

    def connect(self, *, lazily: bool = False) -> Any:
        """Return a client of redis-py. It connects when it is used, except to a cluster."""
        redis: Any = import_module("redis")
        never: Any = import_module("redis.backoff").NoBackoff()
        options: dict[str, Any] = {
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.timeout,
            "retry": import_module("redis.retry").Retry(never, 0),  # the engine does
        }
        try:
            if self.kind == "cluster":
                return None if lazily else redis.RedisCluster.from_url(self._uri, **options)
            if self.kind == "sentinel":
                return self._behind_sentinel(options)
            return redis.Redis.from_url(self._uri, **options)
        except ValueError as error:
            raise ConfigError(f"store is '{self.name}': {error}. Write it like {_example(self.kind)}.") from None

    def _behind_sentinel(self, options: dict[str, Any]) -> Any:
        hosts = [host.rpartition(":") for host in self._hosts.split(",")]
        places = [(name or port, int(port) if name else 26379) for name, _, port in hosts]
        name, password = self._login
        own = {"socket_timeout": self.timeout, "socket_connect_timeout": self.timeout}
        sentinel: Any = import_module("redis.sentinel").Sentinel(places, sentinel_kwargs=own)
        database = int(self._path[1]) if len(self._path) > 1 else 0
        return sentinel.master_for(
            self._path[0], username=name, password=password, db=database, ssl=self._secure, **options
        )

    def unavailable(self, error: Exception) -> StoreUnavailable:
        """Return what a client's error means, and what to do."""
        kind, text = type(error).__name__, str(error).rstrip(".")
        fixes = (fix for marks, fix in _FIXES if any(mark in kind or mark in text for mark in marks))
        return StoreUnavailable(f"The store {self.name} cannot be used: {text}. {next(fixes, _OTHERWISE)}")


def _split(uri: str) -> SplitResult:
    """Take a URI apart; one that a password has broken is not repeated."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc and "@" in parts.path + parts.query + parts.fragment:
        kind = parts.scheme.partition("+")[2]
        fix = "percent-encode what is special in a password, such as / (%2F)"
        raise ConfigError(f"store is '{parts.scheme}://…': {fix}. Write it like {_example(kind)}.")
    return parts


_FIXES = (
    (("Authentication", "NOAUTH", "WRONGPASS"), "Give a user and a password that the server takes."),
    (("NOPERM", "NoPermission"), "Let this user run scripts on the keys 'arl*'."),
    (("ReadOnly", "READONLY"), "That is a replica: name the primary, or use redis+sentinel://."),
    (("OutOfMemory", "OOM"), "Give the server more memory, or let it evict other keys."),
    (("Timeout",), "The server is slow, paused or far away: ?timeout=5 waits longer."),
    (("BusyLoading", "LOADING"), "It loads its data: it will be back soon."),
    (("Connection", "refused"), "Start it, or mend the address."),
)
_OTHERWISE = "See the server's log."


def _example(kind: str) -> str:
    if kind == "sentinel":
        return "'redis+sentinel://host:26379,other:26379/mymaster'"
    return "'redis+cluster://host:6379'" if kind == "cluster" else "'redis://host:6379/0'"


def _seconds(text: str | None) -> float:
    if text is None:
        return _TIMEOUT
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 3600:  # noqa: PLR2004 - an hour
        raise ConfigError(f"store timeout is {text!r}: give seconds, such as ?timeout=2.")
    return seconds
