"""The ledger's file: what it survives, who can share it, and what it says when it cannot be used."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent_rate_limiter import CostTracker, MultiProviderLimiter, Provider, StoreUnavailable, Usage
from agent_rate_limiter.ledger import Keep
from agent_rate_limiter.ledger.sqlite import SqliteLedger
from agent_rate_limiter.testing import ManualClock
from tests.core.ledger.books import MILLION, PRICES, count, reopened

KEEP = Keep(7, 30, ())

# ---------------------------------------------------------------- what survives

SETTLES = """
import sys
from agent_rate_limiter import MultiProviderLimiter, Provider, Usage
model = {"rpm": 10**6, "input_per_1m": 1, "output_per_1m": 2}
limiter = MultiProviderLimiter([Provider("p", {"a": model})], ledger=sys.argv[1])
done = 0
while True:
    limiter.acquire("p:a").settle(Usage(input_tokens=1_000_000))
    done += 1
    sys.stdout.write(f"{done}\\n")
    sys.stdout.flush()
"""


def test_a_settle_that_returned_survives_kill_9(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SETTLES, f"sqlite:///{path}"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(300)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.readlines()
    acknowledged = int([line for line in told if line.endswith("\n")][-1])
    with reopened(path) as costs:
        rows = len(costs.rows(last=10**6))
        assert acknowledged <= rows <= acknowledged + 1  # one may have been written, and not told any more
        assert costs.total == rows  # the sums are of the same transactions


def test_a_new_limiter_goes_on_where_the_last_one_stopped(path: Path, manual_clock: ManualClock) -> None:
    provider = Provider("p", {"a": {"input_per_1m": 1, "output_per_1m": 2}})
    for run in range(2):
        with MultiProviderLimiter([provider], clock=manual_clock, ledger=f"sqlite:///{path}") as limiter:
            limiter.acquire("p:a").settle(MILLION)
            assert limiter.costs.total == run + 1
            assert limiter.snapshot().spend == 1  # its own


def test_what_is_settled_after_the_end_is_written_too(path: Path, manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter(clock=manual_clock, ledger=f"sqlite:///{path}", on_unknown_price="zero")
    call, dropped = limiter.acquire("p:a"), limiter.acquire("p:a")
    limiter.close()
    call.settle(Usage(cost=0.5))
    del dropped
    with reopened(path) as costs:
        assert [row["outcome"] for row in costs.rows()] == ["ok"]
    limiter.costs.close()  # what was dropped waits for the next call, report or end
    with reopened(path) as costs:
        assert [row["outcome"] for row in costs.rows()] == ["abandoned", "ok"]


# ---------------------------------------------------------------- who shares it


def _record(uri: str, calls: int) -> None:
    with CostTracker(uri, prices=PRICES) as costs:
        for number in range(calls):
            costs.record("p:a", MILLION, agent=number % 3)


@pytest.mark.parametrize("there", [True, False])
def test_processes_share_a_file(path: Path, *, there: bool) -> None:
    """Even when they all make it at the same time."""
    if there:
        reopened(path).close()
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_record, args=(f"sqlite:///{path}", 50)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    with reopened(path) as costs:
        assert costs.total == len(costs.rows()) == 200


def test_threads_share_a_tracker(costs: CostTracker) -> None:
    def work() -> None:
        for _ in range(100):
            costs.record("p:a", MILLION)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert costs.total == len(costs.rows()) == 400


def test_two_trackers_of_one_process(costs: CostTracker, path: Path) -> None:
    costs.record("p:a", MILLION)
    with CostTracker(f"sqlite:///{path}", prices=PRICES) as other:
        other.record("p:a", MILLION)
        costs.record("p:a", MILLION)
        assert costs.total == other.total == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_opens_the_file_for_itself(costs: CostTracker, path: Path) -> None:
    costs.record("p:a", MILLION)
    limiter = MultiProviderLimiter(ledger=costs, on_unknown_price="zero")
    limiter.acquire("q:a")  # dropped: it waits to be written, by the parent alone
    child = os.fork()
    if not child:
        costs.record("p:a", MILLION)
        os._exit(0 if costs.total == 2 else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    costs.record("p:a", MILLION)
    assert costs.total == 3
    assert [row["outcome"] for row in costs.rows()] == ["ok", "abandoned", "ok", "ok"]
    assert count(path) == 4


# ---------------------------------------------------------------- keeping it small


def test_writing_tidies_up(path: Path, manual_clock: ManualClock) -> None:
    """Without anybody asking: what is kept stays bounded."""
    with CostTracker(f"sqlite:///{path}", prices=PRICES, keep_rows=1, keep_hours=2, clock=manual_clock) as costs:
        for number in range(96 * 30):
            costs.record("p:a", MILLION, agent=number % 5, run=number)
            manual_clock.advance(900)  # thirty days, each call a run of its own
        assert count(path) <= 96 + 64
        assert count(path, "ledger_hours") <= 6 * 96  # two days, from a midnight on, and what waits its turn
        assert costs.total == 96 * 30
        assert len(costs.report(("agent",))) == 5


def test_a_clock_that_is_wrong_for_a_moment_drops_nothing(costs: CostTracker) -> None:
    for _ in range(200):
        costs.record("p:a", MILLION)
    for _ in range(64):
        costs.record("p:a", MILLION, at=4e9)  # somebody's mistake
    assert len(costs.rows()) == 264


# ---------------------------------------------------------------- what cannot be used


def refusal(path: Path) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        reopened(path)
    return str(caught.value).replace(str(path), "FILE")


def test_a_file_that_is_no_database(path: Path) -> None:
    path.write_text("so it is not")
    assert refusal(path) == (
        "The ledger in 'FILE' cannot be used: file is not a database. Move that file away, or name another one."
    )
    assert path.read_text() == "so it is not"


def test_a_damaged_file(path: Path, costs: CostTracker) -> None:
    for number in range(2_000):
        costs.record("p:a", MILLION, run=number)
    costs.close()
    content = bytearray(path.read_bytes())
    content[4096:-4096] = b"\xff" * (len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match="damaged: move it away, and restore a copy"):
        reopened(path).rows()


def test_a_folder_that_is_not_there(path: Path) -> None:
    assert refusal(path / "below") == (
        "The ledger in 'FILE' cannot be used: unable to open database file. "
        "Make its directory, and let this process write there."
    )


def test_a_ledger_of_a_later_release(path: Path) -> None:
    reopened(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE ledger_meta SET value = '9'")
    connection.close()
    assert refusal(path) == (
        "The ledger in 'FILE' has version 9, this release reads 1: update agent-rate-limiter, or name another file."
    )


def test_a_ledger_is_read_without_being_touched(path: Path, costs: CostTracker) -> None:
    costs.record("p:a", MILLION)
    reader = SqliteLedger(str(path), KEEP, must_exist=True)
    assert sum(sums[4] for _, _, sums in reader.sums(None, None)) == 10**9
    with pytest.raises(StoreUnavailable, match="Make the file and its directory writable"):
        reader.compact(10**15)
    reader.close()


@pytest.mark.parametrize("content", [None, b""])
def test_what_is_read_must_be_a_ledger(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreUnavailable) as caught:
        SqliteLedger(str(path), KEEP, must_exist=True)
    assert ("holds no ledger" if content == b"" else "There is no ledger") in str(caught.value)
    assert path.exists() is (content is not None)


def test_another_synchronous(path: Path) -> None:
    with CostTracker(f"sqlite:///{path}", synchronous="full", prices=PRICES) as costs:
        costs.record("p:a", MILLION)
        assert costs.total == 1
    with pytest.raises(ValueError, match="synchronous is 'off': give 'normal' or 'full'"):
        CostTracker(f"sqlite:///{path}", synchronous="off")
