"""What each error of the providers means, told by the exception that the real SDK raises for it."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

import pytest
from google import genai

from agent_rate_limiter.providers import FailureKind, read_failure
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from tests.adapters.sdks import SDKS, AsyncHalf, both_ways, closed
from tests.adapters.support import finish

WAIT, PARKED, NO_CREDIT = FailureKind.WAIT, FailureKind.PARKED, FailureKind.NO_CREDIT
OVERLOADED, TOO_LARGE, TRANSIENT = FailureKind.OVERLOADED, FailureKind.TOO_LARGE, FailureKind.TRANSIENT
FATAL = FailureKind.FATAL
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class Aiohttp")  # Google's own client, async, unwrapped


class Case(NamedTuple):
    sdk: str
    fault: str | Fault
    expected: FailureKind
    kind: str | None = None  # as the limiter knows it from its configuration; None tells it from the exception


def _in_stream(code: str, message: str) -> Fault:
    return Fault("stream_error", error={"type": code, "code": code, "message": message}, after_pieces=0)


_AZURE = {"error": {"code": "429", "message": "You have exceeded token rate limit. Please retry after 22 seconds."}}
CASES = [
    # (a) wait and retry
    *(Case(name, "rate_limit", WAIT) for name in SDKS),
    Case("openai", Fault("rate_limit", dimension="rpm"), WAIT),
    Case("openai", Fault("rate_limit", dimension="tpd"), PARKED),
    Case("openai", Fault("rate_limit", dimension="rpd"), PARKED),
    Case("openai", Fault("rate_limit", bare=True), WAIT),
    Case("openai", Fault("rate_limit", retry_after=121), WAIT),
    Case("openai", Fault("answer", status=429, body=_AZURE), WAIT, "azure"),
    Case("anthropic", "ramp_limit_exceeded", WAIT),
    Case("google", "vertex_exhausted", WAIT, "vertex"),
    Case("openai", "bedrock_throttling", WAIT, "bedrock"),
    Case("openai", "mistral_rate_limited", WAIT, "mistral"),
    Case("openai", "xai_rate_limited", WAIT, "xai"),
    Case("openai", "cohere_rate_limited", WAIT, "cohere"),
    # (b) stop: quota or credit is gone
    Case("openai", "insufficient_quota", NO_CREDIT),
    Case("openai", "credit_balance_exhausted", NO_CREDIT),
    Case("openai", "organization_spend_limit_exceeded", NO_CREDIT),
    Case("openai", "project_spend_limit_exceeded", NO_CREDIT),
    Case("openai", "organization_usage_limit_exceeded", NO_CREDIT),
    Case("anthropic", "enforced_spend_limit_reached", NO_CREDIT),
    Case("anthropic", "contract_spend_limit_reached", NO_CREDIT),
    Case("anthropic", "credit_balance_too_low", NO_CREDIT),
    Case("anthropic", "usage_limit_reached", NO_CREDIT),
    Case("anthropic", "workspace_usage_limit_reached", NO_CREDIT),
    Case("anthropic", "billing_error", NO_CREDIT),
    Case("google", "daily_quota", PARKED),
    Case("google", "limit_zero", NO_CREDIT),
    Case("openai", "openrouter_no_credits", NO_CREDIT, "openrouter"),
    Case("openai", "deepseek_no_balance", NO_CREDIT, "deepseek"),
    Case("openai", "xai_free_quota", NO_CREDIT, "xai"),
    Case("openai", "bedrock_quota_exceeded", NO_CREDIT, "bedrock"),
    # (c) overloaded: fall back or shed load
    *(Case(name, "overloaded", OVERLOADED) for name in SDKS),
    Case("openai", "slow_down", OVERLOADED),
    Case("openai", "slow_down_429", WAIT),
    Case("openai", "resource_unavailable", OVERLOADED),
    Case("openai", "high_demand", OVERLOADED, "azure"),
    Case("openai", "mistral_capacity", OVERLOADED, "mistral"),
    Case("openai", "bedrock_not_ready", OVERLOADED, "bedrock"),
    Case("openai", "bedrock_unavailable", OVERLOADED, "bedrock"),
    Case("anthropic", _in_stream("overloaded_error", "Overloaded"), OVERLOADED),
    Case("google", Fault("stream_error", after_pieces=0), OVERLOADED),
    Case("openai", _in_stream("rate_limit_exceeded", "Rate limit reached. Please try again in 4s."), WAIT),
    # (d) never fits
    Case("openai", "request_too_large", TOO_LARGE),
    # the server and the network
    *(Case(name, "server_error", TRANSIENT) for name in SDKS),
    *(Case(name, fault, TRANSIENT) for name in SDKS for fault in ("bad_gateway", "gateway_timeout", "reset")),
    *(Case(name, "reset_after_headers", TRANSIENT) for name in SDKS),
    *(Case(name, Fault("reset_stream"), TRANSIENT) for name in SDKS),
    # the request itself
    *(Case(name, "authentication", FATAL) for name in SDKS),
    *(Case(name, Fault("answer", status=404, body={"error": {"message": "?"}}), FATAL) for name in SDKS),
]


def _id(case: Case) -> str:
    fault = case.fault
    return f"{case.sdk}-{fault}" if isinstance(fault, str) else f"{case.sdk}-{fault.kind}-{fault.dimension}"


@pytest.mark.parametrize("case", CASES, ids=_id)
@both_ways
def test_what_an_sdks_exception_means(provider: SimulatedProvider, case: Case, *, sync: bool) -> None:
    provider.inject(case.fault)
    sdk = SDKS[case.sdk]
    stream = isinstance(case.fault, Fault) and "stream" in case.fault.kind

    async def use() -> Exception:
        client = sdk.client(provider, sync, 0)
        asked = client if sync or not isinstance(client, genai.Client) else AsyncHalf(client)
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever the SDK makes of it
            await finish(sdk.ask(asked, stream))
        await closed(client)
        return caught.value

    failure = read_failure(asyncio.run(use()), case.kind, time.time())
    assert failure is not None
    assert failure.kind is case.expected, failure
