"""Labels come from users, frameworks and models: whatever is in them, no table, file, page or terminal breaks."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from agent_rate_limiter import Budget, CostReport, CostTracker, MultiProviderLimiter, Price, Provider, Scope, Usage
from agent_rate_limiter.redaction import one_line
from agent_rate_limiter.testing import ManualClock

FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1"]
ODD = [
    "a\nb",
    "\x1b[31mred\x1b[0m",
    "<script>alert(1)</script>",
    "日本語",
    "😀",
    "x" * 5_000,
    'quo"te',
    "a,b",
    "e\u0301",
]
PRICES = {"p:m": Price(1, 2)}


@pytest.fixture(params=["memory://", "sqlite"])
def report(request: pytest.FixtureRequest, tmp_path: Path) -> CostReport:
    uri = f"sqlite:///{tmp_path}/costs.db" if request.param == "sqlite" else request.param
    with CostTracker(uri, prices=PRICES) as costs:
        for label in FORMULAS + ODD:
            costs.record("p:m", Usage(input_tokens=1_000), agent=label)
        return costs.report(by=("agent",))


def test_json_has_every_label_as_it_was(report: CostReport) -> None:
    assert {row["agent"] for row in json.loads(report.to_json())} == {*FORMULAS, *ODD}
    assert {row["agent"] for row in report} == {*FORMULAS, *ODD}


def test_a_spreadsheet_calculates_no_label(report: CostReport) -> None:
    read = {row["agent"] for row in csv.DictReader(io.StringIO(report.to_csv(), newline=""))}
    assert read == {f"'{label}" for label in FORMULAS[:-1]} | {r"'\r=1", *ODD}


def test_numbers_stay_numbers_in_csv() -> None:
    costs = CostTracker(prices=PRICES)
    costs.record("p:m", Usage(input_tokens=1_000, output_tokens=7))
    assert costs.report().to_csv().splitlines()[1] == "p,m,1,1000,7,0,0.001014"


def test_a_table_has_a_line_for_each_row_and_no_control_characters(report: CostReport) -> None:
    lines = str(report).split("\n")
    assert len(lines) == 1 + len(FORMULAS + ODD)
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < 120
    assert any(line.startswith("a\\nb ") for line in lines)


def test_columns_stand_where_a_terminal_puts_them(report: CostReport) -> None:
    """Signs of Chinese, Japanese, Korean and emoji take two places, accents that combine none."""
    ends = {label: str(report).split("\n") for label in ("日本語", "😀", "e\u0301", "a,b")}
    width = {
        label: next(line for line in lines if line.startswith(label)).index("  1 ") for label, lines in ends.items()
    }
    assert width["日本語"] + 3 == width["😀"] + 1 == width["e\u0301"] - 1 == width["a,b"]


def test_a_page_runs_no_label(report: CostReport) -> None:
    page = report._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"[\x00-\x1f]", page)


def test_single_calls_and_a_plot_take_them_as_well(report: CostReport) -> None:
    pytest.importorskip("matplotlib").use("agg")
    costs = CostTracker(prices=PRICES)
    costs.record("p:m", Usage(input_tokens=1_000), agent="a\nb", team="=1")
    table = str(costs.rows())
    assert "agent=a\\nb team==1" in table
    assert table.count("\n") == 1
    assert report.plot() is not None


def test_alerts_errors_and_explanations_stay_on_one_line(
    manual_clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Or else a label could write lines of its own into a log."""
    told: list[Any] = []
    limiter = MultiProviderLimiter(
        [Provider("p", {"m": {"cost_per_1k": 1}})],
        clock=manual_clock,
        budgets=[Budget(1, "total", scope=Scope(agent="each"))],
        on_alert=told.append,
    )
    with limiter.scope(agent="x\nCRITICAL root: all is lost\x1b[2J"), caplog.at_level(logging.WARNING):
        limiter.acquire("p:m", input_tokens=900, max_output_tokens=1).settle(Usage(input_tokens=950))
        refused = limiter.try_acquire("p:m", input_tokens=900, max_output_tokens=1)
        said = str(limiter.explain("p:m", input_tokens=900, max_output_tokens=1))
    assert limiter.alerts.flush()
    shown = r"x\nCRITICAL root: all is lost\x1b[2J"
    assert [shown in str(alert) for alert in told] == [True] * len(told) != []
    assert shown in refused.reason  # type: ignore[union-attr]
    assert f"  taken by: {shown} 100%" in said.split("\n")
    for text in (*map(str, told), *caplog.messages, *said.split("\n"), *str(limiter.snapshot()).split("\n")):
        assert text.isprintable()


def test_labels_that_look_alike_when_shown_stay_apart(manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter(
        [Provider("p", {"m": {"cost_per_1k": 1}})],
        clock=manual_clock,
        budgets=[Budget(1, "total", scope=Scope(agent="each"))],
    )
    for agent in ("a\n", "a\\n"):
        with limiter.scope(agent=agent):
            assert limiter.try_acquire("p:m", input_tokens=900, max_output_tokens=1)


@pytest.mark.parametrize(
    ("text", "most", "shown"),
    [("plain", None, "plain"), ("a\nb", None, "a\\nb"), ("abcdef", 4, "abc…"), ("abcd", 4, "abcd"), ("", 3, "")],
)
def test_one_line(text: str, most: int | None, shown: str) -> None:
    assert one_line(text, most) == shown
