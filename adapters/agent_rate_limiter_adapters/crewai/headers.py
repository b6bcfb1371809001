"""What response headers say of quotas: CrewAI does not pass it on, so hooks in the SDKs' HTTP clients hear it."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

from agent_rate_limiter.providers import detect, dialect
from agent_rate_limiter_adapters.crewai.calls import current


def listen(client: Any, kind: str) -> None:
    """Hear the answers to an SDK's client, which the original shares: outside of limited calls nothing is done.

    Args:
        client: OpenAI's or another that keeps a client of httpx, sync or async.
        kind: the dialect spoken with a host that nobody knows.
    """
    http: Any = getattr(client, "_client", None)
    hooks: Any = getattr(http, "event_hooks", None)
    if hooks is not None:
        hook = _hook(kind, waits=hasattr(http, "aclose"))
        if hook not in hooks["response"]:
            http.event_hooks = {**hooks, "response": [*hooks["response"], hook]}


@cache
def _hook(kind: str, *, waits: bool) -> Any:
    def hear(response: Any) -> None:
        attempt = current.get()
        if attempt is not None:
            speaker = dialect(detect(str(response.request.url)) or kind)
            attempt.reservation.observe(speaker.quotas(response.headers, time.time()))

    async def hear_async(response: Any) -> None:
        hear(response)

    return hear_async if waits else hear
