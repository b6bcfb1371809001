"""Real LangChain models against a simulated provider, and the books of both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI

from agent_rate_limiter import MultiProviderLimiter, Provider, RetryStrategy
from agent_rate_limiter.testing.simulated import SimulatedProvider
from agent_rate_limiter.testing.simulated.options import ModelOptions

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

MODEL = "model-1"
OBLIGING = "obliging-1"
"""Calls the tools that it is given."""
PRICES = {"input_per_1m": 3.0, "output_per_1m": 15.0, "cached_input_per_1m": 0.3}
SIMULATED: ModelOptions = {
    "prices": {"input": 3.0, "output": 15.0, "cached_input": 0.3},
    "output_tokens": 40,
    "cached_tokens": 3,
    "reasoning_tokens": 7,
}


def limiter_of(*, budget_limit: float | None = None, attempts: int = 3, **limits: Any) -> MultiProviderLimiter:
    """A limiter for both providers, with the prices of the simulated one."""
    model = {"rpm": 100_000, "concurrency": 50, **PRICES, **limits}
    return MultiProviderLimiter(
        [Provider(name, {MODEL: model, OBLIGING: model}) for name in ("openai", "anthropic")],
        budget_limit=budget_limit,
        retry=RetryStrategy(max_attempts=attempts, base=0),
    )


def openai_at(provider: SimulatedProvider, **options: Any) -> ChatOpenAI:
    named = {"model": MODEL, "base_url": provider.openai_url, "api_key": "sk-test"}
    return ChatOpenAI(**{**named, **options})


def anthropic_at(provider: SimulatedProvider, **options: Any) -> ChatAnthropic:
    named = {"model": MODEL, "base_url": provider.anthropic_url, "api_key": "sk-test"}
    return ChatAnthropic(**{**named, **options})


def model_at(kind: str, provider: SimulatedProvider, **options: Any) -> BaseChatModel:
    return openai_at(provider, **options) if kind == "openai" else anthropic_at(provider, **options)


def books(limiter: MultiProviderLimiter) -> tuple[int, int, int, int, float]:
    """Requests, input, output and cached tokens, and dollars in the limiter's books; nothing may be in flight."""
    snapshot = limiter.snapshot()
    assert (snapshot.in_flight, snapshot.waiting) == (0, 0)
    held = [limit for limit in snapshot.limits if limit.resource == "concurrency"]
    assert all(limit.available == limit.amount for limit in held)
    rows = limiter.costs.report().to_dicts()
    names = ("requests", "input_tokens", "output_tokens", "cached_input_tokens")
    counts = [sum(int(str(row[name])) for row in rows) for name in names]
    return counts[0], counts[1], counts[2], counts[3], round(sum(float(str(row["cost"])) for row in rows), 9)


def accounts(provider: SimulatedProvider) -> tuple[int, int, int, int, float]:
    """The same in the provider's own books."""
    report = provider.report()
    tokens = (report.input_tokens, report.output_tokens, report.cached_tokens)
    return report.received, *tokens, round(report.dollars, 9)


def charged(limiter: MultiProviderLimiter) -> tuple[int, int]:
    """Requests in the books, and calls in flight."""
    return sum(int(str(row["requests"])) for row in limiter.costs.report().to_dicts()), limiter.snapshot().in_flight
