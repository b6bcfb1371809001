"""`agent-rate-limiter demo`: agents share one limit, without and with the limiter."""

from __future__ import annotations

import asyncio
import json

from rich import box
from rich.console import Console
from rich.table import Table

from agent_rate_limiter.cli.demo.outcome import Outcome, lesson, problems, rows
from agent_rate_limiter.cli.demo.plan import HEADROOM, Plan
from agent_rate_limiter.cli.demo.run import Run, limiter_for, simulated
from agent_rate_limiter.cli.demo.screen import Lines, OnTerminal, Screen


def run_demo(plan: Plan, *, as_json: bool = False) -> int:
    """Run both, show them, and return the exit code: 0 if they show what they should.

    Args:
        plan: the agents' work.
        as_json: print the numbers alone.
    """
    console = Console(quiet=as_json, highlight=False)
    _say(console, _introduction(plan))
    _say(console, "\n[bold]1 of 2[/]  client = AsyncOpenAI()  [dim]the SDK retries by itself[/]")
    without = asyncio.run(_attend(plan, _screen(console, plan, as_json=as_json), limited=False))
    _say(console, "\n[bold]2 of 2[/]  client = limiter.wrap(AsyncOpenAI())  [dim]the limiter holds calls back[/]")
    limited = asyncio.run(_attend(plan, _screen(console, plan, as_json=as_json), limited=True))
    wrong = problems(without, limited)
    if as_json:
        print(json.dumps(_numbers(plan, without, limited, wrong), indent=2))
    else:
        _conclude(console, without, limited, wrong)
    return 1 if wrong else 0


async def _attend(plan: Plan, screen: Screen, *, limited: bool) -> Outcome:
    """Let one run go on, and show it until it is over."""
    async with simulated(plan) as provider:
        run = Run(plan, provider, limiter_for(plan) if limited else None)
        task = asyncio.create_task(run.go())
        with screen:
            while not task.done():
                await asyncio.wait({task}, timeout=screen.period)
                screen.show(run.frame())
        return await task


def _introduction(plan: Plan) -> str:
    agents = "1 agent makes" if plan.agents == 1 else f"{plan.agents} agents make"
    return (
        f"{agents} {plan.calls} calls each to a simulated model that allows {plan.rpm:,} requests and {plan.tpm:,} "
        f"tokens a minute: first with OpenAI's SDK alone, then with the limiter, set {HEADROOM:.0%} below the limits."
    )


def _screen(console: Console, plan: Plan, *, as_json: bool) -> Screen:
    if as_json:
        return Screen()
    return OnTerminal(console, plan) if console.is_terminal else Lines(console, plan)


def _conclude(console: Console, without: Outcome, limited: Outcome, wrong: list[str]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("without", justify="right")
    table.add_column("with the limiter", justify="right", style="bold")
    for row in rows(without, limited):
        table.add_row(*row)
    console.print(table)
    if wrong:
        _say(console, f"[bold red]Not as it should be:[/] {'; '.join(wrong)}.")
    else:
        _say(console, f"[bold green]{lesson(without, limited)}[/]")


def _say(console: Console, text: str) -> None:
    """Print prose: wrapped on a terminal, a line elsewhere."""
    console.print(text, soft_wrap=not console.is_terminal)


def _numbers(plan: Plan, without: Outcome, limited: Outcome, wrong: list[str]) -> dict[str, object]:
    return {
        "limits": {"rpm": plan.rpm, "tpm": plan.tpm, "seed": plan.seed},
        "without": without.to_dict(),
        "with": limited.to_dict(),
        "problems": wrong,
    }
