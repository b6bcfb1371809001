"""Several processes share one limit: it is never exceeded, most of it is used, and a killed one leaves no trace."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.contract.opened import SHARED
from tests.programs.shared import Worker, most_at_once, run, slowest_share, worst_excess

RATE, BURST, SECONDS = 150, 20, 2.0


@pytest.mark.parametrize("name", SHARED)
def test_four_processes_share_a_rate(name: str, tmp_path: Path) -> None:
    uri = SHARED[name](tmp_path)
    limit = {"resource": "requests", "amount": RATE, "per": 1.0, "burst": BURST}
    workers = [Worker(uri, str(tmp_path / f"{number}.log"), limit, SECONDS) for number in range(4)]
    moments = run(workers)
    assert worst_excess(moments, BURST, RATE) <= 1e-3
    assert len(moments) - BURST >= 0.9 * RATE * (moments[-1] - moments[0])
    assert slowest_share([worker.log for worker in workers])[0] > 0


@pytest.mark.parametrize("name", SHARED)
def test_slots_go_from_hand_to_hand(name: str, tmp_path: Path) -> None:
    """More processes than slots: each waits for the others' calls, and not for time to pass."""
    uri, limit = SHARED[name](tmp_path), {"resource": "concurrency", "amount": 3}
    workers = [Worker(uri, str(tmp_path / f"{n}.log"), limit, 2, tasks=2, holding=0.03) for n in range(5)]
    moments = run(workers)
    assert most_at_once([worker.log for worker in workers]) <= 3
    assert len(moments) > 60  # of 200; whoever asked once a second made some 15


@pytest.mark.parametrize("name", SHARED)
def test_the_slots_of_a_killed_process_come_back(name: str, tmp_path: Path) -> None:
    uri = SHARED[name](tmp_path)
    limit = {"resource": "concurrency", "amount": 3}
    doomed = Worker(uri, str(tmp_path / "doomed.log"), limit, 30, tasks=3, holding=30, options={"lease": 1.5})
    doomed.start_and_kill(after=3)
    killed = time.time()
    others = [
        Worker(uri, str(tmp_path / f"{n}.log"), limit, 4, tasks=2, holding=0.05, options={"lease": 1.5})
        for n in range(2)
    ]
    moments = run(others)
    assert 0.5 < moments[0] - killed < 4
    assert most_at_once([worker.log for worker in others]) <= 3
