"""How far an indexing run is, and how long the limits will still take it."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from agent_rate_limiter_adapters.llamaindex.limits import Limits

Method = Callable[..., Any]
_LINE = "{desc}: {percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt} in {elapsed}{postfix}"


class Progress:
    """A line that is written anew after each request: `Generating embeddings: 40% … about 24 s to go`.

    Args:
        model: a limited embedding model.
        texts: all that it is to embed.
        per_request: how many of them go into one request.
    """

    def __init__(self, model: Any, texts: Sequence[str], per_request: int) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped]  # its stubs are a package of their own

        self._model = model
        self._per_request = per_request
        self._left = len(texts)
        self._tokens_each = self._limits.embedding_tokens(model, texts) / len(texts)
        self._bar = tqdm(total=len(texts), desc="Generating embeddings", bar_format=_LINE, postfix=self.forecast())

    @property
    def _limits(self) -> Limits:
        limits: Limits = self._model._limits  # noqa: SLF001 - ours
        return limits

    def done(self, count: int) -> None:
        """Note that so many texts are embedded."""
        self._left -= count
        self._bar.set_postfix_str(self.forecast(), refresh=False)
        self._bar.update(count)

    def close(self) -> None:
        """Leave the line as it is."""
        self._bar.close()

    def forecast(self) -> str:
        """Say how long the limits will take; nothing when they hold nobody up."""
        tokens = self._left * self._tokens_each
        needed = {
            "requests": math.ceil(self._left / self._per_request),
            "tokens": tokens,
            "input_tokens": tokens,
        }
        waits = [
            (status.wait_for(needed[status.resource]) or 0.0, status.name)
            for status in self._limits.statuses(self._model)
            if status.resource in needed
        ]
        seconds, name = max(waits, default=(0.0, ""))
        return f"about {spelled(seconds)} to go at {name}" if seconds >= 1 else ""


def spelled(seconds: float) -> str:
    """Write a time as people say it: 42 s, 3 min 20 s, 2 h 5 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


_current: ContextVar[Progress | None] = ContextVar("agent_rate_limiter_llamaindex_progress", default=None)


@contextmanager
def _showing(model: Any, texts: Sequence[str], *, one_by_one: bool) -> Generator[None]:
    progress = Progress(model, texts, 1 if one_by_one else model.embed_batch_size)
    token = _current.set(progress)
    try:
        yield
    finally:
        _current.reset(token)
        progress.close()


def shown(base: Any, *, one_by_one: bool) -> Method:
    """Return `get_text_embedding_batch` with our line in place of LlamaIndex's, which cannot know the limits."""

    def method(self: Any, texts: list[str], show_progress: bool = False, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002 - its signature
        send = base.__get__(self)
        if not (show_progress and texts):
            return send(texts, show_progress, **kwargs)
        with _showing(self, texts, one_by_one=one_by_one):
            return send(texts, False, **kwargs)  # noqa: FBT003 - as above

    return method


def shown_async(base: Any, *, one_by_one: bool) -> Method:
    """Return `aget_text_embedding_batch` likewise."""

    async def method(self: Any, texts: list[str], show_progress: bool = False, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002 - its signature
        send = base.__get__(self)
        if not (show_progress and texts):
            return await send(texts, show_progress, **kwargs)
        with _showing(self, texts, one_by_one=one_by_one):
            return await send(texts, False, **kwargs)  # noqa: FBT003 - as above

    return method


def told(base: Any) -> Method:
    """Return a method that embeds a batch, and tells the line that it is done."""

    def method(self: Any, texts: list[str]) -> Any:
        found = base.__get__(self)(texts)
        _advance(texts)
        return found

    return method


def told_async(base: Any) -> Method:
    """Return a coroutine method that embeds a batch, and tells the line that it is done."""

    async def method(self: Any, texts: list[str]) -> Any:
        found = await base.__get__(self)(texts)
        _advance(texts)
        return found

    return method


def _advance(texts: Sequence[str]) -> None:
    progress = _current.get()
    if progress is not None:
        progress.done(len(texts))
