"""A Cluster: all of a namespace's keys are in one place, wherever that is, and the place may die."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from agent_rate_limiter import Limit, RateLimiter, Resource, StoreUnavailable
from tests.contract.servers import Cluster, Server, binaries, until
from tests.contract.test_sentinel import LIMITS, goes_on, left, timed, told

NAMESPACE = "limits"


@pytest.fixture(scope="module", params=binaries())
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    made = Cluster(binaries()[request.param], f"{{{NAMESPACE}}}")
    yield made
    made.stop()


def uri(*nodes: Server, namespace: str = NAMESPACE) -> str:
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    return f"redis+cluster://{hosts}?timeout=0.5&namespace={namespace}"


def test_any_node_leads_to_the_keeper(cluster: Cluster) -> None:
    limiters = [RateLimiter("7 requests/day", store=uri(node, namespace="any")) for node in cluster.nodes]
    for limiter in limiters:
        limiter.acquire().settle()
    assert {left(limiter)["requests"] for limiter in limiters} == {3}


def test_namespaces_live_apart(cluster: Cluster) -> None:
    for number in range(12):
        RateLimiter(rpm=5, store=uri(cluster.keeper, namespace=f"team-{number}")).acquire().settle()
    keys = []
    for node in cluster.nodes[:3]:
        with node.client() as client:
            keys.append(sum("bucket:" in key for key in client.keys("arl1:{team-*")))
    assert sum(keys) == 12
    assert 12 not in keys


def test_whose_turn_it_is_is_told_by_any_node(cluster: Cluster) -> None:
    one, other = (RateLimiter(Limit(Resource.CONCURRENCY, 1), store=uri(node)) for node in cluster.others)

    async def main() -> None:
        held = await one.acquire_async()
        waiting = asyncio.ensure_future(other.acquire_async())
        await asyncio.to_thread(until, lambda: listens(cluster))
        held.settle()
        (await waiting).settle()

    turns = told(other)
    asyncio.run(main())
    assert turns


def listens(cluster: Cluster) -> bool:
    found = []
    for node in cluster.nodes:
        with node.client() as client:
            found += client.pubsub_channels("arl*")
    return bool(found)


def test_a_node_is_no_server_alone(cluster: Cluster) -> None:
    with pytest.raises(StoreUnavailable, match=r"write redis\+cluster for redis"):
        RateLimiter(rpm=1, store=cluster.others[0].uri + f"?namespace={NAMESPACE}").acquire()


def test_a_server_alone_is_no_cluster() -> None:
    alone = Server(next(iter(binaries().values())))
    try:
        with pytest.raises(StoreUnavailable, match=r"write redis for redis\+cluster"):
            RateLimiter(rpm=1, store=uri(alone)).acquire()
    finally:
        alone.stop()


def test_the_replica_takes_over_though_the_uri_names_the_dead_alone(cluster: Cluster) -> None:  # the last: one dies
    one = RateLimiter(LIMITS, store=uri(cluster.keeper, namespace=NAMESPACE))
    other = RateLimiter(LIMITS, store=uri(*cluster.others), on_store_error="local")
    held = [one.acquire(), other.acquire()]
    for _ in range(5):
        one.acquire().settle()
    with cluster.keeper.client() as client:
        assert client.execute_command("WAIT", 1, 1_000) == 1
    cluster.keeper.stop()
    with pytest.raises(StoreUnavailable, match=r"The store redis\+cluster://"):
        timed(one.acquire)
    timed(other.acquire).settle()
    until(lambda: goes_on(one) and goes_on(other) and "lost" not in other.snapshot().store)
    until(lambda: left(one) == {"requests": 42, "concurrency": 1})  # seven before, and one without it
    for call in held:
        call.settle()
    until(lambda: left(other) == {"requests": 42, "concurrency": 3})
