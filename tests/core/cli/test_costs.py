"""`agent-rate-limiter costs FILE`: what a ledger says was spent."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from agent_rate_limiter import CostTracker, Price, Usage
from tests.core.cli.conftest import Done

NOW = datetime.now(timezone.utc)
YESTERDAY = NOW - timedelta(days=1)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "costs.db"
    with CostTracker(f"sqlite:///{path}", prices={"p:a": Price(1, 2)}, on_unknown_price="zero") as costs:
        costs.record("p:a", Usage(input_tokens=2_000_000), at=YESTERDAY - timedelta(days=1), agent="x")
        costs.record("p:a", Usage(input_tokens=1_000_000), agent="x", latency=2)
        costs.record("p:a", Usage(input_tokens=500_000), agent="y")
        costs.record("p:b", Usage(input_tokens=7), agent="y")
    return str(path)


def test_a_table_with_the_total(command: Callable[..., Done], file: str) -> None:
    done = command("costs", file)
    assert (done.code, done.stderr) == (0, "")
    assert done.lines == [
        "provider model requests input_tokens output_tokens cached_input_tokens cost",
        "p a 3 3,500,000 0 0 $3.5000",
        "p b 1 7 0 0 $0.0000",
        "total 4 3,500,007 0 0 $3.5000",
        "1 request has no known price and counts as $0: give a price, or see report(by=('price', 'model')).",
    ]


@pytest.mark.parametrize("since", ["36h", "1d", YESTERDAY.isoformat(), f"{YESTERDAY:%Y-%m-%d}"])
def test_of_some_time(command: Callable[..., Done], file: str, since: str) -> None:
    done = command("costs", file, "--since", since, "--by", "agent")
    assert done.lines[1:3] == ["x 1 1,000,000 0 0 $1.0000", "y 2 500,007 0 0 $0.5000"]


def test_until(command: Callable[..., Done], file: str) -> None:
    assert command("costs", file, "--until", "1d", "--by", "agent").lines[1] == "x 1 2,000,000 0 0 $2.0000"


def test_periods_and_several_labels(command: Callable[..., Done], file: str) -> None:
    apart = command("costs", file, "--every", "day", "--by", "agent", "--by", "model")
    together = command("costs", file, "--every", "day", "--by", "agent,model")
    assert apart.stdout == together.stdout
    assert apart.lines[1] == f"{YESTERDAY - timedelta(days=1):%Y-%m-%d} x a 1 2,000,000 0 0 $2.0000"


def test_other_forms(command: Callable[..., Done], file: str) -> None:
    assert command("costs", file, "--csv", "--by", "agent").stdout.splitlines()[1] == "x,2,3000000,0,0,3"
    assert json.loads(command("costs", file, "--json", "--by", "agent").stdout)[0]["cost"] == 3.0


def test_single_calls(command: Callable[..., Done], file: str) -> None:
    rows = json.loads(command("costs", file, "--json", "--calls", "3").stdout)
    assert [(row["model"], row["latency"]) for row in rows] == [("b", 0.0), ("a", 0.0), ("a", 2.0)]
    assert len(json.loads(command("costs", file, "--json", "--calls", "9", "--since", "12h").stdout)) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--since", "99999999w"], "'99999999w': give a date such as 2026-11-20, or 24h, 7d, 4w ago."),
        (["--timezone", "Mars"], "timezone is 'Mars'"),
        (["--since", "yesterday"], "'yesterday': give a date such as 2026-11-20, or 24h, 7d, 4w ago."),
        (["--by", "cost"], "by holds 'cost': that is a column of every report"),
        (["--every", "day", "--timezone", "Mars"], "timezone is 'Mars'"),
        (["--calls", "0"], "0 is not in the range"),
    ],
)
def test_what_makes_no_sense(command: Callable[..., Done], file: str, options: list[str], message: str) -> None:
    done = command("costs", file, *options)
    assert (done.code, done.stdout) == (2, "")
    assert message in done.stderr


def test_a_file_that_is_not_there(command: Callable[..., Done], tmp_path: Path) -> None:
    done = command("costs", str(tmp_path / "costs.db"))
    assert done.code == 2
    assert done.stderr.startswith("There is no ledger ")
    assert not list(tmp_path.iterdir())
