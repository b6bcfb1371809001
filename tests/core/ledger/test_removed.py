"""A file that is removed or replaced while it is in use: that is told, and what comes next is kept in the new one."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from agent_rate_limiter import CostTracker, MultiProviderLimiter, Price, Usage
from agent_rate_limiter.stores.sqlite import file as sqlite_file
from agent_rate_limiter.stores.sqlite import gone

PRICES = {"p:m": Price(1, 1)}
MILLION = Usage(input_tokens=1_000_000)


@pytest.fixture(autouse=True)
def _look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gone, "_EVERY", 0.0)


def remove(file: Path) -> None:
    for each in file.parent.glob(f"{file.name}*"):
        each.unlink()


def test_books_go_on_in_a_new_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "costs.db"
    with CostTracker(f"sqlite:///{file}", prices=PRICES) as costs:
        costs.record("p:m", MILLION)
        remove(file)
        costs.record("p:m", MILLION)
        costs.record("p:m", MILLION)
        assert file.exists()
        assert costs.total == 2
    with CostTracker.reading(str(file)) as found:
        assert found.total == 2
    (said,) = caplog.messages
    assert said.startswith(f"The file {file} was removed or replaced while it was in use")


def test_a_program_that_changes_its_directory_misses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    with CostTracker("sqlite:///costs.db", prices=PRICES) as costs:
        costs.record("p:m", MILLION)
        (tmp_path / "below").mkdir()
        monkeypatch.chdir("below")
        costs.record("p:m", MILLION)
        assert costs.total == 2
    assert not caplog.messages


def test_a_log_that_is_removed_is_missed_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "costs.db"
    with CostTracker(f"sqlite:///{file}", prices=PRICES) as costs:
        costs.record("p:m", MILLION)
        Path(f"{file}-wal").unlink()
        costs.record("p:m", MILLION)
        costs.record("p:m", MILLION)
    with CostTracker.reading(str(file)) as found:
        assert found.total == 3
    assert [said.split(" was removed")[0] for said in caplog.messages] == [f"The file {file}-wal"]


def test_a_log_that_grows_because_somebody_reads_is_spoken_of_and_cut_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gone, "_LARGE", 200_000)
    monkeypatch.setattr(sqlite_file, "_LOG_KEPT", 100_000)
    file = tmp_path / "costs.db"
    log = Path(f"{file}-wal")
    with CostTracker(f"sqlite:///{file}", prices=PRICES) as costs:
        costs.record("p:m", MILLION)
        with closing(sqlite3.connect(file, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM ledger_rows").fetchone()
            while log.stat().st_size < 300_000:
                costs.record("p:m", MILLION)
            reader.execute("COMMIT")
            reader.execute("PRAGMA wal_checkpoint")
        costs.record("p:m", MILLION)
        assert log.stat().st_size <= 100_000
    (said,) = caplog.messages
    assert said.startswith(f"The file {log} has grown to 0 MB")
    assert "an open cursor" in said


def test_a_file_that_was_moved_away_keeps_what_it_held(tmp_path: Path) -> None:
    """As logs are rotated."""
    file = tmp_path / "costs.db"
    with CostTracker(f"sqlite:///{file}", prices=PRICES) as costs:
        costs.record("p:m", MILLION)
        for each in list(tmp_path.iterdir()):
            each.rename(tmp_path / each.name.replace("costs", "old"))
        costs.record("p:m", MILLION)
        assert costs.total == 1
    with CostTracker.reading(str(tmp_path / "old.db")) as old:
        assert old.total == 1


def test_nobody_else_loses_what_he_has_written_when_the_program_ends(tmp_path: Path) -> None:
    """The new file's write-ahead log has the name of the old one's, which goes when its connection is closed."""
    file = tmp_path / "costs.db"
    program = f"""
from agent_rate_limiter import CostTracker, Price, Usage
from agent_rate_limiter.stores.sqlite import gone

gone._EVERY = 0.0
costs = CostTracker("sqlite:///{file}", prices={{"p:m": Price(1, 1)}})
costs.record("p:m", Usage(input_tokens=1_000_000))
print("begun", flush=True)
input()
costs.record("p:m", Usage(input_tokens=1_000_000))
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        remove(file)
        with CostTracker(f"sqlite:///{file}", prices=PRICES) as costs:
            costs.record("p:m", MILLION)
            other.communicate(b"\n", timeout=60)
            assert other.returncode == 0
            costs.record("p:m", MILLION)
            assert costs.total == 3
    with CostTracker.reading(str(file)) as found:
        assert found.total == 3


def test_limits_begin_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "agents.db"
    limiter = MultiProviderLimiter(budget_limit=1, store=f"sqlite:///{file}", on_unknown_price="zero")
    limiter.acquire("p:m").settle(Usage(cost=0.75))
    remove(file)
    limiter.acquire("p:m").settle(Usage(cost=0.5))
    (budget,) = [status for status in limiter.snapshot().limits if status.owner == "budget"]
    assert budget.available == 0.5
    assert limiter.costs.total == 0.5
    assert any("was removed or replaced" in message for message in caplog.messages)
    limiter.close()
