"""What the tests of the simulated provider share: a clock moved by hand, bare requests, accounts to charge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from agent_rate_limiter.testing.simulated import SimulatedProvider
from agent_rate_limiter.testing.simulated.accounts import Account, Reservation
from agent_rate_limiter.testing.simulated.calls import Call, Refusal
from agent_rate_limiter.testing.simulated.options import Dialect, configure

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletionMessageParam

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Why is the sky blue?"}]
NOW = 1_795_471_200.0  # 2026-11-23 22:00:00 UTC, a whole minute


class Clock:
    """The client's time, in seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def ask(client: OpenAI) -> httpx.Headers:
    """The headers of an answer to the SDK."""
    return httpx.Headers(dict(client.chat.completions.with_raw_response.create(model="m", messages=QUESTION).headers))


def post(
    provider: SimulatedProvider,
    content: str = "Why is the sky blue?",
    path: str = "/v1/chat/completions",
    *,
    model: str = "m",
    key: str = "sk-secret",
    **more: Any,
) -> httpx.Response:
    """Ask without an SDK."""
    body = {"model": model, "messages": [{"role": "user", "content": content}], **more}
    with httpx.Client(verify=False) as http:  # noqa: S501 - loopback without TLS: no need to read certificates
        return http.post(provider.url + path, json=body, headers={"Authorization": f"Bearer {key}"})


def text(answer: httpx.Response) -> str:
    """What a chat answered."""
    return str(answer.json()["choices"][0]["message"]["content"])


def account(dialect: Dialect = "openai", **options: Any) -> Account:
    """An account with these limits, all full."""
    config = configure(options, "model")
    return Account(config, config.behaviour(dialect), NOW)


def call(tokens: int, most: int | None = None, model: str = "m") -> Call:
    """A chat of this many tokens."""
    return Call("chat", model, tokens, most)


def admitted(held: Account, asked: Call, now: float = NOW) -> Reservation:
    """Charge a call that must fit."""
    verdict = held.admit(asked, now)
    assert isinstance(verdict, Reservation)
    return verdict


def refused(held: Account, asked: Call, now: float = NOW) -> Refusal:
    """Ask for a call that must not fit."""
    verdict = held.admit(asked, now)
    assert isinstance(verdict, Refusal)
    return verdict


def remaining(held: Account, now: float = NOW) -> dict[str, int]:
    """What is left of each limit."""
    return {name: reading.remaining for name, reading in held.readings(now).items()}
