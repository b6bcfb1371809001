"""What docs/stores.md shows is run, on real files and servers, and what it says in numbers is so."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from agent_rate_limiter import Limit, MultiProviderLimiter, RateLimiter, StoreUnavailable
from agent_rate_limiter.engine.port import SharedStore
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.stores import is_shared, open_store
from agent_rate_limiter.stores.sqlite.store import SQLiteStore
from tests.contract.members import NOW, Member, admitted
from tests.contract.opened import SHARED, server
from tests.contract.servers import Server, binaries

TEXT = (Path(__file__).parents[2] / "docs" / "stores.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
NAMES = list(binaries())


def blocks(language: str) -> list[str]:
    return [content for name, content in BLOCKS if name == language]


def test_the_code_runs_and_draws_on_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "docs"}
    first, second = blocks("python")
    exec(compile(first, "stores.md", "exec"), names)  # noqa: S102 - it is what users run
    assert (tmp_path / "agents.db").exists()
    with RateLimiter("500 requests/minute", store="sqlite:///agents.db") as other:
        other.try_acquire(requests=0)
        assert other.snapshot().limits[0].available == 499, "one limit for all who name the file"
    exec(compile(second, "stores.md", "exec"), names)  # noqa: S102
    with names["limiter"].reserve(input_tokens=800, max_output_tokens=400):
        pass


def test_every_uri_in_the_table_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = TEXT[TEXT.index("| `store=` |") : TEXT.index("Parameters of a Redis URI")]
    uris = re.findall(r"`\"(.+?)\"`", table)
    kinds = {uri.partition("://")[0] for uri in uris}
    assert kinds >= {"memory", "sqlite", "redis", "redis+cluster", "redis+sentinel"}
    for uri in uris:
        store = open_store(uri)  # connects when it is used
        if is_shared(store):
            assert "password" not in store.name
            store.close()
    for scheme in re.findall(r"`(rediss[\w+]*)://`", TEXT):
        assert is_shared(open_store(f"{scheme}://host:6379" + ("/mymaster" if "sentinel" in scheme else "")))


@pytest.mark.parametrize("name", NAMES)
def test_the_server_that_is_shown_forgets_nothing_when_it_crashes(name: str) -> None:
    (text,) = blocks("yaml")
    compose = yaml.safe_load(text)["services"]
    command = compose["limits"]["command"].removeprefix("valkey-server ")
    shown = Server(binaries()[name], command)
    try:
        uri = compose["agents"]["environment"]["LIMITS"].replace("limits:6379", f"127.0.0.1:{shown.port}")
        limiter = RateLimiter("5 requests/day", store=uri)
        for _ in range(3):
            limiter.acquire().settle()
        limiter.snapshot()  # by now the server has heard of all
        with shown.client() as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert shown.process is not None
        shown.send(signal.SIGKILL)
        shown.process.wait()
        shown.start()
        fresh = RateLimiter("5 requests/day", store=uri)
        assert [bool(fresh.try_acquire()) for _ in range(3)] == [True, True, False]
    finally:
        shown.stop()


@pytest.mark.parametrize("name", NAMES)
def test_namespaces_are_limits_of_their_own_and_the_usual_one_has_a_name(name: str, tmp_path: Path) -> None:
    other = SHARED[name](tmp_path)
    for uri in (other, f"{other}-more"):
        assert RateLimiter(rpm=1, store=uri).try_acquire()
    assert not RateLimiter(rpm=1, store=other).try_acquire()
    usual = Server(binaries()[name])
    try:
        assert RateLimiter(rpm=1, store=usual.uri).try_acquire()
        assert not RateLimiter(rpm=1, store=f"{usual.uri}?namespace=limits").try_acquire()
    finally:
        usual.stop()


def test_configuration_files_have_the_keys(tmp_path: Path) -> None:
    (line,) = re.findall(r"In a configuration file the keys are (.*?)\.", TEXT, re.DOTALL)
    keys = re.findall(r"`(\w+)`", line)
    values = {"store": f"sqlite:///{tmp_path / 'agents.db'}", "on_store_error": "local", "lease_tokens": 20_000}
    assert set(keys) == set(values)
    limiter = MultiProviderLimiter.from_config({"providers": {"p": {"models": {"m": {"rpm": 5}}}}, **values})
    assert limiter.try_acquire("p:m")


def expires_in(store: SharedStore, key: str) -> float:
    """Days for which a bucket is kept, from now on."""
    if isinstance(store, SQLiteStore):
        with closing(sqlite3.connect(store.path)) as connection:
            row = connection.execute("SELECT expires FROM limits_rows WHERE key = ?", (f"bucket:{key}",)).fetchone()
        return (int(row[0]) - NOW / 3_600_000) / 24
    found: Any = store
    with redis.Redis.from_url(found.name) as client:
        left: Any = client.pttl(f"{found._prefix}bucket:{key}")
    return float(left) / 86_400_000


@pytest.mark.parametrize(
    ("key", "limit", "days"),
    [
        ("total", Limit(Resource.COST, 5.0, None, name="total"), 400),
        ("scope-f00", Limit(Resource.COST, 5.0, None, name="scope-f00"), 1),
        ("minute", Limit(Resource.REQUESTS, 5, "minute", name="minute"), 0),
    ],
)
def test_what_is_idle_is_kept_as_long_as_it_says(member: Member, key: str, limit: Limit, days: float) -> None:
    one = member("one")
    admitted(one, limit)
    assert days - 0.001 <= expires_in(one.shared, key) <= days + 0.1


@pytest.mark.parametrize("name", NAMES)
def test_a_silent_server_is_waited_for_once(name: str) -> None:
    silent = Server(binaries()[name])
    try:
        limiter = RateLimiter(rpm=100, store=f"{silent.uri}?timeout=0.2")
        limiter.acquire().settle()
        silent.send(signal.SIGSTOP)
        waits = []
        for _ in range(2):
            start = os.times().elapsed
            with pytest.raises(StoreUnavailable):
                limiter.acquire()
            waits.append(os.times().elapsed - start)
        assert 0.15 <= waits[0] < 5
        assert waits[1] < 0.15, "the next is told at once"
    finally:
        silent.send(signal.SIGCONT)
        silent.stop()


def test_which_server_is_needed_is_what_is_tested() -> None:
    (oldest,) = re.findall(r"Redis (\d+) or later, or Valkey", TEXT)
    with server(NAMES[0]).client() as client:
        assert int(client.info("server")["redis_version"].partition(".")[0]) >= int(oldest)
