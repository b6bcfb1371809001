"""Workloads of plans: in words, and as traces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent_rate_limiter import ConfigError, MultiProviderLimiter, Usage, plan
from agent_rate_limiter.planning.traces import read_workload
from agent_rate_limiter.planning.workload import Workload
from agent_rate_limiter.testing import ManualClock
from tests.core.plans import config

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
