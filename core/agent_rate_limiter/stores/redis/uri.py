"""Where a Redis is, from its URI, and how to connect; passwords are shown nowhere."""

# redis-py states few types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from agent_rate_limiter.errors import ConfigError, StoreUnavailable
from agent_rate_limiter.stores.redis.fixes import fix_of

_SAME = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}
_KINDS = ("", "+cluster", "+sentinel")
SCHEMES = (*(scheme + kind for kind in _KINDS for scheme in _SAME), "unix")
_TIMEOUT = 1.0
"""Seconds after which a server that does not answer, or accept, counts as lost."""
_NAMESPACE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_PORTS = {"sentinel": 26379}
_OF_SENTINELS = "sentinel_"
"""What a parameter begins with that is for the Sentinels, and not for the servers they watch."""


class RedisAddress:
    """A parsed URI.

    Args:
        uri: redis://, rediss://, unix:///path/to/socket, redis+cluster://host:port[,host:port] or
            redis+sentinel://host:port[,host:port]/service[/db]; with ?namespace= for limits of its own, ?timeout= in
            seconds, and whatever redis-py takes; for Sentinels, with sentinel_ before it. valkey:// is redis://.

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
        scheme, _, kind = parts.scheme.partition("+")
        self._scheme, self.kind = _SAME.get(scheme, scheme), kind or ("unix" if scheme == "unix" else "")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.namespace = options.pop("namespace", "limits")
        if not _NAMESPACE.fullmatch(self.namespace):
            raise ConfigError(f"store namespace is {self.namespace!r}: give at most 64 letters, digits, or _ . : -")
        self.timeout = _seconds(options.pop("timeout", None))
        login, _, hosts = parts.netloc.rpartition("@")
        self.name = f"{parts.scheme}://{hosts}{parts.path}"
        path = [] if self.kind == "unix" else [unquote(part) for part in parts.path.split("/") if part]
        self._service = path.pop(0) if self.kind == "sentinel" and path else ""
        alone = self.kind == "unix"
        misplaced = bool(hosts) or parts.path in {"", "/"} if alone else not hosts
        if misplaced or (self.kind == "sentinel" and not self._service) or len(path) > 1:
            raise self._mistaken()
        self._login = f"{login}@" if login else ""
        refused: tuple[type[Exception], ...] = (TypeError, ValueError, *troubles())
        try:
            own = {name: value for name, value in options.items() if not name.startswith(_OF_SENTINELS)}
            if alone:
                self._options = self._understood(f"unix://{self._login}{parts.path}", own)
                return
            self._hosts = self._places(hosts)
            self._options = self._understood(self._database("".join(path)), own)
            self._sentinels = self._of_sentinels(own, options)
        except refused as error:
            raise self._mistaken(f"{str(error).rstrip('.')}. W") from None

    def _mistaken(self, what: str = "w") -> ConfigError:
        return ConfigError(f"store is '{self.name}': {what}rite it like {_example(self.kind)}.")

    def _places(self, hosts: str) -> list[tuple[str, int]]:
        found = [urlsplit(f"//{host}") for host in hosts.split(",")]
        if not all(host.hostname for host in found):
            raise ValueError("a host has no name; an IPv6 address stands in brackets, [::1]:6379")
        if len(found) > 1 and not self.kind:
            raise ValueError("several hosts are a Cluster's, or Sentinels")
        return [(str(host.hostname), host.port or _PORTS.get(self.kind, 6379)) for host in found]

    def _database(self, number: str) -> str:
        if not (number or "0").isdecimal() or (self.kind == "cluster" and int(number or 0)):
            message = f"{number!r} is no database's number there"
            raise ValueError(message)
        return f"{self._scheme}://{self._login}host/{number}"

    def _understood(self, uri: str, options: dict[str, str]) -> dict[str, Any]:
        """Return redis-py's own reading of a URI; what it does not know is said now, not at the first call."""
        redis: Any = import_module("redis")
        never: Any = import_module("redis.backoff").NoBackoff()
        for name, value in options.items():
            if not value:
                message = f"{name} is empty"
                raise ValueError(message)
        query = f"?{urlencode(options)}" if options else ""
        found: dict[str, Any] = {
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.timeout,
            **redis.connection.parse_url(uri + query),
            "retry": import_module("redis.retry").Retry(never, 0),  # the engine does
            "encoding": "utf-8",  # what is stored is the same, whoever stores it
            "decode_responses": False,
        }
        found.pop("host", None)
        redis.ConnectionPool(**found).make_connection()  # does not connect yet
        return found

    def _of_sentinels(self, own: dict[str, str], options: dict[str, str]) -> dict[str, Any]:
        """Sentinels have users of their own, and the same certificates."""
        secrets = {name: value for name, value in own.items() if name.startswith("ssl_")}
        theirs = {name.removeprefix(_OF_SENTINELS): value for name, value in options.items() if name not in own}
        return _with_tls(self._understood(f"{self._scheme}://host/", {**secrets, **theirs}))

    def connect(self) -> Any:
        """Return a client of redis-py. It connects when it is used, except to a cluster."""
        redis: Any = import_module("redis")
        if self.kind == "cluster":
            return self._cluster(redis)
        if self.kind == "sentinel":
            sentinel: Any = import_module("redis.sentinel").Sentinel(self._hosts, sentinel_kwargs=self._sentinels)
            return sentinel.master_for(self._service, **_with_tls(self._options))
        if self.kind == "unix":
            return redis.Redis.from_pool(redis.ConnectionPool(**self._options))
        ((host, port),) = self._hosts
        return redis.Redis.from_pool(redis.ConnectionPool(host=host, port=port, **self._options))

    def _cluster(self, redis: Any) -> Any:
        options = _with_tls(self._options)
        options.pop("db", None)
        nodes = [import_module("redis.cluster").ClusterNode(*place) for place in self._hosts]
        client = redis.RedisCluster(startup_nodes=nodes, **options)
        found = [(node.host, node.port) for node in client.get_nodes()]
        self._hosts = [*found, *(place for place in self._hosts if place not in found)]  # those that we named may die
        return client

    def unavailable(self, error: Exception) -> StoreUnavailable:
        """Return what a client's error means, and what to do."""
        text = str(error).partition(" : <")[0].rstrip(".")  # what follows shows a client with all of its options
        return StoreUnavailable(f"The store {self.name} cannot be used: {text}. {fix_of(error)}")


@cache
def troubles() -> tuple[type[Exception], ...]:
    """Return what redis-py raises."""
    errors: Any = import_module("redis.exceptions")
    return errors.RedisError, errors.RedisClusterException, OSError


def _with_tls(options: dict[str, Any]) -> dict[str, Any]:
    """As those clients want it who choose the class of their connections themselves."""
    found = dict(options)
    if found.pop("connection_class", None) is not None:
        found["ssl"] = True
    return found


def _split(uri: str) -> SplitResult:
    """Take a URI apart; one that a password has broken is not repeated."""
    try:
        parts = urlsplit(uri)
        socket = parts.scheme == "unix"
        elsewhere = ("" if socket else parts.path) + parts.query.partition("=")[0] + parts.fragment
        values = "" if "@" in parts.netloc or socket else parts.query
        if "@" not in elsewhere + values:
            return parts
    except ValueError:  # a bracket
        pass
    scheme = uri.partition("://")[0]
    fix = "percent-encode what is special in a password, such as / (%2F)"
    raise ConfigError(f"store is '{scheme}://…': {fix}. Write it like {_example(scheme.partition('+')[2] or scheme)}.")


def _example(kind: str) -> str:
    if kind == "unix":
        return "'unix:///run/redis/redis.sock?db=0'"
    if kind == "sentinel":
        return "'redis+sentinel://host:26379,other:26379/mymaster'"
    return "'redis+cluster://host:6379,other:6379'" if kind == "cluster" else "'redis://host:6379/0'"


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
