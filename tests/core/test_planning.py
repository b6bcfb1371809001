"""Plans: what a workload takes and costs, what binds, and what raising that would bring."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_rate_limiter import ConfigError, Plan, plan
from agent_rate_limiter.planning import drawing
from agent_rate_limiter.testing import ManualClock
from tests.core.plans import config, rows

# ---------------------------------------------------------------- what a plan says


def test_nothing_binds() -> None:
    found = plan(config(), "5 agents x 2 calls, 1k in, 100 out, 3 s each")
    assert (found.calls, found.served, found.refused) == (10, 10, 0)
    assert (found.seconds, found.unlimited_seconds) == (6, 6)
    assert found.cost == pytest.approx(10 * (0.01 + 0.002))
    assert (found.input_tokens, found.output_tokens) == (10_000, 1_000)
    assert (found.mean_wait, found.max_wait, found.limits, found.notes) == (0, 0, (), ())
    assert "nobody waits" in str(found)
    assert "No limit binds." in str(found)
    assert "No limit binds." in found._repr_html_()


def test_a_minutes_tokens_bind() -> None:
    """A bucket of 10,000 at once, then 10,000 a minute; each call takes 1,100."""
    found = plan(config(tpm=10_000), "50 calls, 1k in, 100 out, 1 s each")
    assert found.seconds == pytest.approx((50 * 1_100 - 10_000) / 10_000 * 60 + 1, abs=0.1)
    (binding,) = found.limits
    assert (binding.owner, binding.name) == ("p:m", "10,000 tokens/minute")
    assert binding.share == pytest.approx(1 - 1 / found.seconds, abs=0.01)
    assert binding.raised_seconds == pytest.approx((50 * 1_100 - 20_000) / 20_000 * 60 + 1, abs=0.1)
    assert binding.raised_refused == 0
    assert binding.raised_cost == pytest.approx(found.cost)
    assert found.max_wait == pytest.approx(found.seconds - 1)
    assert found.mean_wait < found.p95_wait <= found.max_wait


def test_slots_bind_and_tokens_bind_once_they_are_raised() -> None:
    found = plan(config(concurrency=5, rpm=60), "30 agents x 10 calls, 1 in, 1 out, 10 s each")
    assert found.seconds == pytest.approx(300 / 5 * 10)
    assert list(rows(found)) == ["p:m: 5 at once"]
    assert found.limits[0].raised_seconds == pytest.approx(300)  # 10 at once: a call a second, as rpm allows, too
    found = plan(config(concurrency=5, rpm=60), "30 agents x 10 calls, 1 in, 1 out, 10 s each", factor=10)
    assert found.limits[0].raised_seconds == pytest.approx(240 + 10)  # 60 at once, then a call a second


def test_a_budget_refuses_what_it_cannot_pay() -> None:
    found = plan(config(budget=1.0, tpm=100_000), "100 calls, 1k in, 1k out, 1 s each")
    assert (found.served, found.refused) == (33, 67)  # 3 cents each
    assert found.cost == pytest.approx(0.99)
    binding = found.limits[0]
    assert (binding.owner, binding.name, binding.refused) == ("budget", "budget $1.00/day", 67)
    assert binding.raised_refused == 34
    assert binding.raised_cost == pytest.approx(1.98)
    assert len(found.refusals) == 1
    assert "p:m is refused by 'budget $1.00/day'" in found.refusals[0]
    text = str(found)
    assert "33 of 100 are made, 67 are refused" in text
    assert "66 calls made for $1.98" in text


def test_each_agents_limit_is_one_line() -> None:
    own = [{"resource": "requests", "amount": 6, "per": "minute", "burst": 1, "scope": {"agent": "each"}}]
    found = plan(config(limits=own), "10 agents x 7 calls, 1 in, 1 out, 1 s each")
    assert found.seconds == pytest.approx(61)
    (binding,) = found.limits
    assert binding.name == "6 requests/minute"
    assert binding.share == pytest.approx(54 / 61, abs=0.01)  # nine seconds in ten they wait
    assert binding.raised_seconds == pytest.approx(26)  # two at once, then one in five seconds


def test_a_call_that_never_fits_is_refused() -> None:
    found = plan(config(tpm=500), "3 calls, 1k in; 1 call, 1 in, 5 out")
    assert (found.served, found.refused) == (1, 3)
    assert "never holds more than 500 tokens" in str(found)
    assert found.limits[0].raised_refused == 0


def test_fallbacks_serve_where_the_first_cannot() -> None:
    models = {"a": {"rpm": 1, "limits": ["3 requests/day"], "fallbacks": ["b"]}, "b": {"rpm": 10**6}}
    found = plan({"providers": {"p": {"models": models}}}, "10 agents x 1 calls, 1 in, 1 out, 1 s each")
    assert found.targets == {"p:b": 9, "p:a": 1}
    assert "  by      p:b (9), p:a (1)" in str(found)
    assert "p:a has no price: its calls cost nothing here." in found.notes


def test_a_refusal_of_every_target_is_counted() -> None:
    models = {"a": {"tpm": 10, "fallbacks": ["b"]}, "b": {"tpm": 10}}
    found = plan({"providers": {"p": {"models": models}}}, "2 calls, 100 in")
    assert (found.served, found.refused, found.seconds) == (0, 2, 0)
    assert "2 are refused" in str(found)


def test_nobody_is_alerted_and_nothing_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = config(budget=0.5)
    database = f"sqlite:///{tmp_path}/agents.db"
    options |= {"on_alert": {"webhook": "http://127.0.0.1:1/"}, "store": database, "ledger": database}
    with caplog.at_level(logging.WARNING):
        assert plan(options, "100 calls, 1k in, 1k out").refused > 0
    assert caplog.messages == []
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_the_same_each_time_and_plain_data() -> None:
    first, second = (plan(config(tpm=10_000), "20 calls, 1k in") for _ in range(2))
    assert first == second
    assert repr(first) == "<Plan: 20 of 20 calls in 1 min for $0.2000; p:m: 10,000 tokens/minute binds>"
    assert repr(plan(config(), "1 call, 1 s each")) == "<Plan: 1 of 1 calls in 1 s for $0.00>"
    found = json.loads(json.dumps(first.to_dict()))
    assert found["calls"] == 20
    assert found["limits"][0]["name"] == "10,000 tokens/minute"
    assert "_outcome" not in found


def test_inside_a_notebook_where_a_loop_is_running() -> None:
    async def cell() -> Plan:
        return plan(config(), "3 calls, 1 s each")

    assert asyncio.run(cell()).seconds == 1

    async def wrong() -> None:
        plan(config(), "3 calls, to p:x")

    with pytest.raises(ConfigError, match="workload: target is 'p:x'"):
        asyncio.run(wrong())

    async def broken() -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("agent_rate_limiter.planning.simulation.run_virtual", _fail)
            plan(config(), "3 calls")

    with pytest.raises(RuntimeError, match="Deadlock"):
        asyncio.run(broken())


def _fail(main: Any, clock: ManualClock) -> None:
    main.close()
    raise RuntimeError("Deadlock")


def test_only_the_three_that_matter_most_are_tried() -> None:
    models = {name: {"rpm": 30, "limits": [{"resource": "requests", "amount": 1, "per": 1}]} for name in "abcd"}
    work = "; ".join(
        f"{calls} calls, 1 s each, to p:{name}" for calls, name in zip((90, 80, 70, 60), "abcd", strict=True)
    )
    found = plan({"providers": {"p": {"models": models}}}, work)
    tried = [binding for binding in found.limits if binding.raised_seconds is not None]
    assert len(found.limits) > len(tried) == 3
    assert str(found).splitlines()[-1].startswith("p:d has no price")


# ---------------------------------------------------------------- how it looks


def test_the_text_is_a_table() -> None:
    found = plan(config(concurrency=5), "30 agents x 10 calls, 1k in, 100 out, 10 s each")
    assert str(found).splitlines() == [
        "30 agents x 10 calls, 1k in, 100 out, 10 s each",
        "  calls   300 of 300 are made",
        "  takes   10 min; 1 min 40 s without limits",
        "  pace    30 calls a minute",
        "  costs   $3.60",
        "  tokens  300,000 in, 30,000 out",
        "  waits   48 s on average, 50 s at most",
        "",
        "what binds      of the time  refuses  2 times as much of it",
        "p:m: 5 at once          98%           5 min, 50% less",
    ]


def test_the_notebook_shows_a_table_without_markup_of_others() -> None:
    entries = [{"input_tokens": 1, "target": "p:<b>m</b>"}] * 3
    options = {"providers": {"p": {"models": {"<b>m</b>": {"concurrency": 1}}}}}
    html = plan(options, entries)._repr_html_()
    assert "p:&lt;b&gt;m&lt;/b&gt;: 1 at once" in html
    assert "<b>m</b>" not in html
    assert html.count("<table>") == 2


def test_the_picture(tmp_path: Path) -> None:
    options = config(budget=1.0, tpm=20_000)
    found = plan(options, "100 calls, 1k in, 1k out, 1 s each")
    figure: Any = found.plot()
    calls, limits = figure.axes
    assert calls.get_title(loc="left").startswith("100 calls, 1k in, 1k out, 1 s each: ")
    labels = [label.get_text() for label in limits.get_yticklabels()]
    assert labels[0].startswith("budget $1.00/day\n")
    assert "67 refused" in labels[0]
    assert labels[1] == "p:m: 20,000 tokens/minute\n" + f"{found.limits[1].share:.0%} of the time"
    assert limits.get_xlabel() == "minutes"
    assert calls.lines[0].get_ydata()[-1] == 33
    figure.savefig(tmp_path / "plan.png")
    assert figure._repr_png_().startswith(b"\x89PNG")  # what a notebook shows
    long: Any = plan(options, "100 calls, 1k in, 1k out, 1 s each; 100 calls, 1k in, 1k out, 1 s each").plot()
    assert long.axes[0].get_title(loc="left").startswith("200 calls: ")
    (bars,) = limits.collections[1:]
    assert len(bars.get_paths()) == 1  # held up all the time, though by many calls
    quiet: Any = plan(config(), "1 call, 1k in, 1 s each").plot()
    assert quiet.axes[1].get_title(loc="left") == "no limit binds"
    assert quiet.axes[0].get_title(loc="left") == "1 call, 1k in, 1 s each: 1 s, $0.0100"


def test_gaps_that_nobody_could_see_are_closed() -> None:
    assert drawing._merged([(0, 1), (1.05, 2), (5, 6)], 0.1) == [(0, 2), (5, 6)]


def test_without_matplotlib_the_picture_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    drawing._picture.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'agent-rate-limiter\[notebook\]'"):
        plan(config(), "1 call").plot()
