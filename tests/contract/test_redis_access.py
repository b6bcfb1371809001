"""What a user of a server may do, and how it is reached."""

from __future__ import annotations

import asyncio
import logging
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from agent_rate_limiter import ConfigError, RateLimiter, StoreUnavailable
from agent_rate_limiter.engine.port import Hold
from agent_rate_limiter.stores import open_store
from tests.contract.direct import Direct
from tests.contract.opened import server
from tests.contract.servers import Server, binaries, free_port, until

NAMES = list(binaries())
_DOCS = Path(__file__).parents[2] / "docs" / "stores.md"


@pytest.fixture(params=NAMES)
def own(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server whose users the test may change."""
    made = Server(binaries()[request.param])
    yield made
    made.stop()


def let(own: Server, *rules: str) -> str:
    """Make the user `limits` with these rights; return the URI with its name."""
    with own.client() as client:
        client.execute_command("ACL", "SETUSER", "limits", "reset", "on", ">hush", *rules)
    return own.uri.replace("//", "//limits:hush@")


def documented() -> list[str]:
    """The rule that the documentation gives."""
    (found,) = re.findall(r"^ACL SETUSER limits on >PASSWORD ((?:.*\\\n)*.*)$", _DOCS.read_text(), re.MULTILINE)
    return str(found).replace("\\\n", " ").split()


def refused(own: Server) -> set[str]:
    """What a user wanted to do, and must not; that a client names itself, is nobody's need."""
    with own.client() as client:
        found: Any = client.execute_command("ACL", "LOG")
    entries = [entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True)) for entry in found]
    return {entry["object"] for entry in entries} - {"client|setinfo"}


def hand_over(uri: str) -> float:
    """Let one limiter wait for the other's slot; return the seconds from when it is free."""
    one, other = RateLimiter(concurrency=1, store=uri), RateLimiter(concurrency=1, store=uri)

    async def main() -> float:
        held = await one.acquire_async()
        waiting = asyncio.ensure_future(other.acquire_async(timeout=10))
        await asyncio.sleep(0.4)  # it stands in line, and listens
        start = time.monotonic()
        held.settle()
        (await waiting).settle()
        return time.monotonic() - start

    found = asyncio.run(main())
    one.close()
    other.close()
    return found


def test_the_documented_rights_suffice(own: Server) -> None:
    uri = let(own, *documented())
    hand_over(uri)
    store = cast("Any", open_store(uri))
    store.remember("key", "text")
    assert store.recall("key") == "text"
    assert store.first("told", 1_000, 500)
    limiter = RateLimiter(concurrency=1, store=uri)
    held = limiter.acquire()
    slots, now = held._hold.path[-1], int(time.time() * 1000) + 500
    held.settle()
    until(lambda: not cast("Any", limiter._calls.engine).unsent)
    dead = Direct(store, "dead", lease=1)
    assert dead.reserve(Hold((dead.bucket(slots.key, slots.limit, "", now),), (1,)), now) is None
    limiter.acquire(timeout=5).settle()  # it is buried
    with own.client() as client:
        client.flushall()
    limiter.acquire(timeout=5).settle()  # the server is told what was known
    assert refused(own) == set()
    with own.client() as client:
        assert client.get("other") is None
    with pytest.raises(StoreUnavailable, match=r"docs/stores\.md"):
        RateLimiter(rpm=5, store=f"{uri}?namespace=others").acquire()
    store.close()


def test_who_may_not_publish_waits_a_little_longer(own: Server, caplog: pytest.LogCaptureFixture) -> None:
    uri = let(own, "~arl*", "resetchannels", "+@all")  # as users are made by default
    with caplog.at_level(logging.WARNING):
        assert hand_over(uri) < 3
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1, "nothing was lost"
    assert "Whoever waits looks by itself, each second" in said[0]
    assert "channels 'arl*'" in said[0]


def test_a_server_behind_a_socket() -> None:
    folder = tempfile.mkdtemp()
    found = Server(binaries()[NAMES[0]], f"--unixsocket {folder}/here.sock")
    try:
        assert hand_over(f"unix://{folder}/here.sock?db=2&namespace=near") < 3
        with found.client() as client:
            assert client.info("keyspace").keys() == {"db2"}
    finally:
        found.stop()
    with pytest.raises(StoreUnavailable, match=f"The store unix://{folder}/here.sock cannot be used"):
        RateLimiter(rpm=5, store=f"unix://{folder}/here.sock").acquire()


@pytest.mark.parametrize("options", ["decode_responses=true", "protocol=3", "protocol=2", "encoding=utf-16"])
def test_options_of_the_client_do_no_harm(options: str) -> None:
    RateLimiter(rpm=5, store=f"{server(NAMES[0]).uri}?namespace=options&{options}").acquire().cancel()


@pytest.mark.parametrize("scheme", ["valkey", "REDIS"])
def test_names_of_the_same_thing(scheme: str) -> None:
    RateLimiter(rpm=5, store=server(NAMES[0]).uri.replace("redis", scheme)).acquire().cancel()


@pytest.mark.parametrize(
    "uri",
    [
        "redis:/user:hush@host",
        "user:hush@host:6379",
        "redis://user:hu[sh@host:6379",
        "redis://:here@hush/there@host",
        "redis://:here@hush?there@host",
        "redis://:here@hush#there@host",
        "redis://:hush/there@host",
        "redis://:hush?there=x@host",
        "redis://user:hush@[::1",
        "unix://user:hush@host",
    ],
)
def test_what_a_password_has_broken_is_not_repeated(uri: str) -> None:
    with pytest.raises(ConfigError) as found:
        open_store(uri)
    assert "hush" not in str(found.value)
    assert "hu[sh" not in str(found.value)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("redis://::1:6379/0", "stands in brackets"),
        ("redis://host?namespace=", "store namespace is ''"),
        ("redis://host?password=", "password is empty"),
        ("unix://host/path", "write it like 'unix:///run/redis/redis.sock"),
        ("unix://", "write it like 'unix:///run/redis/redis.sock"),
    ],
)
def test_a_uri_that_is_nearly_right_is_refused(uri: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_store(uri)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("/0", "/99"), "Give a smaller number, or raise 'databases'"),
        (("redis://", "redis+sentinel://"), "That is no Sentinel"),
        (("redis://", "rediss://"), "does it speak TLS"),
    ],
)
def test_a_wrong_place_is_explained(change: tuple[str, str], says: str) -> None:
    with pytest.raises(StoreUnavailable, match=says):
        RateLimiter(rpm=5, store=f"{server(NAMES[0]).uri.replace(*change)}?timeout=0.3").acquire()


def test_a_full_house_is_explained(own: Server) -> None:
    with own.client() as client:
        client.ping()
        client.config_set("maxclients", 1)
        with pytest.raises(StoreUnavailable, match="Raise the server's maxclients"):
            RateLimiter(rpm=5, store=own.uri).acquire()


def test_an_ipv6_address() -> None:
    with pytest.raises(StoreUnavailable, match=r"The store redis://\[::1\]:\d+/0 cannot be used.*Start it"):
        RateLimiter(rpm=5, store=f"redis://[::1]:{free_port()}/0").acquire()
