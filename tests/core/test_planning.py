"""Plans: what a workload takes and costs, what binds, and what raising that would bring."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_rate_limiter import ConfigError, MultiProviderLimiter, Plan, Usage, plan
from agent_rate_limiter.planning import drawing
from agent_rate_limiter.planning.traces import read_workload
from agent_rate_limiter.planning.workload import Workload
from agent_rate_limiter.testing import ManualClock


def config(*, budget: float | None = None, **model: Any) -> dict[str, Any]:
    model = {"input_per_1m": 10, "output_per_1m": 20, "rpm": 10**9, **model}
    return {"providers": {"p": {"models": {"m": model}}}, **({"budget_limit": budget} if budget else {})}


def rows(found: Plan) -> dict[str, Any]:
    return {f"{binding.owner}: {binding.name}": binding for binding in found.limits}


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


# ---------------------------------------------------------------- workloads in words


def shape(work: Workload) -> tuple[Any, ...]:
    call = work.lanes[0].calls[0]
    tokens = (call.input_tokens, call.output_tokens, call.max_output_tokens, call.cached_input_tokens)
    return (len(work.lanes), len(work.lanes[0].calls), *tokens, call.seconds, call.target)


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ("200 agents x 10 calls, 2k in, 500 out", (200, 10, 2_000, 500, 0, 0, 10.5, "")),
        ("2 agents times 3, 1.5k input, 1_000 output tokens", (2, 3, 1_500, 1_000, 0, 0, 20.5, "")),
        ("50k calls, 8 s each", (50_000, 1, 0, 0, 0, 0, 8, "")),
        ("1 agent * 1 call, 1k in, 400 cached, 250 ms each", (1, 1, 1_000, 0, 0, 400, 0.25, "")),
        ("1 Agent × 2 calls, 10 out, 1k max, 2 min each, to p:Model-X", (1, 2, 0, 10, 1_000, 0, 120, "p:Model-X")),  # noqa: RUF001
        ("1 call, max 1k, 1 h", (1, 1, 0, 0, 1_000, 0, 3_600, "")),
    ],
)
def test_words(words: str, read: tuple[Any, ...]) -> None:
    assert shape(read_workload(words)) == read


def test_agents_may_begin_one_after_the_other_and_several_kinds_stand_together() -> None:
    work = read_workload("4 agents x 1 call, over 2 min; 2 calls, 1 s each; 2 agents x 1 call, 1 s each")
    assert [lane.start for lane in work.lanes] == [0, 30, 60, 90, 0, 0, 0, 0]
    agents = [lane.labels.get("agent") for lane in work.lanes]
    assert agents == ["agent 1", "agent 2", "agent 3", "agent 4", None, None, "agent 3.1", "agent 3.2"]
    assert work.calls == 8
    assert work.notes == ("A call takes 0.5 s and 20 ms per token of output (say '8 s each').",)
    assert work.unlimited == 90.5


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("", "it is empty"),
        (";", "it is empty"),
        ("2k in", "it has to say once how many calls there are"),
        ("5 calls, 2 agents x 1 call", "it has to say once how many calls there are"),
        ("5 calls, 2k inn", "'2k inn' is not understood"),
        ("5 calls, 2k in, 1k in", "'1k in' is said twice"),
        ("5 calls, 500 out, 100 max", "500 out is more than its max of 100"),
        ("2M calls", "it has 2,000,000 calls, more than 100,000; plan for a part of it"),
        ("9k agents x 200 calls", "it has 1,800,000 calls, more than 100,000; plan for a part of it"),
        ("70k calls; 70k calls", "it has 140,000 calls, more than 100,000; plan for a part of it"),
    ],
)
def test_words_that_are_not_understood(words: str, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_workload(words)
    assert f": {why}. Write it like '200 agents x 10 calls, 2k in, 500 out';" in str(refused.value)


# ---------------------------------------------------------------- traces


def trace(folder: Path, *lines: str, name: str = "trace.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_a_trace_tells_when_each_call_is_made(tmp_path: Path) -> None:
    path = trace(
        tmp_path,
        '{"at": 0, "input_tokens": 1000, "output_tokens": 100, "seconds": 2, "agent": "a", "run": 7}',
        "",
        '{"at": 60.5, "provider": "p", "model": "m", "max_tokens": 50, "latency": 1, "labels": {"team": "x"}}',
    )
    work = read_workload(path)
    assert [lane.start for lane in work.lanes] == [0, 60.5]
    assert [dict(lane.labels) for lane in work.lanes] == [{"agent": "a", "run": "7"}, {"team": "x"}]
    assert (work.words, work.begins, work.notes) == ("trace.jsonl", None, ())
    found = plan(config(), str(path))
    assert (found.seconds, found.calls, found.input_tokens) == (61.5, 2, 1_000)


@pytest.mark.parametrize("at", ['"2026-03-08T23:59:30-04:00"', '"2026-03-09T03:59:30Z"', "1773028770"])
def test_a_trace_of_the_past_meets_the_calendar_of_its_day(at: str, tmp_path: Path) -> None:
    """Half a minute before midnight in New York: the second call comes on another day."""
    path = trace(
        tmp_path,
        f'{{"at": {at}, "input_tokens": 100000, "seconds": 1}}',
        '{"at": "2026-03-09T04:00:30", "input_tokens": 100000, "seconds": 1}',
    )
    for zone, served in (("America/New_York", 2), ("UTC", 1)):
        assert plan({**config(budget=1.0), "timezone": zone}, path).served == served


def test_calls_without_a_time_follow_their_agents_last(tmp_path: Path) -> None:
    entries = [{"agent": agent, "seconds": 2} for agent in "aab"]
    found = plan(config(), entries)
    assert (found.workload, found.seconds) == ("a list", 4)
    assert plan(config(), [{"output_tokens": 50}]).notes == (
        "Calls without 'seconds' take 0.5 s and 20 ms per token of output.",
    )
    before = plan(config(), [{"at": -5, "seconds": 1}, {"at": 5, "seconds": 1}])
    assert before.seconds == 11


def test_a_deadline_and_a_priority_of_a_trace_count() -> None:
    entries: list[dict[str, Any]] = [
        {"at": 0, "seconds": 10},
        {"at": 1, "seconds": 1, "timeout": 5},
        {"at": 2, "seconds": 1},
    ]
    entries += [{"at": 3, "seconds": 1, "priority": 0, "agent": "urgent"}]
    found = plan(config(concurrency=1), entries)
    assert (found.served, found.refused, found.seconds) == (3, 1, 12)
    assert found.max_wait == 9  # the one that came second is passed over


def test_the_ledgers_rows_are_a_trace(tmp_path: Path, manual_clock: ManualClock) -> None:
    options = config(cached_input_per_1m=2)
    limiter = MultiProviderLimiter.from_config(options, clock=manual_clock)
    for agent in "ab":
        with limiter.scope(agent=agent):
            call = limiter.acquire("p:m", input_tokens=1_000)
            manual_clock.advance(7)
            call.settle(Usage(1, 1_000, 200, cached_input_tokens=500))
    path = tmp_path / "calls.json"
    limiter.costs.rows().to_json(path)
    found = plan(options, path)
    assert (found.calls, found.seconds, found.notes) == (2, 14, ())
    assert found.cost == pytest.approx(limiter.costs.total)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "line 2: it is not JSON: "),
        ("5", 'line 2: it is 5: give an object such as {"input_tokens": 2000, …}.'),
        ('{"input_token": 5}', "line 2: input_token: unknown key; did you mean 'input_tokens'?"),
        ('{"xyz": 5}', "line 2: xyz: unknown key; it is one of at, target, provider, model, labels, agent, run, "),
        ('{"input_tokens": -5}', "line 2: input_tokens is -5: give a whole number of at least 0."),
        ('{"output_tokens": 5.5}', "line 2: output_tokens is 5.5: give a whole number of at least 0."),
        ('{"priority": true}', "line 2: priority is True: give a whole number of at least 0."),
        ('{"seconds": "5"}', "line 2: seconds is '5': give seconds of at least 0."),
        ('{"timeout": -1}', "line 2: timeout is -1: give seconds of at least 0."),
        ('{"at": "noon"}', "line 2: at is 'noon': give seconds, or a time such as '2026-11-23T15:40:00Z'."),
        ('{"target": "gpt-4"}', "line 2: target is 'gpt-4': write it as 'provider:model'."),
        ('{"model": "gpt-4"}', "line 2: give both provider and model, or target as 'provider:model'."),
        ('{"labels": "a"}', 'line 2: labels is \'a\': give an object such as {"agent": "researcher"}.'),
        ('{"labels": {"budget": 5}}', "line 2: labels hold 'budget': that is no label; rename it."),
        ('{"target": "p:x"}', "line 2: target is 'p:x': "),
    ],
)
def test_a_line_that_makes_no_sense_is_named(line: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        plan(config(), trace(tmp_path, "{}", line))
    assert str(refused.value).startswith(f"trace.jsonl: {why}")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("nowhere.jsonl", "nowhere.jsonl: cannot be read: No such file or directory."),
        (5, "workload is 5: give words such as"),
        ({"input_tokens": 5}, "workload is {'input_tokens': 5}: give words such as"),
        ([], "workload a list: there is no call in it."),
        ([5], 'workload[0]: it is 5: give an object such as {"input_tokens": 2000, …}.'),
    ],
)
def test_what_is_no_workload(given: Any, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        plan(config(), given)
    assert str(refused.value).startswith(why)


def test_files_that_are_no_traces(tmp_path: Path) -> None:
    for name, content, why in (
        ("a.json", b"{}", "a.json: it is no list: give a JSON list of calls, or a .jsonl file."),
        ("a.json", b"[{}, 5]", "a.json[1]: it is 5: "),
        ("a.jsonl", b"\xff", f"{tmp_path}/a.jsonl: cannot be read: it is not UTF-8 text."),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ConfigError) as refused:
            plan(config(), path)
        assert str(refused.value).startswith(why)


@pytest.mark.parametrize("factor", [1, 0, -2, True, "2", float("nan"), 10**6])
def test_a_factor_raises(factor: Any) -> None:
    with pytest.raises(ConfigError, match=r"factor is .*: give a number above 1, such as 2\."):
        plan(config(), "1 call", factor=factor)


def test_a_configuration_without_models_needs_a_target() -> None:
    with pytest.raises(ConfigError, match="workload names no target, and the configuration no model"):
        plan({"providers": {"p": {"models": {"*": {"rpm": 5}}}}}, "1 call")
    assert plan({"providers": {"p": {"models": {"*": {"rpm": 5}}}}}, "1 call, to p:any").served == 1
    found = plan({}, "9 calls, to p:any, 1 s each")
    assert (found.limits[0].name, found.limits[0].raised_seconds) == ("slow start", None)
    assert "p:any has no limits here: it starts slowly, until its own are known." in found.notes
