"""Limited embeddings."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from langchain_core.embeddings import Embeddings

from agent_rate_limiter import ConfigError
from agent_rate_limiter.providers import dialect
from agent_rate_limiter.sending import check_terms, send, send_async
from agent_rate_limiter_adapters.langchain.sdk import replace_clients, switch_off_retries
from agent_rate_limiter_adapters.langchain.targets import Targets, embedding_estimate, url_of

if TYPE_CHECKING:
    from agent_rate_limiter import Attempts, Target
    from agent_rate_limiter_adapters.http.targets import AnyLimiter

_MOST_TOKENS = 200_000
"""Of one request; OpenAI's limit is 300,000 tokens in all inputs together (November 2026)."""


class RateLimitedEmbeddings(Embeddings):
    """Limited embeddings. Also `limiter.wrap(embeddings)`.

    LangChain tells neither when a request is sent nor what it used. Where the provider's SDK is inside (OpenAI, Azure
    and others of its kind), the SDK is limited: each request counts once, with what it really used. Elsewhere texts
    are sent in slices of `chunk_size`, each of them one call that is charged its estimate.

    Args:
        embeddings: any embeddings of LangChain; they stay as they are.
        limiter: whose limits.
        target: where all calls go, as `provider:model`; then they are charged their estimates.
        provider: the provider that they go to; None finds it by the base URL, or by the integration's name.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait; None waits for ever.
        chunk_size: texts in one request; None takes the embeddings' own, or 1,000.

    Raises:
        ConfigError: they are no embeddings; or no configured provider fits, or several do.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        limiter: AnyLimiter,
        *,
        target: str | Target | None = None,
        provider: str | None = None,
        priority: int | None = None,
        timeout: float | None = None,
        chunk_size: int | None = None,
    ) -> None:
        check_terms(limiter, priority=priority, timeout=timeout)
        if not isinstance(embeddings, Embeddings):  # pyright: ignore[reportUnnecessaryIsInstance] - what users pass
            raise ConfigError(f"embeddings is {embeddings!r}: give embeddings of LangChain.")
        self._original = _plain(embeddings, limiter)
        self.embeddings = copy.copy(self._original)
        self._limiter = limiter
        self._targets = Targets(limiter, target=target, provider=provider)
        self._terms: dict[str, Any] = {"priority": priority, "timeout": timeout}
        self._chunk = chunk_size or getattr(self.embeddings, "chunk_size", None) or 1_000
        if target is None:
            wanted = {"provider": provider, **self._terms}
            self._sdk_counts = replace_clients(self.embeddings, lambda client: limiter.wrap(client, **wanted))
        else:
            self._sdk_counts = False
            switch_off_retries(self.embeddings)
        if not self._sdk_counts:
            self._attempts(())  # refuse now what could never be sent

    def __getattr__(self, name: str) -> Any:
        """Return what else the embeddings have, such as `model`."""
        if name.startswith("_") or name == "embeddings":  # not there yet while it is made or copied
            raise AttributeError(name)
        return getattr(self.embeddings, name)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts, blocking the thread while they wait."""
        if self._sdk_counts:
            return self.embeddings.embed_documents(texts)
        vectors: list[list[float]] = []
        for part in self._slices(texts):
            vectors += send(self._attempts(part), partial(_embed, self.embeddings, part), _unknown)
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Embed a text, blocking the thread while it waits."""
        if self._sdk_counts:
            return self.embeddings.embed_query(text)
        return send(self._attempts([text]), lambda _: self.embeddings.embed_query(text), _unknown)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts, letting the event loop run while they wait."""
        if self._sdk_counts:
            return await self.embeddings.aembed_documents(texts)
        vectors: list[list[float]] = []
        for part in self._slices(texts):
            vectors += await send_async(self._attempts(part), partial(_embed_async, self.embeddings, part), _unknown)
        return vectors

    async def aembed_query(self, text: str) -> list[float]:
        """Embed a text, letting the event loop run while it waits."""
        if self._sdk_counts:
            return await self.embeddings.aembed_query(text)
        return await send_async(self._attempts([text]), lambda _: self.embeddings.aembed_query(text), _unknown)

    def _attempts(self, texts: Sequence[str]) -> Attempts:
        target = self._targets.find(_params(self.embeddings), url_of(self.embeddings))
        return self._limiter.attempts(target, embedding_estimate(texts), **self._terms)

    def _slices(self, texts: Sequence[str]) -> Iterator[list[str]]:
        part: list[str] = []
        tokens = 0
        for text in texts:
            size = embedding_estimate([text]).input_tokens
            if part and (len(part) == self._chunk or tokens + size > _MOST_TOKENS):
                yield part
                part, tokens = [], 0
            part.append(text)
            tokens += size
        if part:
            yield part


def _plain(embeddings: Embeddings, limiter: AnyLimiter) -> Embeddings:
    """The embeddings themselves: on other terms from now on, and not limited twice."""
    if not isinstance(embeddings, RateLimitedEmbeddings):
        return embeddings
    if embeddings._limiter is not limiter:  # noqa: SLF001 - its own kind
        raise ConfigError("embeddings are limited by another limiter already: give the original.")
    return embeddings._original  # noqa: SLF001 - as above


def _embed(embeddings: Embeddings, texts: list[str], _: object) -> list[list[float]]:
    return embeddings.embed_documents(texts)


async def _embed_async(embeddings: Embeddings, texts: list[str], _: object) -> list[list[float]]:
    return await embeddings.aembed_documents(texts)


def _params(embeddings: Any) -> dict[str, Any]:
    """What LangChain would say of a model: the provider by the integration's package, and the model."""
    kind = type(embeddings)
    package = kind.__module__.partition(".")[0].removeprefix("langchain_")
    provider = "azure" if kind.__name__.startswith("Azure") else package
    model = getattr(embeddings, "model", None) or getattr(embeddings, "model_name", None)
    return {"ls_provider": dialect(provider).kind if _known(provider) else provider, "ls_model_name": model}


def _known(provider: str) -> bool:
    return dialect(provider).kind != dialect("").kind


def _unknown(_: object) -> None:
    """LangChain does not tell what embeddings used."""
