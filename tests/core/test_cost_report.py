"""Reports as data, files, tables and pictures."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from agent_rate_limiter import ConfigError, CostReport, CostTracker, Price, Usage
from agent_rate_limiter.testing import ManualClock

PRICES = {"p:a": Price(1, 1), "q:b": Price(2, 2)}


@pytest.fixture
def costs(manual_clock: ManualClock) -> CostTracker:
    tracker = CostTracker(prices=PRICES, clock=manual_clock)
    for day, target, agent, tokens in (
        (0, "p:a", "x", 1_000_000),
        (0, "q:b", "y & <i>z</i>", 250),
        (1, "q:b", "x", 2_000_000),
        (1, "p:a", "", 1),
    ):
        labels: dict[str, Any] = {"agent": agent} if agent else {}
        tracker.record(target, Usage(input_tokens=tokens), at=manual_clock.now() / 1000 + day * 86_400, **labels)
    return tracker


# ---------------------------------------------------------------- data


def test_csv(costs: CostTracker, tmp_path: Path) -> None:
    text = costs.report(("agent",)).to_csv(tmp_path / "costs.csv")
    assert text == (tmp_path / "costs.csv").read_text(encoding="utf-8")
    assert text == (
        "agent,requests,input_tokens,output_tokens,cached_input_tokens,cost\n"
        "x,2,3000000,0,0,5\n"
        "y & <i>z</i>,1,250,0,0,0.0005\n"
        ",1,1,0,0,0.000001\n"
    )


def test_single_calls_as_csv(costs: CostTracker) -> None:
    rows = list(csv.DictReader(io.StringIO(costs.rows().to_csv())))
    assert rows[0]["labels"] == ""
    assert json.loads(rows[2]["labels"]) == {"agent": "y & <i>z</i>"}
    assert rows[3]["time"] == "2026-01-01T00:00:00.000+00:00"
    assert (rows[3]["cost"], rows[3]["price"]) == ("1", "user")


def test_json(costs: CostTracker, tmp_path: Path) -> None:
    report = costs.report(("agent",), every="day")
    text = report.to_json(tmp_path / "costs.json")
    assert json.loads(text) == json.loads((tmp_path / "costs.json").read_text(encoding="utf-8")) == report.to_dicts()
    assert json.loads(costs.rows().to_json())[3]["time"] == "2026-01-01T00:00:00.000+00:00"


def test_pandas(costs: CostTracker) -> None:
    pandas: Any = import_module("pandas")  # without its stubs
    frame = costs.report(("agent",)).to_pandas()
    assert list(frame.columns) == ["agent", *costs.report().columns]
    assert frame.cost.sum() == pytest.approx(5.000501)
    calls = costs.rows().to_pandas()
    assert pandas.api.types.is_datetime64_any_dtype(calls.time)
    assert list(CostTracker().report().to_pandas().columns)[:2] == ["provider", "model"]


@pytest.mark.parametrize(
    ("module", "use", "message"),
    [
        ("pandas", "to_pandas", "to_pandas() needs pandas: pip install pandas. Or use to_dicts()."),
        ("matplotlib", "plot", "plot() needs matplotlib: pip install 'agent-rate-limiter[notebook]'."),
    ],
)
def test_what_is_not_installed(
    costs: CostTracker, monkeypatch: pytest.MonkeyPatch, module: str, use: str, message: str
) -> None:
    for name in (module, f"{module}.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError) as caught:
        getattr(costs.report(), use)()
    assert str(caught.value) == message


def test_the_total(costs: CostTracker) -> None:
    assert costs.report(("agent",)).total == costs.total == 5.000501
    assert costs.rows().total == 5.000501
    assert CostReport((), ()).total == 0


# ---------------------------------------------------------------- tables


def test_periods_come_in_order_and_within_them_the_dearest_first(costs: CostTracker) -> None:
    assert str(costs.report(("agent",), every="day")) == (
        "period      agent         requests  input_tokens  output_tokens  cached_input_tokens     cost\n"
        "2026-01-01  x                    1     1,000,000              0                    0  $1.0000\n"
        "2026-01-01  y & <i>z</i>         1           250              0                    0  $0.0005\n"
        "2026-01-02  x                    1     2,000,000              0                    0  $4.0000\n"
        "2026-01-02                       1             1              0                    0  $0.0000"
    )


def test_single_calls_as_a_table(costs: CostTracker) -> None:
    head, *lines = str(costs.rows(2)).splitlines()
    assert head.split()[:4] == ["time", "provider", "model", "labels"]
    assert lines[1].startswith("2026-01-02 00:00:00  q         b      agent=x         1     2,000,000")


def cells(html: str) -> list[list[str]]:
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line) for line in re.findall(r"<tr>(.*?)</tr>", html)]


def test_a_notebook_shows_a_table(costs: CostTracker) -> None:
    report: Any = costs.report(("agent",))
    head, *rows, total = cells(report._repr_html_())
    assert head == ["agent", "requests", "input tokens", "output tokens", "cached input tokens", "cost"]
    assert rows[0] == ["x", "2", "3,000,000", "0", "0", "$5.0000"]
    assert rows[1][0] == "y &amp; &lt;i&gt;z&lt;/i&gt;"  # whatever a label holds, it is text
    assert total == ["total", "4", "3,000,251", "0", "0", "$5.0005"]


def test_a_long_table_is_cut_and_says_so() -> None:
    tracker = CostTracker(prices=PRICES)
    for run in range(250):
        tracker.record("p:a", Usage(input_tokens=run), run=run)
    report: Any = tracker.report(("run",))
    html = report._repr_html_()
    assert len(cells(html)) == 1 + 200 + 1
    assert "50 more rows are not shown." in html
    assert cells(html)[-1][1] == "250"


def test_a_notebook_shows_what_has_no_price() -> None:
    tracker = CostTracker(on_unknown_price="zero")
    report: Any = tracker.report()
    assert len(cells(report._repr_html_())) == 1
    for _ in range(2):
        tracker.record("p:c", Usage(input_tokens=1))
    report = tracker.report(())
    assert cells(report._repr_html_())[1:] == [["2", "2", "0", "0", "$0.0000"]]
    assert "2 requests have no known price and count as $0" in report._repr_html_()


# ---------------------------------------------------------------- pictures


@pytest.fixture
def ax() -> Any:
    from matplotlib.figure import Figure

    return Figure().subplots()


def test_bars_of_groups_the_dearest_on_top(costs: CostTracker, ax: Any) -> None:
    costs.report(("agent",)).plot(ax)
    assert ax.get_title() == "Cost by agent"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["(none)", "y & <i>z</i>", "x"]
    assert [text.get_text() for text in ax.texts] == ["$0.0000", "$0.0005", "$5.00"]
    assert [bar.get_width() for bar in ax.patches] == [0.000001, 0.0005, 5]


def test_what_is_too_much_for_a_picture_is_one_bar(costs: CostTracker, ax: Any) -> None:
    costs.report(("agent",)).plot(ax, top=1)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["all others", "x"]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.000501, 5])


def test_bars_of_periods_are_divided_by_groups(costs: CostTracker, ax: Any) -> None:
    costs.report(("agent",), every="day").plot(ax, top=2)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2026-01-01", "2026-01-02"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["x", "y & <i>z</i>", "all others"]
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([1, 4, 0.0005, 0, 0, 0.000001])
    assert [bar.get_y() for bar in ax.patches] == pytest.approx([0, 0, 1, 4, 1.0005, 4])


def test_one_bar_for_each_period(costs: CostTracker, ax: Any) -> None:
    costs.report((), every="day").plot(ax)
    assert [bar.get_height() for bar in ax.patches] == [1.0005, 4.000001]
    assert ax.get_legend() is None
    assert ax.get_title() == "Cost"


def test_axes_of_its_own(costs: CostTracker) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    drawn: Any = costs.report(()).plot()
    assert drawn is plt.gca()
    assert len(drawn.patches) == 1
    plt.close("all")


def test_no_calls_no_picture(ax: Any) -> None:
    CostTracker().report().plot(ax)
    assert ax.get_title() == "Cost: no calls yet"
    assert not ax.patches


def test_single_calls_have_no_picture(costs: CostTracker, ax: Any) -> None:
    with pytest.raises(ConfigError, match=r"draw a report, such as costs.report\(every='hour'\)"):
        costs.rows().plot(ax)


def test_times_are_aware(costs: CostTracker) -> None:
    moment = costs.rows().to_dicts()[0]["time"]
    assert isinstance(moment, datetime)
    assert moment.tzinfo is timezone.utc
