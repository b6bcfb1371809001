"""Processes that take slices of a shared limit: they rarely ask the store, keep to the bound, and may be killed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import redis
from openai import AsyncOpenAI

from agent_rate_limiter import BudgetExceeded, Estimate, Limit, MultiProviderLimiter, Provider, RateLimiter
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.testing import SimulatedProvider
from tests.contract.opened import SHARED, server
from tests.programs.shared import Worker, admitted, run, worst_excess

RATE, BURST, LEASE, PROCESSES = 150, 200, 20, 4
QUESTION: Any = [{"role": "user", "content": "Why do agents wait?"}]
SERVERS = [name for name in SHARED if name != "sqlite"]


def workers(name: str, folder: Path, limit: dict[str, Any], lease: int, **more: Any) -> list[Worker]:
    options = {"lease_tokens": lease}
    logs = [str(folder / f"{number}.log") for number in range(PROCESSES)]
    return [Worker(SHARED[name](folder), log, limit, 2.0, options=options, **more) for log in logs]


def asked(name: str) -> int:
    """Return how many scripts a server has run."""
    client: Any = redis.Redis(port=server(name).port)
    found = client.info("commandstats")
    client.close()
    return sum(int(found.get(f"cmdstat_{command}", {"calls": 0})["calls"]) for command in ("eval", "evalsha"))


@pytest.mark.parametrize("name", SERVERS)
def test_four_processes_rarely_ask(name: str, tmp_path: Path) -> None:
    limit = {"resource": "requests", "amount": 10_000, "per": 1.0}
    before = asked(name)
    moments = run(workers(name, tmp_path, limit, 400, tasks=2, holding=0.01))
    per_call = (asked(name) - before) / len(moments)
    assert len(moments) > 300
    assert per_call < 0.15, f"{per_call:.2f} round trips a call"  # without: 0.6


@pytest.mark.parametrize("name", SHARED)
def test_four_processes_keep_to_the_bound(name: str, tmp_path: Path) -> None:
    limit = {"resource": "requests", "amount": RATE, "per": 1.0, "burst": BURST}
    moments = run(workers(name, tmp_path, limit, LEASE))
    assert worst_excess(moments, BURST, RATE) <= PROCESSES * LEASE + 1e-3
    assert len(moments) - BURST >= 0.9 * RATE * (moments[-1] - moments[0])


@pytest.mark.parametrize("name", SHARED)
def test_a_killed_process_is_charged_what_it_took(name: str, tmp_path: Path) -> None:
    uri, log = SHARED[name](tmp_path), tmp_path / "doomed.log"
    budget, cost = {"resource": "cost", "amount": 5.0, "per": "day"}, 0.001
    doomed = Worker(uri, str(log), budget, 30, cost=cost, options={"lease_tokens": 100, "lease": 1.5}, holding=0.005)
    doomed.start_and_kill(after=200)
    sent, settled = len(admitted(doomed.log)), len(admitted(doomed.log, "="))
    limit = Limit(Resource.COST, 5.0, "day")
    with RateLimiter([limit], target="openai:gpt-4", store=uri, ledger="memory://") as other:
        charged = spent(other)
        assert settled * cost <= charged <= (sent + 100) * cost + 1e-9
        with pytest.raises(BudgetExceeded):  # once its lease is over: nobody waits for what the dead may give back
            other.acquire(Estimate(cost=5.0), timeout=20)


def spent(limiter: RateLimiter) -> float:
    limiter.explain()
    (budget,) = (limit for limit in limiter.snapshot().limits if limit.resource == "cost")
    return budget.amount - budget.available


@pytest.mark.parametrize("name", SERVERS)
def test_a_wrapped_client_with_a_budget_and_headers_rarely_asks(name: str, tmp_path: Path) -> None:
    rates = {"rpm": 50_000, "tpm": 8_000_000, "input_per_1m": 1, "output_per_1m": 2}

    async def work(limiter: MultiProviderLimiter, url: str) -> None:
        async with limiter.wrap(AsyncOpenAI(base_url=url, api_key="any")) as client:

            async def agent() -> None:
                for _ in range(30):
                    await client.chat.completions.create(model="gpt-4", max_tokens=50, messages=QUESTION)

            await asyncio.gather(*(agent() for _ in range(4)))

    with (
        SimulatedProvider({"gpt-4": {"rpm": 60_000, "tpm": 10_000_000}}) as provider,
        MultiProviderLimiter(
            [Provider("openai", {"gpt-4": rates})],
            budget_limit=100,
            store=SHARED[name](tmp_path),
            ledger="memory://",
            lease_tokens=20_000,
        ) as limiter,
    ):
        before = asked(name)
        asyncio.run(work(limiter, provider.openai_url))
        per_call = (asked(name) - before) / 120
        report = provider.report()
    assert (report.completed, report.refused) == (120, 0)
    assert per_call < 0.4, f"{per_call:.2f} round trips a call"  # without: 1.5
