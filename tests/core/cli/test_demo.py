"""`agent-rate-limiter demo`: what it runs, shows and judges."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from agent_rate_limiter.cli import demo
from agent_rate_limiter.cli.demo.outcome import Outcome, lesson, problems, rows
from agent_rate_limiter.cli.demo.plan import Plan
from agent_rate_limiter.cli.demo.run import Frame, Run, State, simulated
from agent_rate_limiter.cli.demo.screen import Lines, OnTerminal

DEMO = [sys.executable, "-m", "agent_rate_limiter", "demo"]
PLAN = Plan.lasting(32, agents=20, rpm=240, tpm=120_000, latency=(0.1, 0.4), seed=0)
GOOD = Outcome(
    seconds=20,
    calls=100,
    done=100,
    failed=0,
    errors={},
    agents=20,
    crashed=0,
    requests=100,
    refused=1,
    tokens=5000,
    dollars=0.25,
    share=0.95,
)
BAD = replace(GOOD, done=60, failed=10, errors={"RateLimitError": 10}, crashed=10, refused=30)


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEMO, *options], capture_output=True, text=True, timeout=60, check=False)


def test_a_small_run_ends_with_its_numbers_and_an_exit_code() -> None:
    """One agent does not fail without the limiter, and so it says; `.ci/run` runs the real demo."""
    done = run("--agents", "1", "--seconds", "2", "--rpm", "60", "--tpm", "30000", "--latency", "0.001-0.01", "--json")
    numbers = json.loads(done.stdout)
    without, limited = numbers["without"], numbers["with"]
    assert (done.returncode, done.stderr) == (1, "")
    assert numbers["problems"] == ["without the limiter nothing failed: take more agents, or a lower limit"]
    for outcome in (without, limited):
        assert outcome["done"] == outcome["calls"] == outcome["requests"] - outcome["refused"] == 61
        assert (outcome["failed"], outcome["crashed"], outcome["errors"]) == (0, 0, {})
        assert outcome["tokens"] > 61 * 100
        assert outcome["dollars"] > 0
    assert limited["refused"] == 0
    assert limited["share"] > 0.9


def test_without_a_limiter_agents_crash() -> None:
    plan = Plan(agents=30, calls=3, rpm=60, tpm=60_000, latency=(0, 0), seed=0)

    async def main() -> tuple[Outcome, Frame]:
        async with simulated(plan) as provider:
            run = Run(plan, provider, None)
            return await run.go(), run.frame()

    outcome, frame = asyncio.run(main())
    assert outcome.calls == 90
    assert outcome.done < 90
    assert outcome.failed == outcome.crashed == outcome.errors["RateLimitError"] > 5
    assert outcome.refused >= 3 * outcome.failed  # the SDK tried each call three times
    assert outcome.requests == outcome.done + outcome.refused
    assert frame.agents.count("crashed") == outcome.crashed
    assert frame.used["requests"][0] >= 60
    assert frame.waiting is None


def test_a_pipe_gets_lines() -> None:
    done = run("--agents", "1", "--seconds", "1", "--rpm", "100", "--latency", "0")
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith("1 agent makes 100 calls each to a simulated model that allows 100 requests and ")
    assert len([line for line in lines if re.fullmatch(r" +\d+ s  100 of 100 calls done, \d refused .*", line)]) >= 2
    assert lines[-1].endswith("without the limiter nothing failed: take more agents, or a lower limit.")


@pytest.mark.parametrize(("without", "code"), [(GOOD, 1), (BAD, 0)])
def test_the_exit_code_is_0_if_it_shows_what_it_should(
    without: Outcome, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def attend(*_: object, limited: bool) -> Outcome:
        return GOOD if limited else without

    monkeypatch.setattr(demo, "_attend", attend)
    assert demo.run_demo(PLAN) == code
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == (
        "Not as it should be: without the limiter nothing failed: take more agents, or a lower limit."
        if code
        else lesson(BAD, GOOD)
    )


@pytest.mark.parametrize(
    ("without", "limited", "complaint"),
    [
        (BAD, GOOD, None),
        (BAD, replace(GOOD, done=99), "only 99 of 100 calls succeeded"),
        (BAD, replace(GOOD, refused=2), "2.0% of requests met a 429, more than 1%"),
        (BAD, replace(GOOD, share=0.899), "89.9% of the limit was used, less than 90%"),
        (GOOD, GOOD, "without the limiter nothing failed"),
    ],
)
def test_what_the_demo_must_show(without: Outcome, limited: Outcome, complaint: str | None) -> None:
    found = problems(without, limited)
    assert len(found) == (complaint is not None)
    assert complaint is None or complaint in found[0]


def test_a_run_that_sent_nothing_has_no_refusals() -> None:
    assert replace(GOOD, requests=0, refused=0).refused_share == 0


def test_the_table_says_it_for_people() -> None:
    table = {name: (without, limited) for name, without, limited in rows(BAD, GOOD)}
    assert table["calls done"] == ("60 of 100", "100 of 100")
    assert table["calls failed"] == ("10 (RateLimitError)", "0")
    assert table["calls never made"] == ("30", "0")
    assert table["429s"] == ("30 of 100 requests", "1 of 100 requests")
    assert "10 of 20 agents crashed, and 40 calls were lost" in lesson(BAD, GOOD)


def test_every_agent_has_the_same_work_in_an_order_of_its_own() -> None:
    work = [PLAN.work(agent) for agent in range(PLAN.agents)]
    assert work == [PLAN.work(agent) for agent in range(PLAN.agents)]
    assert {len(sizes) for sizes in work} == {PLAN.calls}
    assert max(map(sum, work)) < 1.1 * min(map(sum, work))
    assert work != [replace(PLAN, seed=1).work(agent) for agent in range(PLAN.agents)]


@pytest.mark.parametrize(("rpm", "tpm"), [(120, 60_000), (500, 10_000), (1, 1000), (10_000, 2_000_000)])
def test_every_call_fits_its_limits(rpm: int, tpm: int) -> None:
    plan = Plan.lasting(10, agents=3, rpm=rpm, tpm=tpm, latency=(0, 0), seed=0)
    assert plan.calls >= 2
    assert max(plan.work(0)) < 0.9 * tpm


_WORKING: tuple[State, ...] = ("working",) * 18
AGENTS: tuple[State, ...] = ("crashed", *_WORKING, "finished")
FRAME = Frame(seconds=4.2, done=12, agents=AGENTS, refused=3, used={"requests": (120, 131), "tokens": (100, 60_000)})


@pytest.mark.parametrize(("encoding", "glyphs"), [("utf-8", f"✖{'●' * 18}✔"), ("ascii", f"x{'o' * 18}+")])
def test_the_picture_fits_a_terminal(encoding: str, glyphs: str) -> None:
    output = _Encoded(encoding)
    console = Console(file=output, force_terminal=True, width=80, color_system=None)
    console.print(OnTerminal(console, PLAN).picture(replace(FRAME, waiting=5, in_flight=2)))
    lines = [" ".join(line.split()) for line in output.getvalue().splitlines()]
    assert max(map(len, output.getvalue().splitlines())) <= 80
    assert any(line.endswith(f"12 of {PLAN.total}, 4 s") for line in lines)
    assert any(line.endswith("120 of 131 allowed so far") for line in lines)
    assert f"agents {glyphs} 1 crashed" in lines
    assert "429s 3" in lines
    assert "queue 5 waiting, 2 in flight" in lines


def test_a_crowd_is_counted() -> None:
    output = StringIO()
    console = Console(file=output, force_terminal=True, width=80, color_system=None)
    console.print(OnTerminal(console, PLAN).picture(replace(FRAME, agents=AGENTS * 10)))
    assert "180 working, 10 finished, 10 crashed" in output.getvalue()


def test_it_moves_on_a_terminal() -> None:
    output = StringIO()
    console = Console(file=output, force_terminal=True, width=80)
    with OnTerminal(console, PLAN) as screen:
        screen.show(FRAME)
        first = output.getvalue()
        screen.show(replace(FRAME, done=99))
    assert "99 of" in output.getvalue()[len(first) :]
    assert "\x1b[1A" in output.getvalue()[len(first) :]  # drawn over


def test_lines_for_a_file() -> None:
    output = StringIO()
    screen = Lines(Console(file=output, width=20), PLAN)
    screen.show(FRAME)
    screen.show(replace(FRAME, waiting=7))
    first, second = output.getvalue().splitlines()
    assert first == f"     4 s  12 of {PLAN.total} calls done, 3 refused with a 429, 1 crashed"
    assert second.endswith("3 refused with a 429, 7 waiting")


class _Encoded(StringIO):
    """A file that can say its encoding."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding
