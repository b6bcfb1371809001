"""`agent-rate-limiter simulate`: a provider on this machine, for any program in any language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import click

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.testing.simulated import SimulatedProvider, serve_forever

if TYPE_CHECKING:
    from agent_rate_limiter.testing.simulated.options import Dialect, ModelOptions

_KEY = "simulated"
"""Any key opens it."""


@dataclass(frozen=True)
class Served:
    """What is served, as the command line says it.

    Args:
        host: where to listen.
        port: where to listen; 0 is any free one.
        models: their names; without any, every model exists.
        limits: `rpm`, `tpm`, … of each model.
        dialect: who answers on OpenAI's routes.
        speed: its seconds per second.
        latency: seconds before an answer: low, high.
        tokens_per_second: how fast answers are written; None is at once.
        seed: changes all answers.
    """

    host: str
    port: int
    models: tuple[str, ...]
    limits: dict[str, int]
    dialect: str | None
    speed: float
    latency: tuple[float, float]
    tokens_per_second: float | None
    seed: int

    def provider(self) -> SimulatedProvider:
        """Make it."""
        options: dict[str, Any] = {**self.limits, "latency": self.latency, "tokens_per_second": self.tokens_per_second}
        return SimulatedProvider(
            {name: cast("ModelOptions", options) for name in self.models} or None,
            default=None if self.models else cast("ModelOptions", options),
            dialect=cast("Dialect | None", self.dialect),
            speed=self.speed,
            seed=self.seed,
            host=self.host,
            port=self.port,
        )


def serve(served: Served) -> None:
    """Serve until Ctrl-C; say where, and in the end what was served."""
    try:
        report = serve_forever(served.provider(), on_start=lambda provider: _announce(served, provider))
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise click.ClickException(f"cannot listen on {served.host}:{served.port}: {reason}. Try --port 0.") from None
    click.echo(
        f"\n{report.received:,} requests: {report.completed:,} answered, {report.refused:,} refused, "
        f"{report.failed + report.dropped:,} failed or dropped; "
        f"{report.input_tokens:,} + {report.output_tokens:,} tokens, {report.used_share:.1%} of the limits used."
    )


def _announce(served: Served, provider: SimulatedProvider) -> None:
    limits = ", ".join(f"{amount:,} {name}" for name, amount in served.limits.items()) or "no limits"
    models = ", ".join(served.models) or "any model"
    pace = f", {served.speed:g} times as fast" if served.speed != 1 else ""
    lines = [
        f"A simulated provider listens on {provider.url} ({models}: {limits}{pace}). Ctrl-C ends it.",
        "",
        *_environment(served.dialect, provider),
    ]
    click.echo("\n".join(lines))


def _environment(dialect: str | None, provider: SimulatedProvider) -> list[str]:
    """What to set so that SDKs call it."""
    if dialect == "azure":
        openai = [f"export AZURE_OPENAI_ENDPOINT={provider.url} AZURE_OPENAI_API_KEY={_KEY}"]
    elif dialect == "groq":
        openai = [f"export GROQ_BASE_URL={provider.url} GROQ_API_KEY={_KEY}"]
    else:
        openai = [f"export OPENAI_BASE_URL={provider.openai_url} OPENAI_API_KEY={_KEY}"]
    return [
        *openai,
        f"export ANTHROPIC_BASE_URL={provider.anthropic_url} ANTHROPIC_API_KEY={_KEY}",
        f"export GOOGLE_GEMINI_BASE_URL={provider.gemini_url} GEMINI_API_KEY={_KEY}",
    ]
