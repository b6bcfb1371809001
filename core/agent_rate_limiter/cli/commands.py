"""The commands and their options. What they do is imported when it is run: `--help` stays quick."""

from __future__ import annotations

import click

from agent_rate_limiter import __version__

Range = tuple[float, float]


def _span(_: click.Context, parameter: click.Parameter, text: str) -> Range:
    """Read a number, or two with a dash between them: 0.5, or 0.2-2."""
    try:
        numbers = [float(part) for part in text.split("-")]
    except ValueError:
        numbers = []
    if len(numbers) in {1, 2} and 0 <= numbers[0] <= numbers[-1] < float("inf"):
        return numbers[0], numbers[-1]
    raise click.BadParameter(
        f"{text!r}: give a number of at least 0, such as 0.5, or low-high, such as 0.2-2.", param=parameter
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="agent-rate-limiter")
def cli() -> None:
    """Keep AI agents running at the edge of their rate limits and budgets."""


@cli.command(short_help="Agents share one limit, without and with the limiter.")
@click.option("--agents", type=click.IntRange(1, 500), default=20, show_default=True, help="How many share the limit.")
@click.option("--seconds", type=click.FloatRange(1, 3600), help="About how long it all takes.  [default: 32]")
@click.option("--quick", is_flag=True, help="The same with less work: about 20 seconds.")
@click.option("--rpm", type=click.IntRange(1), default=240, show_default=True, help="Requests a minute allowed.")
@click.option("--tpm", type=click.IntRange(1000), default=120_000, show_default=True, help="Tokens a minute allowed.")
@click.option("--latency", callback=_span, default="0.1-0.4", show_default=True, help="Seconds before an answer.")
@click.option("--seed", type=int, default=0, show_default=True, help="Changes the agents' work and the answers.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON, and nothing else.")
def demo(
    *,
    agents: int,
    seconds: float | None,
    quick: bool,
    rpm: int,
    tpm: int,
    latency: Range,
    seed: int,
    as_json: bool,
) -> None:
    """Let agents share one limit through the real OpenAI SDK, without and with the limiter.

    Nothing leaves this machine: the provider is simulated, on loopback. The exit code is 0 if, with the
    limiter, every call succeeded, at most 1 % of requests met a 429 and at least 90 % of what the limit
    allows was used, while without it calls failed.
    """
    from agent_rate_limiter.cli.demo import run_demo
    from agent_rate_limiter.cli.demo.plan import Plan

    length = seconds or (13.0 if quick else 32.0)
    plan = Plan.lasting(length, agents=agents, rpm=rpm, tpm=tpm, latency=latency, seed=seed)
    raise SystemExit(run_demo(plan, as_json=as_json))


@cli.command(short_help="Run a simulated LLM provider on this machine.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 is any free one.")
@click.option("--model", "models", multiple=True, help="Serve this model; again for more. Any, unless said.")
@click.option("--rpm", type=click.IntRange(0), help="Requests a minute that each model allows.")
@click.option("--rpd", type=click.IntRange(0), help="Requests a day.")
@click.option("--tpm", type=click.IntRange(0), help="Tokens a minute.")
@click.option("--itpm", type=click.IntRange(0), help="Input tokens a minute.")
@click.option("--otpm", type=click.IntRange(0), help="Output tokens a minute.")
@click.option("--concurrency", type=click.IntRange(0), help="Calls at once.")
@click.option(
    "--dialect",
    type=click.Choice(["openai", "azure", "groq"]),
    help="Who answers on OpenAI's routes.  [default: openai]",
)
@click.option(
    "--speed", type=click.FloatRange(0, min_open=True), default=1, show_default=True, help="How fast its time passes."
)
@click.option(
    "--latency", callback=_span, default="0", show_default=True, help="Seconds before an answer: 0.5, or 0.2-2."
)
@click.option("--tokens-per-second", type=click.FloatRange(0, min_open=True), help="How fast answers are written.")
@click.option("--seed", type=int, default=0, show_default=True, help="Changes all answers.")
def simulate(
    *,
    host: str,
    port: int,
    models: tuple[str, ...],
    rpm: int | None,
    rpd: int | None,
    tpm: int | None,
    itpm: int | None,
    otpm: int | None,
    concurrency: int | None,
    dialect: str | None,
    speed: float,
    latency: Range,
    tokens_per_second: float | None,
    seed: int,
) -> None:
    """Run a simulated LLM provider on this machine until Ctrl-C.

    It speaks OpenAI's, Anthropic's and Gemini's APIs, and limits and refuses calls as they do.
    """
    from agent_rate_limiter.cli.simulate import Served, serve

    limits = {"rpm": rpm, "rpd": rpd, "tpm": tpm, "itpm": itpm, "otpm": otpm, "concurrency": concurrency}
    given = {name: amount for name, amount in limits.items() if amount is not None}
    serve(Served(host, port, models, given, dialect, speed, latency, tokens_per_second, seed))


@cli.command(short_help="Check a configuration file.")
@click.argument("config", type=click.Path())
def check(config: str) -> None:
    """Check a configuration file, and show what it sets. Exit code 2 if something in it makes no sense."""
    from agent_rate_limiter.cli.check import check_config

    raise SystemExit(check_config(config))


@cli.command(short_help="Say how long a workload takes, and what it costs.")
@click.option("--config", required=True, type=click.Path(), help="The limits: a .yaml or .json file.")
@click.option(
    "--workload", required=True, help="What is to be done: '200 agents x 10 calls, 2k in, 500 out', or a .jsonl trace."
)
@click.option("--factor", default=2.0, show_default=True, help="By what limits that bind are raised, to see.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Save a picture as this .png or .svg.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON, and nothing else.")
def plan(*, config: str, workload: str, factor: float, plot: str | None, as_json: bool) -> None:
    """Say how a workload would go: how long, how much, which limits bind, and what raising them would bring.

    It runs in virtual time on the real engine; nothing is sent. More parts of a workload: '1k max',
    '500 cached', '8 s each', 'over 1 h', 'to openai:gpt-4', and ';' before another one. Exit code 2 if
    something makes no sense.
    """
    from agent_rate_limiter.cli.plan import show_plan

    raise SystemExit(show_plan(config, workload, factor, plot=plot, as_json=as_json))


@cli.command(short_help="Show what was spent, by a ledger's file.")
@click.argument("file", type=click.Path())
@click.option(
    "--by", multiple=True, help="provider, model, price or a label; again for more.  [default: provider, model]"
)
@click.option("--since", metavar="WHEN", help="A date (2026-11-20, 2026-11-20T14:00), or how long ago: 24h, 7d, 4w.")
@click.option("--until", metavar="WHEN", help="The same; not included.")
@click.option("--every", type=click.Choice(["hour", "day", "week", "month"]), help="A row for each, too.")
@click.option("--timezone", "zone", default="UTC", show_default=True, help="Where days begin.")
@click.option("--calls", type=click.IntRange(1), metavar="N", help="The last N calls instead, one by one.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
@click.option("--json", "form", flag_value="json", help="Print JSON.")
def costs(
    *,
    file: str,
    by: tuple[str, ...],
    since: str | None,
    until: str | None,
    every: str | None,
    zone: str,
    calls: int | None,
    form: str | None,
) -> None:
    """Show what was spent, by the ledger in FILE (sqlite:///FILE of a limiter or a CostTracker)."""
    from agent_rate_limiter.cli.costs import Asked, show_costs

    labels = tuple(name for text in by for name in text.split(",")) or ("provider", "model")
    raise SystemExit(show_costs(file, Asked(labels, since, until, every, zone, calls), form or "table"))


@cli.command(short_help="Show the limits that providers publish.")
@click.argument("name", required=False)
@click.option("--tier", help="One of its tiers; the smallest, unless said.")
def presets(name: str | None, tier: str | None) -> None:
    """Show the limits that providers publish: all providers, or those of NAME."""
    from agent_rate_limiter.cli.presets import list_presets, show_preset

    if name is None:
        list_presets()
    else:
        show_preset(name, tier)
